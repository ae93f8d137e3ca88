"""The claims of the chapter `recovery` in their order, and what can be broken."""

from __future__ import annotations

from typing import Final

from spike.pilot.demo.claim import Chapter, Sabotage, Scene
from spike.pilot.demo.recovery import keyring, machine, memory
from spike.pilot.demo.recovery.world import RecoveryWorld, recovery_world

_SCENES: Final = (
    Scene("Nexus restarts, a Keeper restarts", (memory.nexus_restarts, memory.keeper_restarts)),
    Scene("Nexus and all Keepers are lost", (memory.password_is_enough, memory.shards_are_enough)),
    Scene("The keyring alone is lost", (keyring.keyring_is_lost, keyring.newest_backup_is_enough)),
    Scene("A password is lost", (keyring.another_slot_is_enough, keyring.new_password_is_set)),
    Scene(
        "The storage is lost too",
        (
            machine.system_backup_is_made,
            machine.empty_machine_comes_up,
            machine.keys_are_replaced,
        ),
    ),
    Scene(
        "All of these are lost",
        (machine.says_what_is_lost, machine.begins_anew, machine.all_is_well),
    ),
)

_SABOTAGES: Final = (
    Sabotage(
        "two-frozen",
        "two Keepers are frozen just before Nexus restarts",
        memory.freeze_two_keepers,
        before=memory.nexus_restarts,
    ),
    Sabotage(
        "deleted-secret",
        "a storage writer deleted an acknowledged secret",
        memory.delete_secret,
        before=memory.password_is_enough,
    ),
    Sabotage(
        "older-backup",
        "the backup place holds an older key backup",
        keyring.put_older_backup,
        before=keyring.newest_backup_is_enough,
    ),
    Sabotage(
        "removed-slot",
        "the second slot was removed",
        keyring.remove_second_slot,
        before=keyring.another_slot_is_enough,
    ),
    Sabotage(
        "damaged-file",
        "a byte of the system backup was changed",
        machine.damage_file,
        before=machine.empty_machine_comes_up,
    ),
    Sabotage(
        "early-reset",
        "somebody erased the store before anybody looked at what is lost",
        machine.reset_early,
        before=machine.says_what_is_lost,
    ),
)

CHAPTER: Final[Chapter[RecoveryWorld]] = Chapter(
    "recovery",
    "everything that can be lost is lost once, and comes back, or is said to be gone",
    recovery_world,
    _SCENES,
    _SABOTAGES,
)
