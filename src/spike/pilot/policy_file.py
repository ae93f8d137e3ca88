"""The YAML file of `spike policy apply`."""

from __future__ import annotations

from typing import Final

import msgspec

from spike.error import FormatError

LIMIT_BYTES: Final = 64 << 10


class PolicyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A policy as it stands in a file, with the field names of the wire."""

    name: str
    spiffeid_pattern: str
    path_pattern: str
    permissions: list[str]


def decode_untrusted(raw: bytes) -> PolicyFile:
    """Read a policy file: one YAML mapping with exactly the four fields, in UTF-8.

    Raises:
        FormatError: larger than 64 KiB, not YAML, aliases, or not these fields.
    """
    import yaml

    if len(raw) > LIMIT_BYTES:
        raise FormatError(f"the policy file is larger than {LIMIT_BYTES >> 10} KiB")
    try:
        text = raw.decode()
        # An alias may stand for a structure that holds itself, or for one that is huge.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise FormatError("the policy file uses a YAML alias")
        return msgspec.convert(yaml.safe_load(text), PolicyFile)
    except msgspec.ValidationError as error:
        # Its words name a field and types, nothing of the content.
        raise FormatError(f"the policy file is not a policy: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError, KeyError):
        # PyYAML lets what a date or number cannot be escape as ValueError, and unhashable keys
        # or odd tags as the others.
        raise FormatError("the policy file is not YAML in UTF-8") from None
