"""What each control request does to the office."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import assert_never

from spike.authority.book import Entry, Identity, parse_bundle_pem_untrusted, pem_of
from spike.authority.grant import LauncherNumber
from spike.authority.office import Office
from spike.authority.process import ProcessHandle, Uid
from spike.authority.traffic import Traffic
from spike.client.control import (
    Answer,
    BundleAddRequest,
    BundleItem,
    BundleList,
    BundleListRequest,
    BundleRemoveRequest,
    BundleShowRequest,
    Done,
    EntryAddRequest,
    EntryItem,
    EntryList,
    EntryListRequest,
    EntryRemoveRequest,
    Granted,
    GrantItem,
    GrantRequest,
    Request,
    Status,
    StatusRequest,
    WithdrawRequest,
)
from spike.error import FormatError, InputError, SpiffeIdError
from spike.spiffe.id import SpiffeId, TrustDomain, parse_trust_domain_untrusted
from spike.spiffe.svid import TrustBundle


class Desk:
    """Answers requests whose sender was let in. `socket` is the Workload API's."""

    def __init__(
        self, office: Office, traffic: Traffic, socket: Path, started_at: datetime
    ) -> None:
        self.office = office
        self._traffic = traffic
        self._socket = socket
        self._started_at = started_at

    def answer(
        self, request: Request, process: ProcessHandle | None, launcher: LauncherNumber
    ) -> Answer:
        """Do what a request asks for. `process` is taken over, unless this raises.

        Raises:
            SpikeError: it is refused; nothing was changed.
        """
        match request:
            case GrantRequest():
                self.office.grant(_id(request.id), _required(process), launcher)
                return Granted(str(self._socket))
            case WithdrawRequest():
                withdrawn = _required(process)
                self.office.withdraw(withdrawn, launcher)
                withdrawn.close()
                return Done()
        if process is not None:
            raise InputError("only grant and withdraw come with a descriptor")
        return self._answer_about_book(request)

    def _answer_about_book(
        self,
        request: EntryAddRequest
        | EntryListRequest
        | EntryRemoveRequest
        | BundleAddRequest
        | BundleListRequest
        | BundleRemoveRequest
        | BundleShowRequest
        | StatusRequest,
    ) -> Answer:
        office, book = self.office, self.office.book
        match request:
            case EntryAddRequest():
                entry = Entry(Uid(request.uid), Identity(_id(request.id), request.hint))
                office.change_book(book.with_entry(entry, request.place))
                return Done()
            case EntryRemoveRequest():
                office.change_book(book.without_entry(Uid(request.uid), _id(request.id)))
                return Done()
            case EntryListRequest():
                return EntryList(
                    [EntryItem(e.uid, str(e.identity.id), e.identity.hint) for e in book.entries]
                )
            case BundleAddRequest():
                office.change_book(book.with_bundle(_bundle(request)))
                return Done()
            case BundleRemoveRequest():
                office.change_book(book.without_bundle(_trust_domain(request.trust_domain)))
                return Done()
            case BundleListRequest():
                return BundleList(
                    [BundleItem(b.trust_domain, pem_of(b.authorities)) for b in book.bundles]
                )
            case BundleShowRequest():
                own = tuple(each.certificate for each in office.authorities)
                return BundleList([BundleItem(book.trust_domain, pem_of(own))])
            case StatusRequest():
                return self._status()
            case _:
                assert_never(request)

    def _status(self) -> Status:
        office, book = self.office, self.office.book
        return Status(
            trust_domain=book.trust_domain,
            socket=str(self._socket),
            pid=os.getpid(),
            started_at=_rfc3339(self._started_at),
            authority_expires_at=_rfc3339(office.authorities[-1].expires_at),
            svid_lifetime_s=office.svid_lifetime.total_seconds(),
            entries=len(book.entries),
            foreign_trust_domains=[b.trust_domain for b in book.bundles],
            grants=[GrantItem(key.pid, str(grant.id)) for key, grant in office.grants.grants()],
            grants_possible=office.grants_possible,
            connections=self._traffic.connections,
            streams=self._traffic.streams,
        )


def _required(process: ProcessHandle | None) -> ProcessHandle:
    if process is None:
        raise InputError("the pidfd of the process is missing")
    return process


def _id(text: str) -> SpiffeId:
    try:
        return SpiffeId.parse_untrusted(text)
    except SpiffeIdError as error:
        raise InputError(error.message, error.next_step) from error


def _trust_domain(text: str) -> TrustDomain:
    try:
        return parse_trust_domain_untrusted(text)
    except SpiffeIdError as error:
        raise InputError(error.message, error.next_step) from error


def _bundle(request: BundleAddRequest) -> TrustBundle:
    try:
        return parse_bundle_pem_untrusted(_trust_domain(request.trust_domain), request.pem)
    except FormatError as error:
        raise InputError(error.message, error.next_step) from error


def _rfc3339(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
