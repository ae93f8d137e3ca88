"""The YAML file of `spike policy apply`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from spike.error import FormatError

LIMIT_BYTES: Final = 16 << 10
_DEPTH_LIMIT: Final = 4  # a mapping that holds a list needs two


class PolicyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A policy as it stands in a file, with the field names of the wire."""

    name: str
    spiffeid_pattern: str
    path_pattern: str
    permissions: list[str]


def decode_untrusted(raw: bytes) -> PolicyFile:
    """Read a policy file: one YAML mapping with exactly the four fields, in UTF-8.

    Raises:
        FormatError: larger than 16 KiB, not YAML, aliases, deep nesting, or not these fields.
    """
    import yaml

    if len(raw) > LIMIT_BYTES:
        raise FormatError(f"the policy file is larger than {LIMIT_BYTES >> 10} KiB")
    try:
        text = raw.decode()
        _require_plain(yaml.parse(text, yaml.SafeLoader))
        return msgspec.convert(yaml.safe_load(text), PolicyFile)
    except msgspec.ValidationError as error:
        # Its words name a field and types, nothing of the content.
        raise FormatError(f"the policy file is not a policy: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError, KeyError):
        # PyYAML lets what a date or number cannot be escape as ValueError, and unhashable keys
        # or odd tags as the others.
        raise FormatError("the policy file is not YAML in UTF-8") from None


def _require_plain(events: Iterable[object]) -> None:
    """Return if a YAML text is as plain as a policy; stops reading where it is not.

    An alias may stand for a structure that holds itself, or for one that is huge, and PyYAML takes
    minutes over 50,000 opening brackets.
    """
    import yaml

    depth = 0
    for event in events:
        match event:
            case yaml.AliasEvent():
                raise FormatError("the policy file uses a YAML alias")
            case yaml.CollectionStartEvent():
                depth += 1
            case yaml.CollectionEndEvent():
                depth -= 1
        if depth > _DEPTH_LIMIT:
            raise FormatError("the policy file is nested too deeply")
