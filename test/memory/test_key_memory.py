from __future__ import annotations

import copy
import gc
import mmap
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from size import size
from spike.error import SettingError, WipedError
from spike.memory import KeyMemory, page, wipe_all
from spike.memory.arena import ARENA
from spike.memory.process import check_key_pages

NO_SUCH_CALL = 100_000


@pytest.fixture(params=["memfd_secret", "mlock"], autouse=True)
def mechanism(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every test here runs on both kinds of pages: the kernel is asked for a call it does not have."""
    wipe_all()
    if request.param == "mlock":
        monkeypatch.setattr(page, "_MEMFD_SECRET", NO_SUCH_CALL)
    elif not _kernel_has_memfd_secret():
        pytest.skip("this kernel has no memfd_secret")
    yield request.param
    wipe_all()


def _kernel_has_memfd_secret() -> bool:
    descriptor: int = page.libc().syscall(447, 0)
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


def content(memory: KeyMemory) -> bytes:
    with memory.view() as view:
        return bytes(view)


def filled(data: bytes) -> KeyMemory:
    memory = KeyMemory.allocate(len(data))
    with memory.view() as view:
        view[:] = data
    return memory


def test_a_page_is_of_the_kind_the_kernel_gives(mechanism: str) -> None:
    with KeyMemory.generate():
        assert check_key_pages().applied
        assert mechanism in check_key_pages().detail


def test_generated_keys_are_random_and_allocated_ones_are_zero() -> None:
    keys = [KeyMemory.generate() for _ in range(100)]
    assert len({content(key) for key in keys}) == 100
    assert content(KeyMemory.allocate(64)) == bytes(64)


@pytest.mark.parametrize("size_bytes", [1, 31, 32, 33, 4095, 4096, 4097, 20_000])
def test_every_size_is_filled_whole(size_bytes: int) -> None:
    with KeyMemory.generate(size_bytes) as key:
        assert key.size_bytes == size_bytes
        assert len(content(key)) == size_bytes
        if size_bytes > 30:
            assert content(key)[-16:] != bytes(16)


@pytest.mark.parametrize("size_bytes", [-1, 0, 65_537, 1 << 62])
def test_no_size_outside_the_limits_is_accepted(size_bytes: int) -> None:
    for make in (KeyMemory.generate, KeyMemory.allocate, KeyMemory.allocate_shareable):
        with pytest.raises(ValueError, match="1 to 65,536 bytes"):
            make(size_bytes)


def test_wiping_overwrites_at_once_even_under_an_open_view() -> None:
    key = KeyMemory.generate()
    with key.view() as view:
        key.wipe()
        assert bytes(view) == bytes(32)
        view[:] = b"x" * 32  # what a borrower writes too late is overwritten too
    next_key = KeyMemory.allocate(32)
    assert next_key._place.offset == key._place.offset
    assert content(next_key) == bytes(32)


def test_a_place_is_not_given_to_another_key_while_a_view_of_it_is_open() -> None:
    key = KeyMemory.generate()
    with key.view() as view:
        key.wipe()
        others = [KeyMemory.generate() for _ in range(200)]
        assert bytes(view) == bytes(32)
    assert len({content(other) for other in others}) == 200


def test_a_wiped_key_refuses_every_use() -> None:
    key, other = KeyMemory.allocate_shareable(32), KeyMemory.generate()
    key.wipe()
    key.wipe()
    for use in (
        lambda: key.view().__enter__(),
        key.randomize,
        key.descriptor,
        lambda: key.same_as(other),
        lambda: other.same_as(key),
    ):
        with pytest.raises(WipedError):
            use()


def test_leaving_the_context_wipes_also_after_an_exception() -> None:
    with pytest.raises(RuntimeError), KeyMemory.generate() as key:
        raise RuntimeError
    assert key.wiped


def test_a_key_that_nobody_holds_is_overwritten_and_its_place_used_again() -> None:
    first = KeyMemory.generate()
    place = first._place
    with place.page.view() as whole:
        assert bytes(whole[place.offset : place.offset + 32]) != bytes(32)
        del first
        gc.collect()
        assert bytes(whole[place.offset : place.offset + 32]) == bytes(32)


def test_a_place_given_back_twice_is_handed_out_once() -> None:
    """Two threads that wipe and leave a view at the same moment both give the place back."""
    key = KeyMemory.generate()
    key.wipe()
    ARENA.give_back(key._place)
    first = filled(b"1" * 32)
    ARENA.give_back(key._place)
    second = filled(b"2" * 32)
    assert (content(first), content(second)) == (b"1" * 32, b"2" * 32)


INTERRUPTED = """
import signal
from spike.memory import KeyMemory
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.00005, 0.00005)
for _ in range(200):
    with KeyMemory.generate(65536) as key, key.view() as view:
        assert any(view[-16:]), "the end of the key was left as zeros"
signal.setitimer(signal.ITIMER_REAL, 0)
"""


def test_a_signal_while_a_key_is_made_leaves_no_part_of_it_out() -> None:
    subprocess.run([sys.executable, "-c", INTERRUPTED], check=True, timeout=60)


def test_wipe_all_overwrites_every_kind_of_key() -> None:
    keys = [KeyMemory.generate(), KeyMemory.generate(5000), KeyMemory.allocate_shareable(32)]
    keys[2].randomize()
    views = [key._place.page.view() for key in keys]
    wipe_all()
    for key, view in zip(keys, views, strict=True):
        assert bytes(view) == bytes(len(view))
        assert key.wiped
        view.release()
    assert KeyMemory.generate().size_bytes == 32


def test_many_small_keys_share_one_page() -> None:
    keys = [KeyMemory.generate() for _ in range(mmap.PAGESIZE // 32)]
    assert len({key._place.page for key in keys}) == 1
    assert len({content(key) for key in keys}) == len(keys)


def test_nothing_shows_copies_or_pickles_a_key() -> None:
    key = filled(b"secret-secret-secret-secret-1234")
    assert repr(key) == "KeyMemory(32 bytes, held)"
    assert "secret" not in f"{key} {key!r}"
    for forbidden in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            forbidden(key)
    with pytest.raises(TypeError):
        bytes(key)  # type: ignore[call-overload]
    assert not hasattr(key, "__dict__")
    key.wipe()
    assert repr(key) == "KeyMemory(32 bytes, wiped)"


def test_keys_are_compared_by_content() -> None:
    key = filled(b"a" * 32)
    assert key.same_as(filled(b"a" * 32))
    assert not key.same_as(filled(b"a" * 31 + b"b"))
    assert not key.same_as(filled(b"a" * 31))


def test_a_forked_child_has_no_key() -> None:
    key, shared = KeyMemory.generate(), KeyMemory.allocate_shareable(32)
    child = os.fork()
    if child == 0:  # no exception may leave the child: it would run the parent's tests
        status = 1
        try:
            for memory in (key, shared):
                try:
                    memory.view().__enter__()
                except WipedError:
                    status = 0
                else:
                    status = 2
                    break
            with KeyMemory.generate() as own:
                status = status or (3 if own.wiped else 0)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not key.wiped


def test_the_kernel_gives_a_forked_child_no_page() -> None:
    key = filled(b"k" * 32)
    address = key._place.page.address + key._place.offset
    child = os.fork()
    if child == 0:
        try:
            with open("/proc/self/mem", "rb", buffering=0) as memory:
                found = os.pread(memory.fileno(), 32, address)
        except OSError:
            found = b""  # not mapped at all
        os._exit(1 if found == b"k" * 32 else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


CHILD = """
import sys
from spike.memory import KeyMemory, wipe_all
with KeyMemory.adopt(int(sys.argv[1]), 32) as shared:
    with shared.view() as view:
        assert bytes(view[:4]) == b"from"
        view[:] = b"to the parent, thirty-two bytes!"
assert shared.wiped
again = KeyMemory.adopt(int(sys.argv[2]), 32)
wipe_all()
sys.stdout.write("done")
"""


def test_what_an_executed_child_writes_into_shared_memory_outlives_its_wiping() -> None:
    shared = KeyMemory.allocate_shareable(32)
    with shared.view() as view:
        view[:4] = b"from"
    second = os.dup(shared.descriptor())
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(shared.descriptor()), str(second)],
        pass_fds=[shared.descriptor(), second],
        capture_output=True,
        check=True,
        timeout=30,
    )
    os.close(second)
    assert done.stdout == b"done"
    assert content(shared) == b"to the parent, thirty-two bytes!"


def test_a_child_that_is_not_given_the_descriptor_has_none() -> None:
    shared = KeyMemory.allocate_shareable(32)
    assert not os.get_inheritable(shared.descriptor())


def test_wiping_shared_memory_closes_its_descriptor() -> None:
    shared = KeyMemory.allocate_shareable(32)
    descriptor = shared.descriptor()
    shared.wipe()
    KeyMemory.generate().wipe()  # the place is swept when the next one is taken
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_private_memory_has_no_descriptor() -> None:
    with pytest.raises(ValueError, match="not shareable"):
        KeyMemory.generate().descriptor()


def test_too_small_a_descriptor_is_refused_and_closed() -> None:
    descriptor = os.memfd_create("small")
    with pytest.raises(SettingError, match="smaller"):
        KeyMemory.adopt(descriptor, 32)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


LIMITED = """
import resource, sys
from spike.memory import KeyMemory, page
from spike.error import SettingError
if sys.argv[1] == "mlock":
    page._MEMFD_SECRET = 100_000
import os
if os.geteuid() == 0:
    os.setuid(65534)  # root may lock without a limit
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
small = [KeyMemory.generate() for _ in range(1000)]
assert len(small) == 1000
try:
    held = [KeyMemory.allocate_shareable(32) for _ in range(20)]
except SettingError as error:
    assert "65536" in error.message and "ulimit -l" in error.next_step
    print("refused")
del small[:]
print(KeyMemory.generate())
"""


def test_a_thousand_keys_fit_under_64_kib_and_more_is_refused_with_advice(mechanism: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, mechanism],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.splitlines() == ["refused", "KeyMemory(32 bytes, held)"], done.stderr


def test_threads_that_share_and_wipe_keys_never_mix_them() -> None:
    failures: list[str] = []

    def work(number: int) -> None:
        mine = bytes([number]) * 32
        for _ in range(size(test=300, proof=20_000)):
            with filled(mine) as key:
                if content(key) != mine:
                    failures.append("another thread wrote here")
                with key.view() as view:
                    key.wipe()
                    if bytes(view) != bytes(32):
                        failures.append("a wiped place was given away")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@settings(max_examples=size(test=30, proof=2000), deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.booleans()), max_size=60))
def test_places_never_overlap(steps: list[tuple[int, bool]]) -> None:
    held: list[tuple[KeyMemory, bytes]] = []
    for number, (size_bytes, drop) in enumerate(steps):
        data = number.to_bytes(2, "big") * (size_bytes // 2) + bytes(size_bytes % 2)
        held.append((filled(data), data))
        if drop:
            held.pop(len(held) // 2)[0].wipe()
        assert all(content(memory) == data for memory, data in held)
    for memory, _ in held:
        memory.wipe()


def test_a_duplicate_has_the_same_bytes_and_a_life_of_its_own() -> None:
    with KeyMemory.generate() as key:
        other = key.duplicate()
        assert other.same_as(key)
        key.wipe()
        assert not other.wiped
        with other.view() as view:
            assert any(view)
        with pytest.raises(WipedError):
            key.duplicate()
    other.wipe()
