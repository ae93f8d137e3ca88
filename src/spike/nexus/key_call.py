"""The calls on the root key itself, and what goes with them: init, status, the password's way, restore."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib.metadata import version

from spike.error import InputError, StoreError
from spike.lifecycle.keyring import Keyring
from spike.nexus.backup_call import copies_of, retired_of, slots_of
from spike.nexus.backup_watch import BackupWatch
from spike.nexus.birth_flow import Birth, initialize, require_unborn
from spike.nexus.examination import Asked, Examined
from spike.nexus.handler import Handler, OnKey
from spike.nexus.keeper_call import rehearsal_of
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.lite import Service
from spike.nexus.opened import Opened
from spike.nexus.password_desk import PasswordDesk
from spike.nexus.place_desk import PlaceState
from spike.nexus.rehearsal import Rehearser
from spike.nexus.restore_flow import Preview, RestoreDesk, RestoreInput, rotation_remark
from spike.nexus.rotation_call import Rotations, in_short
from spike.nexus.schedule_look import look
from spike.nexus.status_proof import due_dates, operation_of, shards_of
from spike.nexus.usage_book import UsageBook
from spike.nexus.verification import Run, Verifier
from spike.nexus.watch import MemoryWatch
from spike.policy.access import Extent, Grant
from spike.wire import call
from spike.wire.call import CallName
from spike.wire.message import Empty, GoTime
from spike.wire.operator import BootstrapVerifyRequest
from spike.wire.own import (
    BackupPlace,
    DrillDue,
    FileRestoreRequest,
    InitAnswer,
    InitRequest,
    PasswordBeginAnswer,
    PasswordRestoreRequest,
    RestoreAnswer,
    RestorePreview,
    StatusAnswer,
    StatusBackup,
    StatusMeasure,
    StatusSlot,
    StatusStorage,
    StatusVerification,
)
from spike.wire.validate import check_nonce, check_slot_name


class KeyCalls:
    """Handlers bound to one vault and the desks beside it."""

    def __init__(
        self,
        keepers: KeeperDesk,
        desk: PasswordDesk,
        restores: RestoreDesk,
        watch: MemoryWatch,
        *,
        verifier: Verifier,
        rehearser: Rehearser,
        copies: BackupWatch,
        usage: UsageBook,
        rotations: Rotations,
        service: Service = Service.WHOLE,
    ) -> None:
        self._keepers = keepers
        self._verifier = verifier
        self._rehearser = rehearser
        self._copies = copies
        self._usage = usage
        self._rotations = rotations
        self._service = service
        self._vault = keepers.vault
        self._desk = desk
        self._restores = restores
        self._watch = watch

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call served here."""
        return {
            call.BOOTSTRAP_VERIFY.name: OnKey(self.bootstrap_verify),
            call.OPERATOR_PASSWORD_BEGIN.name: OnKey(self.password_begin),
            call.OPERATOR_INIT.name: OnKey(self.init),
            call.OPERATOR_RESTORE_PASSWORD.name: OnKey(self.restore_password),
            call.OPERATOR_RESTORE_FILE.name: OnKey(self.restore_file),
            call.OPERATOR_STATUS.name: OnKey(self.status),
        }

    async def bootstrap_verify(self, _grant: Grant, asked: BootstrapVerifyRequest) -> Empty:
        """Refuse, after the form was checked: no root key of ours ever opens a payload."""
        check_nonce(asked.nonce)
        raise InputError("the root key opens no payload; a store is initialized with spike init")

    async def password_begin(self, grant: Grant, _asked: Empty) -> PasswordBeginAnswer:
        """Start the process a password will be opened in, and give its one-time public key."""
        session = await self._desk.begin(str(grant.peer))
        return PasswordBeginAnswer(session=session.id, public_key=session.public)

    async def init(self, grant: Grant, asked: InitRequest) -> InitAnswer:
        """Make the first root key."""
        check_slot_name(asked.slot_name)
        await require_unborn(self._vault)
        actor = str(grant.peer)
        session = self._desk.take(asked.session, actor)
        try:
            birth = Birth(asked.sealed_password, asked.slot_name, actor)
            opened = await initialize(self._keepers, session, birth)
        finally:
            await session.close()
        self._watch.look()
        document = opened.document
        return InitAnswer(
            store_id=document.store_id,
            lineage=document.lineage,
            generation=document.active_root.number,
            epoch=document.epoch,
            slot=asked.slot_name,
            anchor=opened.anchor_raw(),
            backup_places=self._places(opened),
        )

    async def restore_password(self, grant: Grant, asked: PasswordRestoreRequest) -> RestoreAnswer:
        """Bring the root key back from the store's own backup."""
        return await self._restore(grant, asked, None)

    async def restore_file(self, grant: Grant, asked: FileRestoreRequest) -> RestoreAnswer:
        """Bring the root key back from a key backup that was handed in."""
        return await self._restore(grant, asked, asked.backup)

    async def _restore(
        self,
        grant: Grant,
        asked: PasswordRestoreRequest | FileRestoreRequest,
        backup: bytes | None,
    ) -> RestoreAnswer:
        actor = str(grant.peer)
        if asked.confirm:
            opened = await self._restores.complete(asked.confirm, actor)
            self._watch.look()
            remarks = await self._restores.rotation_remarks()
            return RestoreAnswer(
                restored=True, anchor=opened.anchor_raw(), remarks=list(remarks) or None
            )
        session = self._desk.take(asked.session, actor)
        try:
            preview = await self._restores.preview(
                session,
                RestoreInput(
                    sealed_password=asked.sealed_password,
                    slot_name=asked.slot_name,
                    asked=Asked(
                        backup=backup,
                        anchors=(asked.anchor,) if asked.anchor else (),
                        actor=actor,
                        accept_older=asked.accept_older_store,
                    ),
                ),
            )
        finally:
            await session.close()
        return preview_answer(preview)

    async def status(self, grant: Grant, _asked: Empty) -> StatusAnswer:
        """Tell how Nexus is: all of it to the superuser, readiness to everybody else."""
        if grant.extent is not Extent.ALL:
            return StatusAnswer(ready=self._vault.is_open)
        phase = await self._vault.phase()
        opened = self._vault.opened if self._vault.is_open else None
        document = None if opened is None else opened.document
        keepers, threshold, margin = self._keepers.status() or (None, None, None)
        by_itself, person = self._drills_due(document)
        return StatusAnswer(
            ready=opened is not None,
            state=phase.value,
            version=version("spike"),
            store_id=None if document is None else document.store_id,
            lineage=None if document is None else document.lineage,
            epoch=None if document is None else document.epoch,
            revision=None if document is None else document.revision,
            root_generation=None if document is None else document.active_root.number,
            slots=None if opened is None else _slots(opened, self._vault.moment()),
            memory=[StatusMeasure(m.name, m.applied, m.detail) for m in self._watch.last.measures],
            stops=[
                *sorted(self._vault.stops),
                *(self._vault.life.reasons(document) if document else ()),
            ],
            storage=await self._storage(),
            places=None if opened is None else self._places(opened),
            keepers=keepers,
            keeper_threshold=threshold,
            keeper_margin=margin,
            recovery=self._keepers.waits_for or None if opened is None else None,
            remarks=await self._remarks(opened) or None,
            verification=None
            if self._verifier.last is None
            else _verification(self._verifier.last),
            rehearsal=None
            if opened is None or self._rehearser.last is None
            else rehearsal_of(self._rehearser.last),
            drill=by_itself,
            person_drill=person,
            shards=None if document is None else shards_of(document),
            operation=None if document is None else operation_of(document),
            backup=None if opened is None else self._backup(opened),
            rotation=None if opened is None else in_short(self._rotations.view()),
            anchor=None if opened is None else opened.anchor_raw(),
        )

    async def _remarks(self, opened: Opened | None) -> list[str]:
        due = "" if opened is None else opened.document.rotation_due
        told = [self._service.remark, rotation_remark(due) if due else "", *self._keepers.remarks]
        if opened is not None:
            # A store that does not answer is told as such; its schedule is not what matters then.
            with contextlib.suppress(StoreError):
                told += (await look(self._vault, self._usage)).alerts
        return [each for each in told if each]

    def _drills_due(self, document: Keyring | None) -> tuple[DrillDue | None, DrillDue | None]:
        """Return when drills are due; a store without a backup place has none to make."""
        if document is None or not self._vault.places:
            return None, None
        return due_dates(document, self._vault.moment())

    def _backup(self, opened: Opened) -> StatusBackup:
        last = self._copies.last
        return StatusBackup(
            copies=[] if last is None else copies_of(last),
            retired=retired_of(opened),
            verified_at=None if last is None else GoTime(last.at),
        )

    async def _storage(self) -> StatusStorage:
        try:
            health = await self._vault.store.health()
            census = await self._vault.store.census()
        except StoreError as error:
            return StatusStorage(engine="", healthy=False, detail=error.message)
        records: dict[str, int] = {}
        for (kind, _), count in census.items():
            records[kind] = records.get(kind, 0) + count
        return StatusStorage(
            engine=health.engine,
            healthy=not health.fault,
            detail=health.fault,
            records=dict(sorted(records.items())),
        )

    def _places(self, opened: Opened) -> list[BackupPlace]:
        return [_place(state, opened.document.store_id) for state in self._vault.places]


def _place(state: PlaceState, store_id: str) -> BackupPlace:
    path = str(state.place.backup_path(store_id))
    return BackupPlace(path, "failed" if state.fault else "current", state.fault)


def _verification(run: Run) -> StatusVerification:
    tally = run.tally
    return StatusVerification(
        state=run.outcome,
        started_at=GoTime(run.started_at),
        started_by=run.actor,
        scanned=tally.scanned,
        good=tally.good,
        bad=tally.bad_total,
        vanished=tally.vanished,
        ended_at=GoTime(run.ended_at) if run.ended_at else None,
        detail=run.detail,
    )


def _slots(opened: Opened, now: str) -> list[StatusSlot]:
    return [
        StatusSlot(
            name=slot.name,
            kind=slot.kind,
            state=slot.state,
            created_at=slot.created_at,
            last_verified_at=slot.last_verified_at,
            due_at=slot.due_at,
            overdue=slot.overdue,
            last_verified_by=slot.last_verified_by,
        )
        for slot in slots_of(opened, now)
    ]


def preview_of(found: Examined) -> RestorePreview:
    """Return what a restore would bring back, as it is told on the wire."""
    held, chosen = found.confirmed, found.tried.chosen
    return RestorePreview(
        store_id=held.store_id,
        lineage=held.lineage,
        generation=held.active_root.number,
        epoch=held.epoch,
        revision=held.revision,
        sealed_at=GoTime(chosen.sealed.sealed_at),
        slot=chosen.slot.name,
        audit_head=held.audit_head,
        replaced_at=GoTime(held.replaced_at),
        objections=[each.message for each in found.accepted],
    )


def preview_answer(preview: Preview) -> RestoreAnswer:
    """Return the answer that shows a preview."""
    return RestoreAnswer(
        restored=False,
        preview=preview_of(preview.found),
        confirm=preview.token,
        remarks=list(preview.found.remarks) or None,
    )
