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
        before=secret.nothing_is_on_disk.name,
        exposed_by=secret.nothing_is_on_disk.name,
        act=secret.leak,
    ),
    Sabotage(
        "early-policy",
        "a policy for every workload is there before any should be",
        before=secret.nothing_without_policy.name,
        exposed_by=secret.nothing_without_policy.name,
        act=outsider.widen_policy,
    ),
    Sabotage(
        "second-entry",
        "the user has a second entry that nobody takes away",
        before=outsider.no_entry_no_identity.name,
        exposed_by=outsider.no_entry_no_identity.name,
        act=outsider.give_entry_twice,
    ),
    Sabotage(
        "trusted-stranger",
        "the stranger's bundle was added",
        before=outsider.unknown_trust_domain.name,
        exposed_by=outsider.unknown_trust_domain.name,
        act=outsider.trust_stranger,
    ),
    Sabotage(
        "widened-policy",
        "a policy matches every workload",
        before=outsider.valid_without_policy.name,
        exposed_by=outsider.valid_without_policy.name,
        act=outsider.widen_policy,
    ),
    Sabotage(
        "long-lived-svid",
        "Authority issues SVIDs for an hour",
        before=outsider.expired_is_refused.name,
        exposed_by=outsider.expired_is_refused.name,
        act=outsider.lengthen_svids,
    ),
    Sabotage(
        "stopped-renewal",
        "Authority is frozen and renews nothing",
        before=identity.svid_is_swapped.name,
        exposed_by=identity.svid_is_swapped.name,
        act=identity.stop_renewal,
    ),
    Sabotage(
        "blocked-authority",
        "others can write where Authority's sockets are, so that it does not start again",
        before=identity.authority_is_replaced.name,
        exposed_by=identity.authority_is_replaced.name,
        act=identity.block_authority,
    ),
    Sabotage(
        "early-restore",
        "somebody restored the store before anybody looked",
        before=disaster.wrong_password.name,
        exposed_by=disaster.wrong_password.name,
        act=disaster.restore_early,
    ),
    Sabotage(
        "lost-secret",
        "a storage writer deleted an acknowledged secret",
        before=disaster.password_brings_it_back.name,
        exposed_by=disaster.password_brings_it_back.name,
        act=disaster.lose_secret,
    ),
    Sabotage(
        "forgotten-anchor",
        "every anchor outside the store was deleted",
        before=disaster.old_store.name,
        exposed_by=disaster.old_store.name,
        act=disaster.forget_anchors,
    ),
    Sabotage(
        "swapped-backup",
        "the key backup was replaced by another store's",
        before=disaster.backup_brings_it_back.name,
        exposed_by=disaster.backup_brings_it_back.name,
        act=disaster.swap_backup,
    ),
)

CHAPTER: Final[Chapter[MainWorld]] = Chapter(
    "main",
    "a secret, who may read it, who may not, and how it survives the loss of everything",
    main_world,
    _SCENES,
    _SABOTAGES,
)
