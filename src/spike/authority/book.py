"""The book: which user gets which identities, and which foreign trust domains are known. Pure.

It is kept in a file that people may write too, so it is read strictly and every fault is named.
The order of a user's entries is the order of the file; the first is the user's default identity.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from spike.authority.process import Uid
from spike.error import FormatError, InputError, NewerFormatError, NotFoundError, SpikeError
from spike.spiffe.certificate import der_of
from spike.spiffe.id import SpiffeId, TrustDomain, parse_trust_domain_untrusted
from spike.spiffe.svid import TrustBundle

FORMAT: Final = 1
BOOK_LIMIT_BYTES: Final = 4 * 1024 * 1024
ENTRY_LIMIT: Final = 1000
BUNDLE_LIMIT: Final = 16
# All bundles go to every caller in one message; the clients' limit for one is 4 MiB.
PEM_LIMIT_BYTES: Final = 64 * 1024

# -2 and -1 mean "nobody" and "no change" to the kernel.
_UID_LIMIT: Final = (1 << 32) - 3
_HINT = re.compile(r"[A-Za-z0-9._-]{0,64}")
# One blank only outside of the group: with more, 64 KiB of blanks take half a minute to refuse.
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")
_PEM_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_ROLES_BY_LAUNCH_ONLY: Final = ("recover", "restore")


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity as it is handed out. The hint tells a caller with several which is for what."""

    id: SpiffeId
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """Every process of the user `uid` that has no grant of its own gets `identity`."""

    uid: Uid
    identity: Identity


@dataclass(frozen=True, slots=True)
class Book:
    """All entries and foreign bundles of one Authority. A change gives another book.

    `nobody` is the number the kernel shows for all users that have none here; it gets no entry.
    """

    trust_domain: TrustDomain
    nobody: Uid
    entries: tuple[Entry, ...] = ()
    bundles: tuple[TrustBundle, ...] = ()

    def identities_of(self, uid: Uid) -> tuple[Identity, ...]:
        """Return the user's identities, the default one first; empty if there is no entry."""
        return tuple(each.identity for each in self.entries if each.uid == uid)

    def with_entry(self, entry: Entry, place: Literal["first", "last"] = "last") -> Book:
        """Add an entry; one that stands first is its user's default.

        Raises:
            InputError: the entry is not allowed, is there already, or the book is full.
        """
        self._check(entry)
        if len(self.entries) >= ENTRY_LIMIT:
            raise InputError(f"there are {ENTRY_LIMIT} entries already", "remove one first")
        entries = (entry, *self.entries) if place == "first" else (*self.entries, entry)
        return replace(self, entries=entries)

    def without_entry(self, uid: Uid, spiffe_id: SpiffeId) -> Book:
        """Remove an entry.

        Raises:
            NotFoundError: there is none like it.
        """
        left = tuple(e for e in self.entries if (e.uid, e.identity.id) != (uid, spiffe_id))
        if len(left) == len(self.entries):
            raise NotFoundError(f"there is no entry that gives uid {uid} the identity {spiffe_id}")
        return replace(self, entries=left)

    def with_bundle(self, bundle: TrustBundle) -> Book:
        """Add a foreign bundle, or put it in the place of that trust domain's older one.

        Raises:
            InputError: it is our own trust domain's, or the book is full.
        """
        if bundle.trust_domain == self.trust_domain:
            raise InputError(
                f"{bundle.trust_domain} is this Authority's own trust domain: it trusts its own CA "
                "only"
            )
        others = tuple(b for b in self.bundles if b.trust_domain != bundle.trust_domain)
        if len(others) >= BUNDLE_LIMIT:
            raise InputError(f"there are {BUNDLE_LIMIT} bundles already", "remove one first")
        bundles = sorted((*others, bundle), key=lambda each: each.trust_domain)
        return replace(self, bundles=tuple(bundles))

    def without_bundle(self, trust_domain: TrustDomain) -> Book:
        """Remove a foreign bundle.

        Raises:
            NotFoundError: there is none of that trust domain.
        """
        left = tuple(b for b in self.bundles if b.trust_domain != trust_domain)
        if len(left) == len(self.bundles):
            raise NotFoundError(f"there is no foreign bundle of {trust_domain}")
        return replace(self, bundles=left)

    def _check(self, entry: Entry) -> None:
        spiffe_id = entry.identity.id
        check_issuable(spiffe_id, self.trust_domain)
        role = role_by_launch_only(spiffe_id)
        if role:
            raise InputError(
                f"no entry gives the {role} role: every process of that user would have it all "
                "the time",
                f"start the one command that needs it: spike-authority run --id {spiffe_id} -- …",
            )
        if not 0 <= entry.uid <= _UID_LIMIT:
            raise InputError("a uid is a number from 0 to 4294967293")
        if entry.uid == self.nobody:
            raise InputError(
                f"uid {entry.uid} stands for every user that has no number on this machine"
            )
        if not _HINT.fullmatch(entry.identity.hint):
            raise InputError("a hint has at most 64 letters, digits, '.', '-' and '_'")
        for other in self.entries:
            if other.uid != entry.uid:
                continue
            if other.identity.id == spiffe_id:
                raise InputError(f"uid {entry.uid} has the identity {spiffe_id} already")
            if entry.identity.hint and other.identity.hint == entry.identity.hint:
                raise InputError(f"uid {entry.uid} has the hint {entry.identity.hint} already")


def check_issuable(spiffe_id: SpiffeId, trust_domain: TrustDomain) -> None:
    """Refuse an ID this Authority cannot issue.

    Raises:
        InputError: it is in another trust domain, or names the trust domain itself.
    """
    if spiffe_id.trust_domain != trust_domain:
        raise InputError(
            f"{spiffe_id} is not in this Authority's trust domain {trust_domain}",
            f"use an ID that starts with spiffe://{trust_domain}/",
        )
    if not spiffe_id.path:
        raise InputError(f"{spiffe_id} names the trust domain instead of a workload in it")


def role_by_launch_only(spiffe_id: SpiffeId) -> str:
    """Return `recover` or `restore` if the ID has that role below any trust root, else "".

    A trust root may hold path segments (wire contract, section 2), so the role's own segments are
    looked for at every place.
    """
    for role in _ROLES_BY_LAUNCH_ONLY:
        if f"/spike/pilot/role/{role}/" in spiffe_id.path + "/":
            return role
    return ""


def superuser_of(trust_domain: TrustDomain) -> SpiffeId:
    """Return the identity that administers SPIKE in this trust domain."""
    return SpiffeId(trust_domain, "/spike/pilot/role/superuser")


class _EntryText(msgspec.Struct, forbid_unknown_fields=True):
    uid: int
    id: str
    hint: str = ""


class _BookText(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    trust_domain: str
    entries: list[_EntryText] = []
    bundles: dict[str, str] = {}


class _FormatText(msgspec.Struct):
    format: int


_Text = TypeVar("_Text", _BookText, _FormatText)


def parse_book_untrusted(content: bytes, nobody: Uid) -> Book:
    """Read a book of at most 4 MiB.

    Raises:
        NewerFormatError: a newer SPIKE has written it.
        FormatError: malformed, or it says what a command would be refused; the message says where.
    """
    if len(content) > BOOK_LIMIT_BYTES:
        raise FormatError(f"an entry file has at most {BOOK_LIMIT_BYTES} bytes")
    found = _decode(content, _FormatText).format
    if found > FORMAT:
        raise NewerFormatError("entry file", found, FORMAT)
    if found < 1:
        raise FormatError(f"the entry file has the unknown format {found}")
    text = _decode(content, _BookText)
    where = "the trust domain"
    try:
        book = Book(parse_trust_domain_untrusted(text.trust_domain), nobody)
        for number, each in enumerate(text.entries, start=1):
            where = f"entry {number}"
            identity = Identity(SpiffeId.parse_untrusted(each.id), each.hint)
            book = book.with_entry(Entry(Uid(each.uid), identity))
        for name, pem in text.bundles.items():
            where = "a bundle"  # its name may be anything
            bundle = parse_bundle_pem_untrusted(parse_trust_domain_untrusted(name), pem)
            book = book.with_bundle(bundle)
    except SpikeError as error:
        raise FormatError(f"{where} of the entry file: {error.message}", error.next_step) from error
    return book


def encode_book(book: Book) -> bytes:
    """Return the file's content, one form for each book."""
    text = _BookText(
        format=FORMAT,
        trust_domain=book.trust_domain,
        entries=[_EntryText(e.uid, str(e.identity.id), e.identity.hint) for e in book.entries],
        bundles={str(b.trust_domain): pem_of(b.authorities) for b in book.bundles},
    )
    return msgspec.json.format(msgspec.json.encode(text), indent=2) + b"\n"


def parse_bundle_pem_untrusted(trust_domain: TrustDomain, pem: str) -> TrustBundle:
    """Read the CA certificates of a trust domain from PEM of at most 64 KiB; other text is skipped.

    Raises:
        FormatError: too large, no certificate in it, or one that is no CA's.
    """
    raw = pem.encode("utf-8", "replace")
    if len(raw) > PEM_LIMIT_BYTES:
        raise FormatError(f"a bundle has at most {PEM_LIMIT_BYTES} bytes")
    blocks = _PEM.findall(raw)
    if len(blocks) != raw.count(_PEM_BEGIN):
        # Skipped, a damaged block would leave a bundle that looks whole.
        raise FormatError("not a bundle in PEM: a certificate is damaged")
    try:
        der = [base64.b64decode(b"".join(block.split()), validate=True) for block in blocks]
        bundle = TrustBundle.parse_untrusted(trust_domain, b"".join(der))
    except SpikeError as error:
        raise FormatError(f"not a bundle in PEM: {error.message}") from error
    except ValueError:
        raise FormatError("not a bundle in PEM: a certificate is damaged") from None
    # What is written down must be readable again, and ours has more line ends than some.
    if len(pem_of(bundle.authorities)) > PEM_LIMIT_BYTES:
        raise FormatError(f"a bundle has at most {PEM_LIMIT_BYTES} bytes")
    return bundle


def pem_of(certificates: tuple[x509.Certificate, ...]) -> str:
    """Return certificates in PEM, one after another."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates).decode("ascii")


def bundle_der(certificates: tuple[x509.Certificate, ...]) -> bytes:
    """Return certificates as the Workload API hands them out: DER, one after another."""
    return b"".join(der_of(each) for each in certificates)


def _decode(content: bytes, kind: type[_Text]) -> _Text:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The library names the place and what it expected there, never the value.
        raise FormatError(f"the entry file cannot be read: {error}") from None
