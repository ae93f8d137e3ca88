"""The claims of the chapter `main` in their order, and what can be broken."""

from __future__ import annotations

from typing import Final

from spike.pilot.demo.claim import Chapter, Sabotage, Scene
from spike.pilot.demo.main import disaster, identity, outsider, secret
from spike.pilot.demo.main.world import MainWorld, main_world

_SCENES: Final = (
    Scene(
        "First secret",
        (
            secret.parts_are_processes,
            secret.directory_is_private,
            secret.first_secret,
            secret.nothing_is_on_disk,
            secret.second_init_is_refused,
        ),
    ),
    Scene(
        "A policy, and a workload that reads",
        (secret.nothing_without_policy, secret.workload_reads, secret.workload_does_no_more),
    ),
    Scene(
        "Outsiders",
        (
            outsider.no_entry_no_identity,
            outsider.no_certificate,
            outsider.unknown_trust_domain,
            outsider.federated_is_denied,
            outsider.federated_claims_ours,
            outsider.valid_without_policy,
            outsider.keeper_is_denied,
            outsider.expired_is_refused,
            outsider.expired_is_not_kept,
        ),
    ),
    Scene(
        "Identities that change while everything runs",
        (identity.svid_is_swapped, identity.authority_is_replaced),
    ),
    Scene(
        "Everything is killed",
        (
            disaster.everything_is_killed,
            disaster.store_is_locked,
            disaster.wrong_password,
            disaster.foreign_backup,
            disaster.damaged_backup,
            disaster.password_brings_it_back,
            disaster.old_store,
            disaster.old_backup,
            disaster.backup_brings_it_back,
            secret.still_nothing_is_on_disk,
            disaster.nothing_is_left,
        ),
    ),
)

_SABOTAGES: Final = (
    Sabotage(
        "leaked-password",
        "the password stands in a log file",
        secret.leak,
        before=secret.nothing_is_on_disk,
    ),
    Sabotage(
        "early-policy",
        "a policy for every workload is there before any should be",
        outsider.widen_policy,
        before=secret.nothing_without_policy,
    ),
    Sabotage(
        "second-entry",
        "the user has a second entry that nobody takes away",
        outsider.give_entry_twice,
        before=outsider.no_entry_no_identity,
    ),
    Sabotage(
        "trusted-stranger",
        "the stranger's bundle was added",
        outsider.trust_stranger,
        before=outsider.unknown_trust_domain,
    ),
    Sabotage(
        "widened-policy",
        "a policy matches every workload",
        outsider.widen_policy,
        before=outsider.valid_without_policy,
    ),
    Sabotage(
        "long-lived-svid",
        "Authority issues SVIDs for an hour",
        outsider.lengthen_svids,
        before=outsider.expired_is_refused,
    ),
    Sabotage(
        "stopped-renewal",
        "Authority is frozen and renews nothing",
        identity.stop_renewal,
        before=identity.svid_is_swapped,
    ),
    Sabotage(
        "blocked-authority",
        "others can write where Authority's sockets are, so that it does not start again",
        identity.block_authority,
        before=identity.authority_is_replaced,
    ),
    Sabotage(
        "early-restore",
        "somebody restored the store before anybody looked",
        disaster.restore_early,
        before=disaster.wrong_password,
    ),
    Sabotage(
        "lost-secret",
        "a storage writer deleted an acknowledged secret",
        disaster.lose_secret,
        before=disaster.password_brings_it_back,
    ),
    Sabotage(
        "forgotten-anchor",
        "every anchor outside the store was deleted",
        disaster.forget_anchors,
        before=disaster.old_store,
    ),
    Sabotage(
        "swapped-backup",
        "the key backup was replaced by another store's",
        disaster.swap_backup,
        before=disaster.backup_brings_it_back,
    ),
)

CHAPTER: Final[Chapter[MainWorld]] = Chapter(
    "main",
    "a secret, who may read it, who may not, and how it survives the loss of everything",
    main_world,
    _SCENES,
    _SABOTAGES,
)
