"""SPIFFE IDs: the names of workloads, read strictly.

Source: the SPIFFE-ID standard, sections 2.1 to 2.4. There is exactly one text for each ID, so two
IDs are the same workload if, and only if, their texts are the same bytes. A standard URI parser
would not do: it knows ports, user names, percent-encoding and queries, all of which the standard
forbids here, and each of them is a second text for one name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from spike.error import SpiffeIdError

TrustDomain = NewType("TrustDomain", str)

ID_LIMIT_BYTES = 2048
TRUST_DOMAIN_LIMIT_BYTES = 255

_SCHEME = "spiffe://"
# Always used with fullmatch: `$` would also match before a final newline. Both classes are ASCII
# only, so that characters and bytes count the same.
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


def parse_trust_domain_untrusted(text: str) -> TrustDomain:
    """Return the trust domain named by `text`, in one of its two forms: `example.org` or `spiffe://example.org`.

    The second form is what the Workload API uses as the key of a bundle.

    Raises:
        SpiffeIdError: `text` is neither.
    """
    return _checked_trust_domain(text.removeprefix(_SCHEME))


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """One SPIFFE ID. `path` is empty (the trust domain itself) or starts with a slash.

    No object of this type holds an ID the standard forbids: the constructor checks as well.

    Raises:
        SpiffeIdError: the parts do not make a SPIFFE ID of at most 2048 bytes.
    """

    trust_domain: TrustDomain
    path: str

    def __post_init__(self) -> None:
        _checked_trust_domain(self.trust_domain)
        if len(_SCHEME) + len(self.trust_domain) + len(self.path) > ID_LIMIT_BYTES:
            raise SpiffeIdError(f"a SPIFFE ID has at most {ID_LIMIT_BYTES} bytes")
        _check_path(self.path)

    @classmethod
    def parse_untrusted(cls, text: str) -> SpiffeId:
        """Read an ID of at most 2048 bytes; `str()` of the result is `text` again.

        Raises:
            SpiffeIdError: `text` is no SPIFFE ID. The message does not repeat it: it may be
                anything.
        """
        # Before any other work: the time spent on a stranger's text has a bound.
        if len(text) > ID_LIMIT_BYTES:
            raise SpiffeIdError(f"a SPIFFE ID has at most {ID_LIMIT_BYTES} bytes")
        if not text.startswith(_SCHEME):
            raise SpiffeIdError("a SPIFFE ID starts with spiffe://, in lower case")
        trust_domain, slash, path = text[len(_SCHEME) :].partition("/")
        return cls(TrustDomain(trust_domain), slash + path)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}{self.path}"


def _checked_trust_domain(text: str) -> TrustDomain:
    if len(text) > TRUST_DOMAIN_LIMIT_BYTES:
        raise SpiffeIdError(f"a trust domain has at most {TRUST_DOMAIN_LIMIT_BYTES} bytes")
    if not _TRUST_DOMAIN.fullmatch(text):
        raise SpiffeIdError(
            "a trust domain has only lower-case letters, digits, '.', '-' and '_', and at least one"
        )
    return TrustDomain(text)


def _check_path(path: str) -> None:
    if not path:
        return
    first, *segments = path.split("/")
    if first:
        raise SpiffeIdError("the path of a SPIFFE ID starts with a slash")
    for segment in segments:
        if not segment:
            raise SpiffeIdError(
                "the path of a SPIFFE ID has no empty segment and no slash at its end"
            )
        if segment in {".", ".."}:
            raise SpiffeIdError("the path of a SPIFFE ID has no segment '.' or '..'")
        if not _SEGMENT.fullmatch(segment):
            raise SpiffeIdError(
                "each segment of a SPIFFE ID's path has only letters, digits, '.', '-' and '_'"
            )
