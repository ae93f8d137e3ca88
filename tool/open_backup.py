"""Open a SPIKE key backup, and one secret of a store, with `cryptography` alone.

    python open_backup.py [--pending] BACKUP [SLOT [STORE PATH]]

Asks for the password of SLOT, or of the first one. STORE is a store.sqlite that no Nexus has open. --pending opens a
backup of a rotation that had not taken effect yet; be sure that it has. Shows no key.
"""

from __future__ import annotations

import base64
import getpass
import hmac
import json
import re
import sqlite3
import sys
import unicodedata
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

LABEL = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"


def hkdf(key: bytes, info: bytes, size: int = 32) -> bytes:
    return HKDF(SHA512(), size, None, info).derive(key)


def mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha512")[:32]


def require(truth: bool, otherwise: str) -> None:
    if not truth:
        sys.exit(otherwise)


def first(found: list[Any], otherwise: str) -> Any:
    require(bool(found), otherwise)
    return found[0]


def document(raw: bytes, thing: str) -> tuple[dict[str, Any], bytes, bytes]:
    """Return a document's body, what its MAC covers, and the MAC."""
    head, body, tail = raw.splitlines()
    require(head.decode()[:-1] == f"spike-{thing} " and head[-1:] in b"12", f"this is no {thing}")
    return json.loads(body), raw[: -len(tail) - 1], bytes.fromhex(tail[4:].decode())


def unpad(text: str) -> bytes:
    return base64.b64decode(text)


def record(key: bytes, store: bytes, names: tuple[str, str, str, str], blob: bytes) -> bytes:
    """Open a record; `names` are kind, key, version and field."""
    context = blob[:6] + store
    for name in names:
        context += len(name.encode()).to_bytes(2, "big") + name.encode()
    salt, commitment, chunks = blob[6:30], blob[30:62], blob[62:]
    derived = HKDFExpand(SHA512(), 76, LABEL + salt + context).derive(key)
    require(hmac.compare_digest(derived[44:], commitment), "a record is not of this key and place")
    nonce, size, plain = int.from_bytes(derived[32:44], "big"), 16384 + 16, b""
    for i in range((len(chunks) - 16) // size + 1):
        sealed = chunks[i * size : (i + 1) * size]
        plain += AESGCM(derived[:32]).decrypt((nonce ^ i).to_bytes(12, "big"), sealed, None)
    return plain


def open_slot(keyring: dict[str, Any], slot: dict[str, Any], number: int, password: str) -> bytes:
    """Return the root key of generation `number` that a slot's password gives."""
    bound = bytes.fromhex(keyring["store_id"]) + bytes.fromhex(slot["id"])
    cost = re.fullmatch(r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)", slot["argon2"])
    assert cost is not None
    memory, passes, lanes = map(int, cost.groups())
    salt = unpad(slot["salt"])
    argon = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
    secret = argon.derive(unicodedata.normalize("NFKC", password).encode())
    mlkem = MLKEM768PrivateKey.from_seed_bytes(hkdf(secret, b"spike/slot/v1/mlkem768" + bound, 64))
    x25519 = X25519PrivateKey.from_private_bytes(hkdf(secret, b"spike/slot/v1/x25519" + bound))
    auth = hkdf(secret, b"spike/slot/v1/auth" + bound)
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    require(public == unpad(slot["public"]), "the password does not open this slot")
    copies = [each for each in slot["roots"] if each["generation"] == number]
    copy = first(copies, "this slot holds no copy of the active root key")
    header = {"format": 1} | {name: keyring[name] for name in ("store_id", "lineage")}
    header |= {"slot_id": slot["id"]}
    header |= {name: slot[name] for name in ("name", "kind", "argon2", "salt", "public")}
    header |= {name: copy[name] for name in ("generation", "check", "sealed_at", "pending")}
    info = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    sealed = unpad(copy["sealed"])
    covered = b"spike-sealed-root 1\n" + len(info).to_bytes(4, "big") + info + sealed
    require(mac(auth, covered).hex() == copy["tag"], "the sealed root key is not authentic")
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    return suite.decrypt(sealed, MLKEM768X25519PrivateKey(mlkem, x25519), info)


def main() -> None:
    pending, (path, *rest) = "--pending" in sys.argv, [a for a in sys.argv[1:] if a[:2] != "--"]
    backup, backup_covered, backup_mac = document(Path(path).read_bytes(), "backup")
    require(pending or not backup.get("pending"), "this backup is pending: see --pending")
    keyring, covered, tag = document(unpad(backup["keyring"]), "keyring")
    store = bytes.fromhex(keyring["store_id"])
    number = next(r["number"] for r in keyring["roots"] if r["history"][-1]["state"] == "active")
    slots = [s for s in keyring["slots"] if s["kind"] == "password"]
    named = [s for s in slots if rest[:1] in ([], [s["name"]])]
    slot = first(named, "the slots are: " + ", ".join(s["name"] for s in slots))
    root = open_slot(keyring, slot, number, getpass.getpass("Password: "))
    bound = store + number.to_bytes(4, "big")
    macs = ((b"keyring-mac", covered, tag), (b"backup-mac", backup_covered, backup_mac))
    for purpose, text, found in macs:
        key = hkdf(root, b"spike/root/v1/" + purpose + bound)
        require(mac(key, text) == found, f"the {purpose.decode()} does not fit")
    print(f"store {keyring['store_id']}, slot {slot['name']}, root key of generation {number}")
    keys = {}
    for wrapped in keyring["keys"]:
        name = f"{wrapped['purpose']}/{wrapped['slot']}/{wrapped['number']}"
        wrapping = hkdf(root, b"spike/root/v1/wrap" + store + wrapped["root"].to_bytes(4, "big"))
        if wrapped["wrapped"]:  # else it was destroyed
            place = ("wrapped-key", name, "", "")
            keys[name] = record(wrapping, store, place, unpad(wrapped["wrapped"]))
    if len(rest) == 3:
        show(Path(rest[1]), rest[2], store, keys)


def show(database: Path, path: str, store: bytes, keys: dict[str, bytes]) -> None:
    """Print the current version of a secret."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)

    def read(kind: str, version: str) -> Any:
        query = "SELECT blob FROM record WHERE kind = ? AND key = ? AND version = ?"
        (blob,) = connection.execute(query, (kind, path, version)).fetchone()
        key = keys[f"record//{int.from_bytes(blob[2:6], 'big')}"]
        return json.loads(record(key, store, (kind, path, version, "value"), blob))

    live = [version for version in read("secret-meta", "")[4] if version[3] is None]
    print(json.dumps(read("secret", live[-1][1])[1]))
    connection.close()


if __name__ == "__main__":
    main()
