"""What a restore would bring back, shown to the person who decides; and the phrase that accepts an older store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from spike.error import AnswerError, RefusedError
from spike.pilot import output, prompt
from spike.pilot.session import Session

if TYPE_CHECKING:
    from spike.client.anchor import SeenAnchor
    from spike.client.nexus import NexusClient
    from spike.wire.own import RestorePreview


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided beforehand, on the command line. Without `phrase` it is asked for."""

    yes: bool
    accept_older: bool
    phrase: str | None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """A preview, the token that completes it, and remarks for the person."""

    preview: RestorePreview
    confirm: str
    remarks: Sequence[str]


Ask = Callable[[bytes], Shown]
"""Asks Nexus for the preview, with the anchor that Pilot saw, or none."""
Complete = Callable[[str], bytes | None]
"""Carries out what the token of a preview stands for; returns the anchor of what is back."""


def option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that decide; the command gets `yes`, `accept_older`, `phrase` and `dry_run`."""
    command = click.option(
        "--dry-run", is_flag=True, help="Open and check everything, show it, and change nothing."
    )(command)
    command = click.option(
        "--phrase",
        metavar="TEXT",
        help="With --accept-older-store: the phrase, instead of typing it.",
    )(command)
    command = click.option(
        "--accept-older-store",
        "accept_older",
        is_flag=True,
        help="Go on although the store had been further, after typing a phrase.",
    )(command)
    return click.option("-y", "--yes", is_flag=True, help="Do not ask before going on.")(command)


def decision(
    *, yes: bool, accept_older: bool, phrase: str | None, dry_run: bool = False
) -> Decision:
    """Return what was decided on the command line.

    Raises:
        click.UsageError: a phrase for nothing.
    """
    if phrase is not None and not accept_older:
        raise click.UsageError("--phrase goes with --accept-older-store.")
    return Decision(yes, accept_older, phrase, dry_run)


def phrase_for(store_id: str) -> str:
    """Return what has to be typed before an older store is accepted."""
    return f"accept older store {store_id[:8]}"


def by_confirming(nexus: NexusClient) -> Complete:
    """Return how a restore of the root key alone is carried out."""

    def complete(confirm: str) -> bytes | None:
        done = nexus.confirm_restore(confirm)
        if not done.restored:
            raise AnswerError(
                "restore failed: the server did not complete it", "look at the server's log"
            )
        if done.remarks:
            output.note("\n".join(f"Note: {remark}" for remark in done.remarks))
        return done.anchor

    return complete


def carry_out(
    session: Session, ask: Ask, complete: Complete, decided: Decision
) -> RestorePreview | None:
    """Show what would be brought back, ask what has to be asked, bring it back and return it; None on a dry run.

    Raises:
        RefusedError: the store is an old copy, or the person does not want it. Nothing was changed.
    """
    anchors = session.anchors
    seen = anchors.latest(session.server)
    shown = ask(seen.raw if seen else b"")
    known = anchors.get(shown.preview.store_id)
    if known is not None and (seen is None or seen.raw != known.raw):
        shown = ask(known.raw)  # what was seen last at this address was another store's
    preview = shown.preview
    own = _older_than_seen(preview, known)
    if own and not decided.accept_older:
        raise RefusedError(
            f"nothing was restored: {own}",
            "put the newest copy of the store back, or name a newer backup with --backup; or, should it be lost, "
            "go on with this one: --accept-older-store",
        )
    output.note("\n".join(_description(preview, known, seen, own, shown.remarks)))
    # Two places that say the same are told once.
    against = list(dict.fromkeys([*preview.objections, *([own] if own else [])]))
    if against:
        _tell(preview, against)
    if decided.dry_run:
        return None
    if against:
        _accept(preview, decided)
    elif not decided.yes and not prompt.confirm("Bring this root key back?"):
        raise RefusedError("nothing was restored: not confirmed", "answer y, or give --yes")
    session.keep_anchor(complete(shown.confirm))
    return preview


def lines(preview: RestorePreview) -> list[str]:
    """Return what a root key that is back is known by."""
    return [
        f"  Store: {preview.store_id}",
        f"  Lineage: {preview.lineage}",
        f"  Root key: generation {preview.generation}, sealed {preview.sealed_at}",
        f"  Keyring: epoch {preview.epoch}, revision {preview.revision}",
        f"  Slot: {preview.slot}",
        f"  Audit head: {preview.audit_head or 'none'}",
    ]


def parts(preview: RestorePreview | None, confirm: str | None, remarks: list[str] | None) -> Shown:
    """Return the parts of an answer that shows a preview.

    Raises:
        AnswerError: it shows none.
    """
    if preview is None or not confirm:
        raise AnswerError(
            "restore failed: the server gave no preview",
            "see that the server and this client fit together",
        )
    return Shown(preview, confirm, remarks or ())


def _older_than_seen(preview: RestorePreview, known: SeenAnchor | None) -> str:
    """Say how the store shows less than Pilot saw of it; empty if it does not.

    Nexus weighs the anchors it is given by their MACs; this catches an old copy also where its root
    key can no longer authenticate the anchor.
    """
    if known is None:
        return ""
    seen = known.statement
    if preview.lineage != seen.lineage:
        behind = preview.epoch <= seen.epoch
    else:
        behind = (preview.epoch, preview.revision) < (seen.epoch, seen.revision)
    if not behind:
        return ""
    return (
        f"store {preview.store_id} is an old copy (lineage {preview.lineage}, epoch {preview.epoch}, revision "
        f"{preview.revision}); on {known.seen_at} Pilot saw it at lineage {seen.lineage}, epoch {seen.epoch}, "
        f"revision {seen.revision}"
    )


def _description(
    preview: RestorePreview,
    known: SeenAnchor | None,
    seen: SeenAnchor | None,
    own: str,
    remarks: Sequence[str],
) -> Iterator[str]:
    yield "This would be brought back:"
    yield from lines(preview)
    if known is None:
        yield "  Pilot has not seen this store before: compare the store id yourself"
    elif not own:
        reached = known.statement
        # What Nexus objects knows more than Pilot: of Keepers, and of the policies' own generation.
        newest = "" if preview.objections else "; this is not older"
        yield (
            f"  Pilot saw this store on {known.seen_at}: epoch {reached.epoch}, revision "
            f"{reached.revision}, access generation {reached.access_generation}{newest}"
        )
    if seen is not None and seen.statement.store_id != preview.store_id:
        yield f"  Warning: at this address Pilot last saw another store, {seen.statement.store_id}"
    for remark in remarks:
        yield f"  Remark: {remark}"


def _tell(preview: RestorePreview, against: Sequence[str]) -> None:
    """Show what says that the store had been further, and what is lost."""
    output.note("This is an OLDER store, or not the living one:")
    for each in against:
        output.note(f"  {each}")
    output.note(
        f"What is brought back was last changed in its keyring on {preview.replaced_at}. Whatever was written, "
        "deleted, given or revoked after this copy was made is LOST: secrets, policies, keys."
    )


def _accept(preview: RestorePreview, decided: Decision) -> None:
    """Return once the phrase was given.

    Raises:
        RefusedError: it was another phrase.
    """
    phrase = phrase_for(preview.store_id)
    given = decided.phrase
    if given is None:
        with prompt.terminal(f'give the phrase: --phrase "{phrase}"') as terminal:
            given = prompt.ask(terminal, f'To go on type "{phrase}": ')
    if given.strip() != phrase:
        raise RefusedError("nothing was restored: the phrase is another one", f'it is "{phrase}"')
