"""The claims of the chapter `keeper` in their order, and what can be broken."""

from __future__ import annotations

from typing import Final

from spike.pilot.demo.claim import Chapter, Sabotage, Scene
from spike.pilot.demo.keeper import comeback, deceit, loss, shard, stale, supply
from spike.pilot.demo.keeper.world import KeeperWorld, keeper_world

_SCENES: Final = (
    Scene("Three Keepers", (supply.keepers_hold_shares, supply.two_ways)),
    Scene(
        "Nexus is killed",
        (
            comeback.nexus_is_killed,
            comeback.comes_back_by_itself,
            comeback.every_secret_is_there,
        ),
    ),
    Scene("A Keeper is killed", (supply.keeper_has_its_share_back,)),
    Scene(
        "A Keeper that lies",
        (
            deceit.stranger_gets_nothing,
            deceit.liar_is_named,
            deceit.served_despite_liar,
            deceit.true_keeper_is_back,
        ),
    ),
    Scene(
        "Yesterday's store",
        (stale.keepers_know_of_change, stale.old_copy_is_refused, stale.right_store_serves),
    ),
    Scene(
        "Too many Keepers are lost",
        (
            loss.nexus_and_two_are_killed,
            loss.status_says_what_is_missing,
            loss.password_brings_it_back,
            loss.keepers_get_new_shares,
        ),
    ),
    Scene(
        "Once more, and nobody knows the password",
        (
            shard.shards_are_handed_out,
            shard.one_shard_is_not_enough,
            shard.shards_bring_it_back,
            loss.nothing_is_left,
        ),
    ),
)

_SABOTAGES: Final = (
    Sabotage(
        "frozen-keepers",
        "two Keepers are frozen and answer nobody",
        supply.freeze_two,
        before=supply.two_ways,
    ),
    Sabotage(
        "one-share-left",
        "two Keepers are frozen just before Nexus is killed",
        comeback.freeze_two_at_once,
        before=comeback.nexus_is_killed,
        later=comeback.comes_back_by_itself,
    ),
    Sabotage(
        "lost-order",
        "a storage writer deleted an acknowledged secret",
        comeback.lose_order,
        before=comeback.every_secret_is_there,
    ),
    Sabotage(
        "frozen-nexus",
        "Nexus is frozen and gives nobody a share",
        supply.freeze_nexus,
        before=supply.keeper_has_its_share_back,
    ),
    Sabotage(
        "stolen-identity",
        "the stranger has the identity of the Keeper it replaces",
        deceit.steal_identity,
        before=deceit.stranger_gets_nothing,
    ),
    Sabotage(
        "frozen-neighbour",
        "beside the liar one more Keeper is frozen",
        deceit.freeze_neighbour,
        before=deceit.served_despite_liar,
    ),
    Sabotage(
        "fresh-copy",
        "the copy put in place is no older than the store",
        stale.copy_again,
        before=stale.old_copy_is_refused,
    ),
    Sabotage(
        "early-password",
        "somebody restored the store before anybody looked",
        loss.restore_early,
        before=loss.status_says_what_is_missing,
    ),
    Sabotage(
        "frozen-survivor",
        "the Keeper whose share is left is frozen and takes no new one",
        loss.freeze_survivor,
        before=loss.password_brings_it_back,
        later=loss.keepers_get_new_shares,
    ),
    Sabotage(
        "newer-shards",
        "other recovery shards have been handed out since",
        shard.hand_out_others,
        before=shard.one_shard_is_not_enough,
        later=shard.shards_bring_it_back,
    ),
)

CHAPTER: Final[Chapter[KeeperWorld]] = Chapter(
    "keeper",
    "the root key comes back by itself, and nothing old, foreign or lying is believed",
    keeper_world,
    _SCENES,
    _SABOTAGES,
)
