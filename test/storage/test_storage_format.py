"""The file format of the SQLite engine: settings, old fixtures, newer files, damage, planted
tables."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from size import record, seed, size
from spike.error import NewerFormatError, StoreCorruptError, StoreError
from spike.storage.protocol import KEYRING, POLICY, SECRET, Record, RecordId, Revision
from spike.storage.sqlite import open_store
from spike.storage.sqlite_schema import APPLICATION_ID, migrate, read_migrations
from storage.conformance.engine import collect, named, new
from storage.sqlite_store import open_with_connection

FIXTURE = Path(__file__).parent.parent / "fixture" / "store-sqlite-1" / "store.sqlite"


def database(directory: Path) -> Path:
    return directory / "store.sqlite"


async def filled(directory: Path, count: int = 200, blob: bytes = b"sealed" * 40) -> Path:
    """Make and close a store of `count` records."""
    store = await open_store(directory)
    await store.apply([new(f"{n:04}", blob + b"%d" % n) for n in range(count)], fence=None)
    await store.close()
    return database(directory)


async def test_the_settings_that_carry_promises_are_in_force(tmp_path: Path) -> None:
    store, connection = open_with_connection(tmp_path / "store")

    def setting(name: str) -> object:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert setting("journal_mode") == "wal"
    assert setting("synchronous") == 2
    assert setting("secure_delete") == 1
    assert setting("auto_vacuum") == 2
    assert setting("temp_store") == 2
    assert setting("trusted_schema") == 0
    assert setting("application_id") == APPLICATION_ID
    assert setting("user_version") == len(read_migrations()) == (await store.health()).format
    strict = connection.execute("SELECT name FROM pragma_table_list WHERE strict = 1").fetchall()
    assert {name for (name,) in strict} == {"record", "state"}
    await store.close()


def test_migrations_are_numbered_without_a_gap() -> None:
    assert len(read_migrations()) >= 1
    assert all(read_migrations())


async def test_a_store_of_format_1_opens_for_good(tmp_path: Path) -> None:
    """The fixture was written by the first version that had this format; it is never written
    again."""
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    shutil.copyfile(FIXTURE, database(directory))
    database(directory).chmod(0o600)
    store = await open_store(directory)
    await store.check()
    assert await collect(lambda after: store.scan(SECRET, "", after, 2)) == [
        Record(RecordId(SECRET, "tenant/a", "00ff"), b"first version", 1, Revision(1)),
        Record(RecordId(SECRET, "tenant/a", "01ff"), b"second version", 2, Revision(6)),
        Record(
            RecordId(SECRET, "tenant/é/\U00010000", "02ff"), bytes(range(256)) * 40, 1, Revision(3)
        ),
    ]
    assert await store.get(RecordId(KEYRING, "")) == Record(
        RecordId(KEYRING, ""), b"the keyring", 0, Revision(4)
    )
    assert await store.census() == {(SECRET, 1): 2, (SECRET, 2): 1, (KEYRING, 0): 1}
    assert (await store.health()).fence == 7
    assert await store.put(new("next", kind=POLICY), fence=7) == 9
    await store.close()


async def test_a_newer_store_is_refused_naming_both_formats_and_left_alone(tmp_path: Path) -> None:
    file = await filled(tmp_path / "store")
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(NewerFormatError) as caught:
        await open_store(tmp_path / "store")
    assert (caught.value.found, caught.value.known) == (7, len(read_migrations()))
    assert "7" in caught.value.next_step
    assert file.read_bytes() == before


async def test_an_empty_file_is_a_store_whose_making_was_cut_off(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    database(directory).touch(mode=0o600)
    store = await open_store(directory)
    await store.put(new("a"), fence=None)
    await store.close()


def test_a_migration_that_fails_changes_nothing() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, read_migrations())
    before = connection.execute("SELECT * FROM sqlite_schema").fetchall()
    broken = (*read_migrations(), "CREATE TABLE more (x); CREATE TABLE record (x);")
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, broken)
    assert connection.execute("SELECT * FROM sqlite_schema").fetchall() == before
    assert connection.execute("PRAGMA user_version").fetchone() == (len(read_migrations()),)
    migrate(connection, (*read_migrations(), "CREATE TABLE more (x);"))
    assert connection.execute("PRAGMA user_version").fetchone() == (len(read_migrations()) + 1,)
    connection.close()


@pytest.mark.parametrize(
    "planted",
    [
        "CREATE TRIGGER keep AFTER DELETE ON record BEGIN INSERT INTO state VALUES ('x', 1); END",
        "CREATE TABLE extra (x)",
        "CREATE VIEW seen AS SELECT * FROM record",
        "DROP INDEX record_by_generation",
        "DELETE FROM state WHERE name = 'revision'",
    ],
)
async def test_a_store_with_other_tables_than_its_formats_is_refused(
    tmp_path: Path, planted: str
) -> None:
    file = await filled(tmp_path / "store")
    with sqlite3.connect(file) as connection:
        connection.execute(planted)
    connection.close()
    with pytest.raises(StoreCorruptError) as caught:
        await open_store(tmp_path / "store")
    assert caught.value.next_step


async def test_a_file_that_is_no_database_is_corrupt(tmp_path: Path) -> None:
    file = await filled(tmp_path / "store")
    content = bytearray(file.read_bytes())
    content[:4096] = random.Random(1).randbytes(4096)
    file.write_bytes(content)
    with pytest.raises(StoreCorruptError):
        await open_store(tmp_path / "store")
    file.write_bytes(b"not a database at all")
    with pytest.raises(StoreCorruptError):
        await open_store(tmp_path / "store")


async def test_a_row_of_impossible_content_is_corrupt_and_not_an_answer(tmp_path: Path) -> None:
    file = await filled(tmp_path / "store", 3)
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = replace(sql, ' STRICT', '')")
    connection.close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE record SET blob = 'text' WHERE key = '0000'")
        connection.execute("UPDATE record SET key = key || char(0) WHERE key = '0001'")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = sql || ' STRICT' WHERE name = 'record'")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, ' WITHOUT', ' STRICT, WITHOUT')"
            " WHERE name = 'state'"
        )
        connection.execute("UPDATE sqlite_schema SET sql = replace(sql, ', STRICT,', ' STRICT,')")
    connection.close()
    store = await open_store(tmp_path / "store")
    with pytest.raises(StoreCorruptError):
        await store.get(named("0000"))
    with pytest.raises(StoreCorruptError):
        await store.scan(SECRET, "0000", None, 1)
    with pytest.raises(StoreCorruptError):
        await store.scan_key(SECRET, "0001", None, 1)
    assert await store.get(named("0002")) is not None
    await store.close()


async def read_all(directory: Path) -> dict[str, bytes | None]:
    store = await open_store(directory)
    try:
        found: dict[str, bytes | None] = {}
        for n in range(200):
            one = await store.get(named(f"{n:04}"))
            found[f"{n:04}"] = None if one is None else one.blob
        await collect(lambda after: store.scan(SECRET, "", after, 50))
        await collect(lambda after: store.scan_generation(SECRET, 1, after, 50))
        await store.census()
        await store.put(new("after"), fence=None)
        await store.check()
    finally:
        await store.close()
    return found


async def test_a_page_overwritten_at_random_is_named_as_damage_and_breaks_nothing_else(
    tmp_path: Path,
) -> None:
    number, rounds = seed(), size(test=30, proof=1_000)
    print(f"SPIKE_SEED={number}")
    chance = random.Random(number)
    file = await filled(tmp_path / "store")
    sound = file.read_bytes()
    pages = len(sound) // 4096
    assert pages > 10
    for at in range(rounds):
        content = bytearray(sound)
        page = chance.randrange(pages)
        content[page * 4096 : (page + 1) * 4096] = chance.randbytes(4096)
        file.write_bytes(content)
        # Every one of these pages is in use by a table, an index or SQLite itself, so opening and
        # reading everything must meet it, and must say so in the one way.
        with pytest.raises(StoreError) as caught:
            await read_all(tmp_path / "store")
        assert isinstance(caught.value, StoreCorruptError), (at, page, caught.value)
    file.write_bytes(sound)
    assert None not in (await read_all(tmp_path / "store")).values()
    record("storage: SQLite page overwritten", rounds, "each time named as damage", seed=number)


async def test_a_truncated_file_is_named_as_damage(tmp_path: Path) -> None:
    file = await filled(tmp_path / "store")
    sound = file.read_bytes()
    for length in (50, 4096, 3 * 4096, len(sound) // 2, len(sound) - 4096):
        file.write_bytes(sound[:length])
        with pytest.raises(StoreCorruptError):
            await read_all(tmp_path / "store")
