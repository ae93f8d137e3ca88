"""What a value of a request may be: section 3 of the wire contract, one function for each line.

Lengths are in bytes of UTF-8. Patterns are matched whole: Python's `$` would also match before a
final newline, where Go's does not.

Each function returns nothing and raises InputError, whose message names the field and the rule and
never repeats the value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from spike.error import InputError

NAME_LIMIT_BYTES: Final = 250
PATH_LIMIT_BYTES: Final = 500
PATTERN_LIMIT_BYTES: Final = 500
SHARD_SIZE: Final = 32
SHARD_ID_LIMIT: Final = 255
NONCE_SIZE_BYTES: Final = 12
CHALLENGE_SIZE_BYTES: Final = 32
GENERATION_LIMIT: Final = 0xFFFF_FFFF
GET_MANY_LIMIT: Final = 1000
PERMISSION_NAMES: Final = ("read", "write", "list", "execute", "super")
ALGORITHM_NAMES: Final = ("", "AES-GCM", "AES-256-GCM")
"""What callers of encrypt and decrypt may call the one algorithm there is."""

REASON_LIMIT_CHARACTERS: Final = 500
LEAKED_LIMIT: Final = 300
"""How many things can be said to have leaked, and how many Keepers be left out, at once."""

_ID = re.compile(r"[0-9a-f]{32}")
_TAG = re.compile(r"[0-9a-f]{64}")
_SLOT_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}")
_NAME = re.compile(r"[a-zA-Z0-9\-_ ]+")
_PATH = re.compile(r"[a-zA-Z0-9._\-/()?+*|\[\]{}\\]+")
_PATH_PATTERN = re.compile(r"[a-zA-Z0-9._\-/^$()?+*|\[\]{}\\]+")
# Go has `(/[…]+)*` where this has `(?:/[…]+)?`. The class holds the slash, so both accept the same,
# but this one never has two ways to match one text, which takes Python exponential time.
_SPIFFE_PATTERN = re.compile(
    r"\^?spiffe://[\\a-zA-Z0-9.\-*()+?\[\]]+(?:/[\\/a-zA-Z0-9._\-*()+?\[\]]+)?\$?"
)


def check_name(name: str, field: str = "name") -> None:
    """Check a policy's name, the `id` of policy get and delete, or a key of a secret's values."""
    _check(name, field, _NAME, NAME_LIMIT_BYTES, "letters, digits, '-', '_' and spaces")


def check_path(path: str) -> None:
    """Check a secret's path. Slashes are literal: nothing is normalized."""
    _check(path, "path", _PATH, PATH_LIMIT_BYTES, "letters, digits and ._-/()?+*|[]{}\\")


def check_path_pattern(pattern: str) -> None:
    """Check the characters of a policy's path pattern; whether it compiles is seen later."""
    allowed = "letters, digits and ._-/^$()?+*|[]{}\\"
    _check(pattern, "pathPattern", _PATH_PATTERN, PATTERN_LIMIT_BYTES, allowed)


def check_spiffe_pattern(pattern: str) -> None:
    """Check the form of a policy's SPIFFE ID pattern; whether it compiles is seen later."""
    allowed = "the form ^spiffe://trust-domain/path$, both anchors optional"
    _check(pattern, "spiffeidPattern", _SPIFFE_PATTERN, PATTERN_LIMIT_BYTES, allowed)


def check_permissions(permissions: Sequence[str]) -> None:
    """Check that there is at least one permission and that each is one of the five."""
    if not permissions:
        raise InputError("a policy has no permissions")
    if not set(permissions) <= set(PERMISSION_NAMES):
        raise InputError(f"a permission is none of {', '.join(PERMISSION_NAMES)}")


def check_value_keys(values: Mapping[str, str]) -> None:
    """Check the keys of a secret's values. The values themselves may be any text."""
    for key in values:
        check_name(key, "a key of the values")


def check_shard(shard: Sequence[int] | None) -> None:
    """Check a Shamir shard: 32 integers 0..255, not all zero."""
    if shard is None or len(shard) != SHARD_SIZE:
        raise InputError(f"a shard has not {SHARD_SIZE} integers")
    if any(not 0 <= octet <= 255 for octet in shard):
        raise InputError("an integer of a shard is not in 0..255")
    if not any(shard):
        raise InputError("a shard is all zero")


def check_shard_id(shard_id: int) -> None:
    """Check the index of a recovery shard: 0 would be the secret itself."""
    if not 1 <= shard_id <= SHARD_ID_LIMIT:
        raise InputError(f"the id of a shard is not in 1..{SHARD_ID_LIMIT}")


def check_nonce(nonce: bytes) -> None:
    """Check the length of a nonce."""
    if len(nonce) != NONCE_SIZE_BYTES:
        raise InputError(f"a nonce has not {NONCE_SIZE_BYTES} bytes")


def check_algorithm(name: str) -> None:
    """Check the algorithm that a cipher call asks for; it chooses nothing."""
    if name not in ALGORITHM_NAMES:
        raise InputError("the algorithm is neither empty nor AES-256-GCM")


def check_challenge(nonce: bytes) -> None:
    """Check the length of the nonce that a Keeper's proof is made over."""
    if len(nonce) != CHALLENGE_SIZE_BYTES:
        raise InputError(f"the nonce of a status has not {CHALLENGE_SIZE_BYTES} bytes")


def check_id(text: str, field: str) -> None:
    """Check the identity of a store, a lineage or a share set: 128 bits in lower-case hexadecimal."""
    if not _ID.fullmatch(text):
        raise InputError(f"the {field} is not 32 lower-case hexadecimal digits")


def check_tag(tag: str) -> None:
    """Check the form of a share's MAC: 256 bits in lower-case hexadecimal."""
    if not _TAG.fullmatch(tag):
        raise InputError("the tag is not 64 lower-case hexadecimal digits")


def check_generation(generation: int) -> None:
    """Check the number of a root-key generation."""
    if not 1 <= generation <= GENERATION_LIMIT:
        raise InputError(f"the generation is not in 1..{GENERATION_LIMIT}")


def check_epoch(epoch: int) -> None:
    """Check the number of an epoch."""
    if epoch < 0:
        raise InputError("the epoch is below zero")


def check_slot_name(name: str) -> None:
    """Check the name of a backup slot: 1 to 64 letters, digits and ._-, beginning with a letter or digit."""
    if not _SLOT_NAME.fullmatch(name):
        raise InputError(
            "the slotName is not 1 to 64 letters, digits and ._- beginning with one of the former"
        )


def check_reason(text: str) -> None:
    """Check the reason that is given for a lifecycle operation; it may be empty."""
    if len(text) > REASON_LIMIT_CHARACTERS:
        raise InputError(f"the reason has more than {REASON_LIMIT_CHARACTERS} characters")


def check_leaked(names: Sequence[str]) -> None:
    """Check what is said to have leaked: `root`, `shards`, `slot:NAME`, `keeper:NAME`."""
    if len(names) > LEAKED_LIMIT:
        raise InputError(f"more than {LEAKED_LIMIT} things are said to have leaked")
    for name in names:
        what, colon, which = name.partition(":")
        if colon and what == "slot":
            check_slot_name(which)
        elif colon and what == "keeper":
            check_keeper_names([which])
        elif name not in ("root", "shards"):
            raise InputError("what leaked is none of root, shards, slot:NAME, keeper:NAME")


def check_keeper_names(names: Sequence[str]) -> None:
    """Check what Keepers are called by: an index, an identity, an address; which one it is is seen later."""
    if len(names) > LEAKED_LIMIT:
        raise InputError(f"more than {LEAKED_LIMIT} Keepers are named")
    if not all(1 <= len(name) <= PATH_LIMIT_BYTES - len("keeper:") for name in names):
        raise InputError("the name of a Keeper has not 1 to 493 characters")


def check_item_count(count: int) -> None:
    """Check how many items one get-many asks for."""
    if count > GET_MANY_LIMIT:
        raise InputError(f"more than {GET_MANY_LIMIT} items in one request")


def _check(text: str, field: str, form: re.Pattern[str], limit_bytes: int, allowed: str) -> None:
    # Counted in characters first: a text far too long is not encoded only to be refused. What
    # stands for bytes of an argument that are no text (PEP 383) is counted too: the form refuses it.
    size_bytes = len(text[: limit_bytes + 1].encode("utf-8", "surrogatepass"))
    if not 1 <= size_bytes <= limit_bytes:
        raise InputError(f"the {field} has not 1 to {limit_bytes} bytes")
    if not form.fullmatch(text):
        raise InputError(f"the {field} may only have {allowed}")
