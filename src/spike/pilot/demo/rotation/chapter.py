"""The claims of the chapter `rotation` in their order, and what can be broken."""

from __future__ import annotations

from typing import Final

from spike.pilot.demo.claim import Chapter, Sabotage, Scene
from spike.pilot.demo.rotation import back, emergency, replace
from spike.pilot.demo.rotation.world import RotationWorld, rotation_world

_SCENES: Final = (
    Scene(
        "A rotation, and a kill in the middle",
        (
            replace.records_are_under_the_first,
            replace.rotation_begins,
            replace.nexus_is_killed,
            replace.resumes_by_itself,
            replace.rotation_is_verified,
            replace.nobody_noticed,
        ),
    ),
    Scene(
        "Taken back, made again, and finalized",
        (back.rolled_back, back.rotated_again, back.finalized, back.old_keys_open_nothing),
    ),
    Scene(
        "The root key has leaked",
        (
            emergency.emergency,
            emergency.report_is_written,
            emergency.new_password_makes_it_whole,
            emergency.nothing_is_left,
        ),
    ),
)

_SABOTAGES: Final = (
    Sabotage(
        "frozen-keeper",
        "a Keeper is frozen and cannot confirm its share of the new key",
        replace.freeze_keeper,
        before=replace.rotation_begins,
    ),
    Sabotage(
        "lost-shares",
        "two Keepers are frozen just before Nexus is killed",
        replace.freeze_two_at_once,
        before=replace.nexus_is_killed,
        later=replace.resumes_by_itself,
    ),
    Sabotage(
        "row-put-back",
        "a storage writer put an old row back where the re-encryption had been",
        replace.put_back_behind,
        before=replace.nexus_is_killed,
        later=replace.rotation_is_verified,
    ),
    Sabotage(
        "meddled-value",
        "somebody else writes where the requests write",
        replace.meddle,
        before=replace.nobody_noticed,
    ),
    Sabotage(
        "early-finalize",
        "somebody finalized the rotation before it was taken back",
        back.finalize_early,
        before=back.rolled_back,
    ),
    Sabotage(
        "kept-row",
        "a storage writer put a row back as it was before the rotations",
        back.keep_old_row,
        before=back.old_keys_open_nothing,
    ),
    Sabotage(
        "lost-history",
        "a storage writer deleted the newest entries of the history",
        emergency.lose_history,
        before=emergency.report_is_written,
    ),
)

CHAPTER: Final[Chapter[RotationWorld]] = Chapter(
    "rotation",
    "keys are replaced while requests are served, through a kill, back and again, until the old ones open nothing",
    rotation_world,
    _SCENES,
    _SABOTAGES,
)
