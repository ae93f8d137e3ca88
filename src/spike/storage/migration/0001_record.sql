-- Format 1. "SPKE" in the file's header tells a store of SPIKE from any other SQLite file.
PRAGMA application_id = 0x53504b45;

-- key and version are compared as UTF-8 bytes (BINARY, the default).
-- blob stands last, so that reading the other columns touches no overflow page.
CREATE TABLE record (
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  version TEXT NOT NULL,
  generation INTEGER NOT NULL CHECK (generation BETWEEN 0 AND 4294967295),
  revision INTEGER NOT NULL CHECK (revision > 0),
  blob BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX record_by_name ON record (kind, key, version);
CREATE INDEX record_by_generation ON record (kind, generation, key, version);

-- revision: the last one given out. fence: the keyring epoch last set.
CREATE TABLE state (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO state (name, value) VALUES ('fence', 0), ('revision', 0);
