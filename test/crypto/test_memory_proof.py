"""What stays of a key in a process that works with it, looked for from outside.

The process sends its keys through a pipe, straight from the locked pages (writev(2) copies nothing
inside the process), and waits; then its memory is searched. Needs CAP_SYS_PTRACE.
"""

from __future__ import annotations

import hmac
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from memory_scan import Hit, find_in_process, patterns_of
from size import record, size

pytestmark = pytest.mark.root

STORE = bytes(range(16))
ROUNDS = size(test=1000, proof=100_000)

PRELUDE = """
import os, sys
from spike.crypto import cobblestone, known_answer, mac, purpose, record, slot
from spike.error import OpenError
from spike.memory import KeyMemory, page, process, wipe_all
STORE = bytes(range(16))
CONTEXT = record.RecordContext(STORE, "secret", "tenant/acme", "0a" * 16, "value")
WRAPPED = record.RecordContext(STORE, record.WRAPPED_KEY, "record", "", "1")
process.harden()
def say(*keys):
    for key in keys:
        with key.view() as view:
            os.writev(1, [view])
    sys.stdin.read(1)
"""

WORK = """
root, data = KeyMemory.generate(), KeyMemory.generate()
known_answer.run()
for number in range({rounds}):
    blob = record.seal(data, 1, CONTEXT, b"x" * 1024)
    assert record.open_untrusted(data, CONTEXT, blob) == b"x" * 1024
    try:
        record.open_untrusted(data, CONTEXT, blob[:-1] + bytes((blob[-1] ^ 1,)))
    except OpenError:
        pass
    else:
        raise AssertionError
    if number % 10 == 0:
        purpose.check_value(root, STORE, 1)
        purpose.data_check_value(data, "record", STORE, 1)
        with purpose.purpose_key(root, purpose.Purpose.KEYRING_MAC, STORE, 1) as key:
            assert mac.mac_matches(key, b"document", mac.mac(key, b"document"))
        with purpose.purpose_key(root, purpose.Purpose.WRAP, STORE, 1) as key:
            with data.view() as view:
                blob = record.seal(key, 1, WRAPPED, view)
            with KeyMemory.allocate(32) as again:
                record.open_into(key, WRAPPED, blob, again)
                assert again.same_as(data)
                try:
                    record.open_into(key, WRAPPED, blob[:-1] + bytes((blob[-1] ^ 1,)), again)
                except OpenError:
                    pass
public = slot.OneTimeKey.generate().public
with root.view() as view:
    slot.seal_to(public, b"header", view)
"""


@contextmanager
def process(code: str, keys: int) -> Iterator[tuple[int, list[bytes]]]:
    """Run `code` until it has told so many keys; give its pid and the keys; then let it end."""
    with subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        told = child.stdout.read(32 * keys)
        assert len(told) == 32 * keys
        try:
            yield child.pid, [told[start : start + 32] for start in range(0, len(told), 32)]
        finally:
            assert child.stdin is not None
            child.stdin.close()
            assert child.wait(timeout=30) == 0


def search(pid: int, secrets: Mapping[str, bytes]) -> dict[str, list[Hit]]:
    """Return what was found, by the name of the secret; nothing for those that were not."""
    found = {name: find_in_process(pid, patterns_of(secret)) for name, secret in secrets.items()}
    return {name: hits for name, hits in found.items() if hits}


def derived_from(root: bytes, data: bytes) -> dict[str, bytes]:
    """Return every intermediate secret of WORK, computed with the standard library."""
    secrets = {"root": root, "data": data}
    tail = STORE + struct.pack(">I", 1)
    infos = {"root": [b"spike/root/v1/" + name for name in (b"wrap", b"check", b"keyring-mac")]}
    infos["data"] = [b"spike/key/v1/check/record"]
    for name, key in (("root", root), ("data", data)):
        extracted = hmac.digest(bytes(64), key, "sha512")
        secrets[f"{name}, extracted"] = extracted
        for info in infos[name]:
            block = hmac.digest(extracted, info + tail + b"\x01", "sha512")
            secrets[f"{name}, {info.decode()}"] = block[:32]
    return secrets


@pytest.mark.parametrize("mechanism", ["memfd_secret", "mlock"])
def test_a_process_that_worked_with_keys_has_no_copy_of_them(mechanism: str) -> None:
    code = WORK.format(rounds=ROUNDS)
    if mechanism == "mlock":
        code = "page._MEMFD_SECRET = 100_000\n" + code
    with process(code + "say(root, data)", 2) as (pid, (root, data)):
        assert search(pid, derived_from(root, data)) == {}
    record(f"memory: no copy of a key, {mechanism}", ROUNDS, "none found")


def test_a_process_that_wiped_its_keys_has_none_at_all_even_in_its_locked_pages() -> None:
    """With pages that can be read from outside, so that an empty search says something."""
    code = "page._MEMFD_SECRET = 100_000\nroot = KeyMemory.generate()\nheld = root._place.page\n"
    keep = "def say(*keys):\n    with root.view() as view: os.writev(1, [view])\n    {}sys.stdin.read(1)\n"
    for action, expected in (("", True), ("wipe_all(); ", False), ("root.wipe(); ", False)):
        with process(code + keep.format(action) + "say()", 1) as (pid, (root,)):
            hits = find_in_process(pid, {"raw": root}, locked=True)
            assert bool(hits) is expected, action


SHARES = """
from spike.lifecycle import rebuild, share, shard_text
from spike.lifecycle.keyring import ShareMember, ShareSet
IDS = dict(store_id=STORE.hex(), lineage="1b" * 16)
root = KeyMemory.generate()
check = purpose.check_value(root, STORE, 1).hex()
for number in range({rounds}):
    held = share.HeldSet.split(
        root, **IDS, generation=1, set_id="2c" * 16, threshold=3, indexes=range(1, 6)
    )
    members = tuple(
        ShareMember(index=i, identity="", url="", digest=held.digest(i)) for i in held.indexes
    )
    part = ShareSet(id="2c" * 16, generation=1, threshold=3, staged=False, members=members)
    wrong = share.Share(held.share(2).label, KeyMemory.generate(), held.share(2).tag)
    given = [held.share(1), wrong, *(held.share(i) for i in (3, 4, 5))]
    found = rebuild.rebuild(part, *IDS.values(), check, given)
    assert found.root.same_as(root) and found.bad[0].index == 2
    held.proof(1, bytes(32))
    for text in (
        shard_text.encode_shard_text("2c" * 16, 3, 1, held.share(1).value),
        shard_text.encode_three_part(1, held.share(1).value),
    ):
        again = shard_text.decode_shard_text_untrusted(text)
        assert again.value.same_as(held.share(1).value)
        again.value.wipe()
        text[:] = bytes(len(text))
    found.root.wipe()
    found.held.wipe()
say(root, *(held.share(i).value for i in held.indexes))
"""


@pytest.mark.parametrize("rounds", [1, size(test=100, proof=10_000)])
def test_a_root_key_split_and_rebuilt_leaves_no_copy_of_itself_or_of_a_share(rounds: int) -> None:
    """Also when nothing follows that could write over what was left; and with shares written as text, and read."""
    with process(SHARES.format(rounds=rounds), 6) as (pid, (root, *shares)):
        secrets = {"root": root} | {f"share {i}": value for i, value in enumerate(shares, 1)}
        assert search(pid, secrets) == {}
    record(
        f"memory: no copy of a root key or share, split and rebuilt {rounds:,} times",
        rounds,
        "none found",
    )


CONTROLS = {
    "raw": "copy = bytes(view)",
    "second half": "copy = bytearray(b'.' * 16) + view[16:]; copy[0] = 1",
    "reversed": "copy = bytes(view[::-1])",
    "hex": "copy = view.hex()",
    "upper-case hex": "copy = view.hex().upper()",
    "decimal": "copy = str(int.from_bytes(view, 'big'))",
    "big-endian int object": "copy = int.from_bytes(view, 'big')",
    "little-endian int object": "copy = int.from_bytes(view, 'little')",
    "base64 at 0": "import base64; copy = base64.b64encode(view)",
    "base64 at 1": "import base64; copy = base64.b64encode(b'1' + bytes(view) + b'tail')",
    "base64 at 2": "import base64; copy = base64.b64encode(b'12' + bytes(view) + b'tail')",
    "first half, inner pad": "copy = bytes(byte ^ 0x36 for byte in view)",
    "second half, outer pad": "copy = bytes(byte ^ 0x5c for byte in view)",
}


@pytest.mark.parametrize("form", CONTROLS)
def test_a_copy_on_the_heap_is_found_in_every_form(form: str) -> None:
    """The control: without it, an empty search would prove nothing."""
    code = f"key = KeyMemory.generate()\nwith key.view() as view:\n    {CONTROLS[form]}\nsay(key)"
    with process(code, 1) as (pid, (key,)):
        assert form in {hit.form for hit in find_in_process(pid, patterns_of(key))}


ONE_STEP = {
    "a derivation": """
root, data = KeyMemory.generate(), KeyMemory.generate()
held = purpose.purpose_key(root, purpose.Purpose.WRAP, STORE, 1)
say(root, data)
""",
    "a check value": """
root, data = KeyMemory.generate(), KeyMemory.generate()
held = purpose.data_check_value(data, "record", STORE, 1), purpose.check_value(root, STORE, 1)
say(root, data)
""",
    "an unwrapping": """
root, data = KeyMemory.generate(), KeyMemory.generate()
with data.view() as view:
    blob = record.seal(root, 1, WRAPPED, view)
again = KeyMemory.allocate(32)
record.open_into(root, WRAPPED, blob, again)
say(root, again)
""",
}


@pytest.mark.parametrize("step", ONE_STEP)
def test_one_step_alone_leaves_nothing(step: str) -> None:
    """Later work writes over much of what a step leaves: here nothing follows."""
    with process(ONE_STEP[step], 2) as (pid, (root, data)):
        assert search(pid, derived_from(root, data)) == {}


def test_the_key_of_a_single_message_is_not_left_either() -> None:
    """Not claimed for every moment (threads may interleave), but so it is when nothing interferes."""
    code = """
key, head = KeyMemory.generate(), KeyMemory.allocate(32)
blob = record.seal(key, 1, CONTEXT, b"x" * 1024)
for _ in range(10):
    assert record.open_untrusted(key, CONTEXT, blob) == b"x" * 1024
with head.view() as view:
    view[:30] = blob[:30]
say(key, head)
"""
    with process(code, 2) as (pid, (key, head)):
        texts = (b"secret", b"tenant/acme", b"0a" * 16, b"value")
        context = head[:6] + STORE + b"".join(struct.pack(">H", len(t)) + t for t in texts)
        label = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"
        block = hmac.digest(key, label + head[6:30] + context + b"\x01", "sha512")
        assert search(pid, {"message key": block[:32], "first block": block}) == {}
        # The commitment starts in the first block: that it is public shows the block was right.
        blob_in_memory = find_in_process(pid, {"nonce and commitment": block[44:]})
        assert blob_in_memory != []


NOT_CHOSEN = {
    "the key, when it opens": """
key = KeyMemory.generate()
sealed = cobblestone.seal(key, b"context", b"x" * 1024)
held = []
for _ in range(100):
    with key.view() as view:
        held.append(Cobblestone256Decryptor(view, b"context"))
    assert held[-1].update(sealed) + held[-1].finalize() == b"x" * 1024
del held
""",
    "a wrapped key, when it seals": """
key, wrap = KeyMemory.generate(), KeyMemory.generate()
held = []
for _ in range(100):
    with key.view() as view, wrap.view() as wrap_view:
        held.append(Cobblestone256Encryptor(wrap_view, b"context"))
        held[-1].update(view) + held[-1].finalize()
del held
""",
}


@pytest.mark.parametrize("left", NOT_CHOSEN)
def test_the_library_that_was_not_chosen_leaves_keys_behind(left: str) -> None:
    """Why the record format is own code (docs/decision/record-format.md).

    When this fails, the reason is gone: measure again and decide again.
    """
    code = "from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor\n"
    with process(code + NOT_CHOSEN[left] + "say(key)", 1) as (pid, (key,)):
        assert find_in_process(pid, patterns_of(key)) != []


def test_a_secret_that_would_be_found_by_chance_is_refused() -> None:
    with pytest.raises(ValueError, match="by chance"):
        patterns_of(bytes(32))
