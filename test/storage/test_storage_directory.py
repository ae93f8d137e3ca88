"""The SQLite store's directory: made for its owner alone, used by one process alone, and not just
anywhere."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import stat
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from spike.error import SettingError
from spike.storage.sqlite import open_store
from storage.conformance.engine import named, new

CHILD = """
import asyncio, sys
from pathlib import Path
from spike.storage.sqlite import open_store
async def main():
    store = await open_store(Path(sys.argv[1]))
    print("open", flush=True)
    sys.stdin.read()
    await store.close()
asyncio.run(main())
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


async def made(directory: Path) -> Path:
    """Make a store with one record, and close it."""
    store = await open_store(directory)
    await store.put(new("a"), fence=None)
    await store.close()
    return directory


async def refused(directory: Path, reason: str) -> SettingError:
    with pytest.raises(SettingError, match=reason) as caught:
        await open_store(directory)
    assert caught.value.next_step
    return caught.value


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
async def test_everything_is_made_for_the_owner_alone_whatever_the_umask(
    tmp_path: Path, umask: int
) -> None:
    directory = tmp_path / "new" / "store"
    before = os.umask(umask)
    try:
        store = await open_store(directory)
        await store.put(new("a"), fence=None)
    finally:
        os.umask(before)
    assert mode(directory.parent) == mode(directory) == 0o700
    assert {it.name: mode(it) for it in directory.iterdir()} == {
        "store.sqlite": 0o600,
        "store.sqlite-wal": 0o600,
        "store.sqlite-shm": 0o600,
    }
    await store.close()


async def test_a_second_store_on_the_directory_is_refused_until_the_first_is_closed(
    tmp_path: Path,
) -> None:
    first = await open_store(tmp_path / "store")
    await refused(tmp_path / "store", "another process uses the store")
    await first.put(new("a"), fence=None)  # the refusal did the first no harm
    await first.close()
    second = await open_store(tmp_path / "store")
    assert await second.get(named("a")) is not None
    await second.close()


async def test_a_twin_process_is_refused_until_the_first_ends_however_it_ends(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "store"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, directory, stdin=PIPE, stdout=PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"open\n"
    await refused(directory, "another process uses the store")
    child.kill()
    await child.wait()
    store = await open_store(directory)
    await store.close()


async def test_a_program_started_meanwhile_does_not_keep_the_lock(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "store")
    sleeper = await asyncio.create_subprocess_exec("sleep", "60", close_fds=False)
    await store.close()
    again = await open_store(tmp_path / "store")
    await again.close()
    sleeper.kill()
    await sleeper.wait()


@pytest.mark.parametrize("rights", [0o755, 0o750, 0o701, 0o500, 0o1700])
async def test_a_directory_with_other_rights_is_refused_naming_them(
    tmp_path: Path, rights: int
) -> None:
    directory = await made(tmp_path / "store")
    directory.chmod(rights)
    error = await refused(directory, f"{rights:04o}")
    assert error.next_step == f"chmod 700 {directory}"
    directory.chmod(0o700)
    await made_again(directory)


async def made_again(directory: Path) -> None:
    store = await open_store(directory)
    assert await store.get(named("a")) is not None
    await store.close()


@pytest.mark.parametrize("name", ["store.sqlite", "store.sqlite-wal", "store.sqlite-shm"])
async def test_a_file_with_other_rights_is_refused_naming_them(tmp_path: Path, name: str) -> None:
    directory = await made(tmp_path / "store")
    file = directory / name
    file.touch()
    file.chmod(0o640)
    error = await refused(directory, "0640")
    assert error.next_step == f"chmod 600 {file}"


@pytest.mark.parametrize("name", ["store.sqlite", "store.sqlite-wal", "store.sqlite-shm"])
async def test_a_symbolic_link_in_the_place_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    directory = await made(tmp_path / "store")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"untouched")
    elsewhere.chmod(0o600)
    (directory / name).unlink(missing_ok=True)
    (directory / name).symlink_to(elsewhere)
    await refused(directory, "not an ordinary file")
    assert elsewhere.read_bytes() == b"untouched"


async def test_a_dangling_link_in_the_place_of_the_database_makes_no_file(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    (directory / "store.sqlite").symlink_to(tmp_path / "elsewhere")
    await refused(directory, "not an ordinary file")
    assert not (tmp_path / "elsewhere").exists()


async def test_a_directory_in_the_place_of_the_database_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    (directory / "store.sqlite").mkdir(parents=True)
    directory.chmod(0o700)
    await refused(directory, "not an ordinary file")


async def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("mine")
    await refused(tmp_path / "store", "cannot be used")
    await refused(tmp_path / "store" / "below", "cannot be used")
    assert (tmp_path / "store").read_text() == "mine"


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/tmp", "/tmp/", "/tmp/../tmp", "/etc", "/etc/spike", "/usr", "/usr/lib/spike"),
        *("/home", "/home/somebody", "/var", "/root", "/var/lib", "/var/tmp", "/dev/shm", "/opt"),
        *("/proc/self", "/bin", "/bin/spike", "/run", "/run/user/1000", "/sys/a"),
    ],
)
async def test_a_directory_of_the_system_is_refused(path: str) -> None:
    await refused(Path(path), "belongs to the system")


async def test_a_newline_in_its_name_does_not_hide_a_directory_of_the_system() -> None:
    await refused(Path("/etc/a\nb"), "belongs to the system")


async def test_a_link_to_a_directory_of_the_system_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/tmp")
    await refused(tmp_path / "link", "belongs to the system")


async def test_a_link_to_a_directory_of_ones_own_is_followed(tmp_path: Path) -> None:
    await made(tmp_path / "store")
    (tmp_path / "link").symlink_to(tmp_path / "store")
    await made_again(tmp_path / "link")


@pytest.mark.ordinary
async def test_a_place_this_user_may_not_write_is_refused() -> None:
    await refused(Path("/var/lib/spike-of-nobody/store"), "cannot be used")


@pytest.mark.root
async def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    directory = await made(tmp_path / "store")
    os.chown(directory, 65534, 65534)
    await refused(directory, "belongs to another user")
    os.chown(directory, 0, 0)
    os.chown(directory / "store.sqlite", 65534, 65534)
    await refused(directory, "belongs to another user")


async def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    other = sqlite3.connect(directory / "store.sqlite")
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    (directory / "store.sqlite").chmod(0o600)
    before = (directory / "store.sqlite").read_bytes()
    await refused(directory, "not a store of SPIKE")
    assert (directory / "store.sqlite").read_bytes() == before


async def test_a_failed_opening_lets_go_of_the_lock(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    (directory / "store.sqlite").mkdir(mode=0o600)
    await refused(directory, "not an ordinary file")
    descriptor = os.open(directory, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
