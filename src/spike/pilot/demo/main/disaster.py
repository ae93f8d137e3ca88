"""Everything is killed, copies are swapped, and the password brings the right one back."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from spike.pilot.demo.claim import claim, require, require_equal
from spike.pilot.demo.ledger import Writer, require_all_secrets
from spike.pilot.demo.main.world import PATH, MainWorld
from spike.pilot.demo.stage import Ran, Stage, descendants, files_below, is_there, wait_until
from spike.pilot.dev.place import DevPlace

_GONE_LIMIT_S = 10.0
# Which check finds the damage depends on what the changed character belongs to.
_DAMAGE = ("damaged", "differs from", "not authentic", "does not open")


@claim("every process is killed in the middle of writing, and none is left")
def everything_is_killed(world: MainWorld) -> None:
    """Write, note what was acknowledged, kill with SIGKILL, look for survivors in /proc."""
    shutil.copyfile(world.key_backup(), world.old_backup)
    writer = Writer(world.stage, "shop/order", world.acknowledged)
    writer.start()
    killed = world.stage.kill_all()
    writer.join()
    wait_until(
        lambda: not any(is_there(number) for number in killed),
        _GONE_LIMIT_S,
        "a killed process is still there",
    )
    shutil.copytree(world.stage.place.store, world.old_store)


@claim("started again, the store is locked: the memory that held its key is gone")
def store_is_locked(world: MainWorld) -> None:
    """Start `spike dev` on the same directory and ask for a secret."""
    world.stage.start()
    require_equal(world.stage.state(), "locked", "the state of the store")
    ran = world.stage.run("spike", "secret", "get", PATH)
    require_equal(ran.code, 3, "the exit code of a read from a locked store")


@claim("a wrong password is refused and named, and changes nothing")
def wrong_password(world: MainWorld) -> None:
    """Ten good words that are not the ones."""
    words = world.stage.password.split("-")
    _require_refusal(world, lambda: world.try_restore(given="-".join(reversed(words))), "password")


@claim("the key backup of another store is refused and named, and changes nothing")
def foreign_backup(world: MainWorld) -> None:
    """Make another store, take its backup and its password."""
    other = Stage(DevPlace(world.directory / "other"), "1h")
    try:
        other.start()
        (backup,) = other.place.backup.glob("*.key-backup")
        shutil.copyfile(backup, world.foreign_backup)
    finally:
        other.stop()
    named = ("--backup", str(world.foreign_backup))
    _require_refusal(world, lambda: world.try_restore(*named, given=other.password), "store")


@claim("a damaged key backup is refused and named, and changes nothing")
def damaged_backup(world: MainWorld) -> None:
    """Change one character in the middle; cut off the end."""
    content = world.key_backup().read_bytes()
    middle = len(content) // 2
    changed = b"A" if content[middle : middle + 1] != b"A" else b"B"
    broken = world.directory / "damaged-backup"
    named = ("--backup", str(broken))
    for damaged in (content[:middle] + changed + content[middle + 1 :], content[:-20]):
        broken.write_bytes(damaged)
        _require_refusal(
            world, lambda: world.try_restore(*named, given=world.stage.password), *_DAMAGE
        )


@claim("the password brings the key back, and every acknowledged secret is there")
def password_brings_it_back(world: MainWorld) -> None:
    """Restore, then compare each value with what was written."""
    world.restore()
    require_equal(world.stage.state(), "open", "the state of the store")
    require_all_secrets(world.stage, world.acknowledged)


@claim("yesterday's store in the place of today's is refused and named, and changes nothing")
def old_store(world: MainWorld) -> None:
    """Kill everything, put the copy of before the restore there, try, put the right one back."""
    world.stage.kill_all()
    store, aside = world.stage.place.store, world.directory / "right-store"
    store.rename(aside)
    shutil.copytree(world.old_store, store)
    world.stage.start()
    try:
        _require_refusal(world, lambda: world.try_restore(given=world.stage.password), "old copy")
    finally:
        world.stage.kill_all()
        shutil.rmtree(store)
        aside.rename(store)
    world.stage.start()


@claim("yesterday's key backup is refused and named, and changes nothing")
def old_backup(world: MainWorld) -> None:
    """The backup of before the restore."""
    named = ("--backup", str(world.old_backup))
    _require_refusal(world, lambda: world.try_restore(*named, given=world.stage.password), "older")


@claim("the key backup from the backup place brings the key back too, with every secret")
def backup_brings_it_back(world: MainWorld) -> None:
    """Restore from the file."""
    world.restore(world.key_backup())
    require_all_secrets(world.stage, world.acknowledged)


@claim("stopped in order, nothing runs any more")
def nothing_is_left(world: MainWorld) -> None:
    """Stop as Ctrl-C does and look for survivors in /proc."""
    numbers = (*descendants(world.stage.number),)
    require(len(numbers) > 1, "the parts are no children of spike dev")
    world.stage.stop()
    left = [number for number in numbers if is_there(number)]
    require(not left, f"processes {left} still run")


def _require_refusal(world: MainWorld, attempt: Callable[[], Ran], *names: str) -> None:
    """See an attempt refused by a message that holds one of `names`; nothing changed, still locked."""
    before = _fingerprints(world)
    ran = attempt()
    require(ran.code == 1, f"it ended with code {ran.code}: {ran.errors.strip() or ran.output}")
    require(any(name in ran.errors for name in names), f"the reason given is: {ran.errors.strip()}")
    require_equal(world.stage.state(), "locked", "the state of the store afterwards")
    changed = {path for path, print_ in _fingerprints(world).items() if before.get(path) != print_}
    require(not changed, f"it changed {', '.join(sorted(changed))}")


def _fingerprints(world: MainWorld) -> dict[str, str]:
    """Return the keyring's rows, and the digest of each backup and anchor."""
    prints = {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for directory in (world.stage.place.backup, world.stage.place.pilot)
        for path in files_below(directory)
    }
    with closing(_open_store(world.stage.place.store)) as store:
        for name, blob in store.execute("SELECT kind || '/' || key, blob FROM record"):
            prints[name] = hashlib.sha256(blob).hexdigest()
    return prints


def _open_store(directory: Path) -> sqlite3.Connection:
    return sqlite3.connect(directory / "store.sqlite", timeout=10.0)


def lose_secret(world: MainWorld) -> None:
    """Sabotage: a storage writer deletes a secret's rows behind Nexus's back."""
    with closing(_open_store(world.stage.place.store)) as store, store:
        store.execute("DELETE FROM record WHERE key = 'shop/order/7'")


def forget_anchors(world: MainWorld) -> None:
    """Sabotage: every anchor outside the store is deleted, and the key backup, which has one in it, is an old one."""
    for directory in (world.stage.place.backup, world.stage.place.pilot):
        for path in directory.glob("*anchor"):
            path.unlink()
    shutil.copyfile(world.old_backup, world.key_backup())


def swap_backup(world: MainWorld) -> None:
    """Sabotage: the key backup is replaced by another store's."""
    shutil.copyfile(world.foreign_backup, world.key_backup())


def restore_early(world: MainWorld) -> None:
    """Sabotage: somebody has restored the store before anybody looked."""
    world.restore()
