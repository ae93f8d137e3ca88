"""The Workload API client against a real gRPC server on a real Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from spiffe_kit import Ca, Issued, response
from spike.error import SettingError, WorkloadApiError
from spike.spiffe.background_source import BackgroundSource
from spike.spiffe.endpoint import (
    Owned,
    Viewpoint,
    check_endpoint,
    fault_of_look_up,
    parse_endpoint_untrusted,
)
from spike.spiffe.svid import X509Material
from spike.spiffe.workload.workload_grpc import SpiffeWorkloadAPIBase
from spike.spiffe.workload.workload_pb2 import (
    JWTBundlesRequest,
    JWTBundlesResponse,
    JWTSVIDRequest,
    JWTSVIDResponse,
    ValidateJWTSVIDRequest,
    ValidateJWTSVIDResponse,
    X509BundlesRequest,
    X509BundlesResponse,
    X509SVIDRequest,
    X509SVIDResponse,
)
from spike.spiffe.workload_source import X509Source, fetch_material

WEB = "spiffe://example.org/web"
WAIT_S = 10.0

Answer: TypeAlias = "X509SVIDResponse | Exception | None"  # None: the server hangs up


class Agent(SpiffeWorkloadAPIBase):  # type: ignore[misc]  # generated code, seen as Any
    """A Workload API that says what the test tells it to say."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls = 0
        self.headers: list[dict[str, str]] = []
        self.answers: list[Answer] = []
        self._more = asyncio.Event()
        self._transports: list[Any] = []
        self._server: Server | None = None

    @property
    def endpoint(self) -> str:
        return f"unix://{self.path}"

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = Server([self])
        await self._server.start(path=str(self.path))

    async def stop(self) -> None:
        """End as a killed process does: every connection breaks; the socket file stays."""
        if self._server is not None:
            self._server.close()
            for transport in self._transports:
                transport.abort()
            self._transports.clear()
            await self._server.wait_closed()
            self._server = None

    def say(self, *answers: Answer) -> None:
        """Say this to every call open now, and first to every later one."""
        self.answers.extend(answers)
        self._more.set()

    def forget(self) -> None:
        self.answers.clear()

    async def FetchX509SVID(self, stream: Stream[X509SVIDRequest, X509SVIDResponse]) -> None:
        await stream.recv_message()
        self.calls += 1
        self._transports.append(stream._stream._transport)  # grpclib has no way to break one
        assert stream.metadata is not None
        self.headers.append({key: str(value) for key, value in stream.metadata.items()})
        told = 0
        while True:
            while told < len(self.answers):
                answer = self.answers[told]
                told += 1
                match answer:
                    case None:
                        return
                    case Exception():
                        raise answer
                    case _:
                        await stream.send_message(answer)
            self._more.clear()
            await self._more.wait()

    async def FetchX509Bundles(
        self, _stream: Stream[X509BundlesRequest, X509BundlesResponse]
    ) -> None:
        raise GRPCError(Status.UNIMPLEMENTED)

    async def FetchJWTSVID(self, _stream: Stream[JWTSVIDRequest, JWTSVIDResponse]) -> None:
        raise GRPCError(Status.UNIMPLEMENTED)

    async def FetchJWTBundles(self, _stream: Stream[JWTBundlesRequest, JWTBundlesResponse]) -> None:
        raise GRPCError(Status.UNIMPLEMENTED)

    async def ValidateJWTSVID(
        self, _stream: Stream[ValidateJWTSVIDRequest, ValidateJWTSVIDResponse]
    ) -> None:
        raise GRPCError(Status.UNIMPLEMENTED)


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not tmp_path: a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="spike-") as name:
        yield Path(name)


@pytest.fixture
async def agent(directory: Path) -> AsyncIterator[Agent]:
    agent = Agent(directory / "agent.sock")
    await agent.start()
    yield agent
    await agent.stop()


@pytest.fixture(scope="module")
def ca() -> Ca:
    return Ca("example.org")


def message(ca: Ca, spiffe_id: str = WEB, issued: Issued | None = None) -> X509SVIDResponse:
    return response(issued or ca.svid(spiffe_id), spiffe_id, ca)


@contextlib.asynccontextmanager
async def opened(agent: Agent, timeout_s: float = WAIT_S) -> AsyncIterator[X509Source]:
    source = await X509Source.open(agent.endpoint, timeout_s)
    try:
        yield source
    finally:
        await source.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110  any condition, of any object
            await asyncio.sleep(0.005)


def path_of(source: X509Source | BackgroundSource) -> str:
    return source.material.svid.id.path


# ---- the life of a source --------------------------------------------------------------------


async def test_the_first_material_is_there_when_the_source_is_open(agent: Agent, ca: Ca) -> None:
    agent.say(message(ca))
    async with opened(agent) as source:
        assert path_of(source) == "/web"
    assert agent.headers[0]["workload.spiffe.io"] == "true"


async def test_a_new_svid_is_taken_over_from_the_open_stream(agent: Agent, ca: Ca) -> None:
    agent.say(message(ca))
    async with opened(agent) as source:
        told: list[X509Material] = []
        unsubscribe = source.subscribe(told.append)
        agent.say(message(ca, "spiffe://example.org/new"))
        await until(lambda: path_of(source) == "/new")
        assert [each.svid.id.path for each in told] == ["/new"]
        unsubscribe()
        agent.say(message(ca, "spiffe://example.org/newer"))
        await until(lambda: path_of(source) == "/newer")
        assert len(told) == 1
    assert agent.calls == 1


async def test_a_subscriber_that_fails_does_not_keep_the_others_from_new_svids(
    agent: Agent, ca: Ca, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: X509Material) -> None:
        raise RuntimeError("a fault of the subscriber")

    agent.say(message(ca))
    async with opened(agent) as source:
        told: list[X509Material] = []
        source.subscribe(fail)
        source.subscribe(told.append)
        agent.say(message(ca, "spiffe://example.org/new"))
        await until(lambda: bool(told))
    assert "a subscriber failed" in caplog.text


async def test_a_bundle_of_more_than_a_window_of_http2_comes_through(agent: Agent, ca: Ca) -> None:
    large = message(ca)
    for number in range(12):
        large.federated_bundles[f"spiffe://d{number}.org"] = ca.bundle_der * 1000
    assert large.ByteSize() > 4 * 1024 * 1024
    agent.say(large)
    async with opened(agent) as source:
        assert len(source.material.bundles) == 13


async def test_a_restarted_agent_with_a_new_authority_is_taken_over_within_five_seconds(
    agent: Agent, ca: Ca
) -> None:
    agent.say(message(ca))
    async with opened(agent) as source:
        await agent.stop()
        new = Ca("example.org")
        agent.forget()
        agent.say(message(new))
        await agent.start()
        started = time.monotonic()
        await until(lambda: source.material.bundles[new.trust_domain] == new.bundle)
        assert time.monotonic() - started < 5


async def test_the_last_good_material_stays_while_the_agent_is_away(agent: Agent, ca: Ca) -> None:
    agent.say(message(ca))
    async with opened(agent) as source:
        good = source.material
        await agent.stop()
        agent.path.unlink(missing_ok=True)
        following = source._following
        assert following is not None
        await until(lambda: source._fault is not None)
        assert source.material is good
        assert not following.done()


SPOILED: dict[str, Callable[[Ca], Answer]] = {
    "no SVID": lambda _: X509SVIDResponse(),
    "a cut certificate": lambda ca: _cut(message(ca)),
    "an expired SVID": lambda ca: message(ca, issued=ca.svid(WEB, lifetime=timedelta(seconds=-1))),
    "another workload's SVID": lambda ca: response(ca.svid("spiffe://example.org/other"), WEB, ca),
    "a denial": lambda _: GRPCError(Status.PERMISSION_DENIED, "no identity issued"),
    "an internal error": lambda _: GRPCError(Status.INTERNAL, "oops"),
    "an invalid argument": lambda _: GRPCError(Status.INVALID_ARGUMENT),
    "the end of the stream": lambda _: None,
}


def _cut(whole: X509SVIDResponse) -> X509SVIDResponse:
    whole.svids[0].x509_svid = whole.svids[0].x509_svid[:-1]
    return whole


@pytest.mark.parametrize("what", SPOILED)
async def test_nothing_the_agent_says_ends_an_open_source(
    agent: Agent, ca: Ca, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent.say(message(ca))
    async with opened(agent) as source:
        agent.say(SPOILED[what](ca))
        await until(lambda: "Workload API" in caplog.text)
        assert path_of(source) == "/web"
        agent.forget()
        agent.say(message(ca, "spiffe://example.org/new"))
        await agent.stop()
        await agent.start()
        await until(lambda: path_of(source) == "/new")


async def test_the_agents_own_words_are_not_repeated(
    agent: Agent, ca: Ca, caplog: pytest.LogCaptureFixture
) -> None:
    agent.say(GRPCError(Status.INTERNAL, "forged\nlog line"))
    with pytest.raises(WorkloadApiError) as caught:
        await X509Source.open(agent.endpoint, 0.3)
    assert "forged" not in caplog.text + str(caught.value)


async def test_a_fault_that_goes_on_is_logged_once(
    agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    agent.say(GRPCError(Status.PERMISSION_DENIED))
    with caplog.at_level(logging.WARNING), pytest.raises(WorkloadApiError):
        await X509Source.open(agent.endpoint, 1)
    assert agent.calls >= 3
    assert caplog.text.count("no identity") == 1


# ---- the start -------------------------------------------------------------------------------


async def test_a_denial_is_asked_again_until_there_is_an_entry(agent: Agent, ca: Ca) -> None:
    agent.say(GRPCError(Status.PERMISSION_DENIED))
    opening = asyncio.create_task(X509Source.open(agent.endpoint, WAIT_S))
    await until(lambda: agent.calls >= 2)
    agent.forget()
    agent.say(message(ca))
    source = await opening
    assert path_of(source) == "/web"
    await source.close()


async def test_a_denial_that_stays_is_an_error_with_a_next_step(agent: Agent) -> None:
    agent.say(GRPCError(Status.PERMISSION_DENIED))
    with pytest.raises(WorkloadApiError, match="no identity for this process") as caught:
        await X509Source.open(agent.endpoint, 0.5)
    assert "entry" in caught.value.next_step
    assert agent.calls >= 2


async def test_a_start_with_only_malformed_messages_names_the_defect(agent: Agent, ca: Ca) -> None:
    agent.say(_cut(message(ca)))
    with pytest.raises(WorkloadApiError, match="middle of a certificate"):
        await X509Source.open(agent.endpoint, 0.3)


async def test_an_agent_that_says_nothing_is_an_error_after_the_time_out(agent: Agent) -> None:
    with pytest.raises(WorkloadApiError, match="does not answer"):
        await X509Source.open(agent.endpoint, 0.2)


async def test_a_socket_that_is_no_grpc_is_an_error(directory: Path) -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    path = directory / "other.sock"
    server = await asyncio.start_unix_server(babble, path)
    with pytest.raises(WorkloadApiError, match="broke"):
        await X509Source.open(f"unix://{path}", 0.5)
    server.close()


@pytest.mark.parametrize("status", [Status.INVALID_ARGUMENT, Status.UNIMPLEMENTED])
async def test_an_answer_that_will_not_change_is_not_waited_for(
    agent: Agent, status: Status
) -> None:
    agent.say(GRPCError(status))
    with pytest.raises(WorkloadApiError, match=status.name):
        await X509Source.open(agent.endpoint, 30)
    assert agent.calls == 1


async def _no_socket(_: Path) -> None:
    pass


async def _deserted_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))


async def _file_as_directory(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


@pytest.mark.parametrize(
    ("prepare", "what"),
    [
        (_no_socket, "there is no socket"),
        (_file_as_directory, "there is no socket"),
        (_deserted_socket, "nobody listens"),
    ],
)
async def test_a_missing_workload_api_is_reported_within_seconds(
    directory: Path, prepare: Callable[[Path], Awaitable[None]], what: str
) -> None:
    path = directory / "run" / "agent.sock"
    path.parent.mkdir()
    await prepare(path)
    started = time.monotonic()
    with pytest.raises(WorkloadApiError, match=what) as caught:
        await X509Source.open(f"unix://{path}", 30)
    assert time.monotonic() - started < 5
    assert str(path) in str(caught.value)
    assert caught.value.next_step


async def test_a_socket_that_comes_a_moment_later_is_waited_for(directory: Path, ca: Ca) -> None:
    agent = Agent(directory / "agent.sock")
    agent.say(message(ca))
    opening = asyncio.create_task(X509Source.open(agent.endpoint, WAIT_S))
    await until(lambda: opening.get_coro() is not None and not opening.done())
    await agent.start()
    source = await opening
    assert path_of(source) == "/web"
    await source.close()
    await agent.stop()


async def test_without_an_argument_the_endpoint_comes_from_the_environment(
    agent: Agent, ca: Ca, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.say(message(ca))
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", agent.endpoint)
    source = await X509Source.open(None, WAIT_S)
    assert path_of(source) == "/web"
    await source.close()
    monkeypatch.delenv("SPIFFE_ENDPOINT_SOCKET")
    with pytest.raises(SettingError, match="SPIFFE_ENDPOINT_SOCKET is not set") as caught:
        await X509Source.open(None, WAIT_S)
    assert "spike dev" in caught.value.next_step


async def test_a_caller_that_stops_waiting_leaves_nothing_running(agent: Agent) -> None:
    before = asyncio.all_tasks()
    opening = asyncio.create_task(X509Source.open(agent.endpoint, WAIT_S))
    await until(lambda: agent.calls == 1)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    names = {task.get_name() for task in asyncio.all_tasks() - before}
    assert "workload-api" not in names


# ---- without a loop of one's own -------------------------------------------------------------


async def test_a_source_is_closed_even_if_the_breaking_connection_swallows_the_cancellation(
    directory: Path,
) -> None:
    swallowed = asyncio.Event()

    class Stubborn(X509Source):
        async def _stream(self) -> None:
            try:
                await asyncio.sleep(WAIT_S)
            except asyncio.CancelledError:
                if swallowed.is_set():
                    raise
                swallowed.set()
                # What grpclib does when both happen at once.
                raise ConnectionResetError from None

    opening = asyncio.create_task(Stubborn.open(f"unix://{directory / 'agent.sock'}", WAIT_S))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    opening.cancel()
    ended, _ = await asyncio.wait([opening], timeout=WAIT_S / 2)
    assert swallowed.is_set()
    assert ended
    assert opening.cancelled()


async def test_a_command_fetches_its_material_once(agent: Agent, ca: Ca) -> None:
    agent.say(message(ca))
    fetched = await asyncio.to_thread(fetch_material, agent.endpoint, WAIT_S)
    assert str(fetched.svid.id) == WEB


async def test_a_source_in_the_background_follows_too(agent: Agent, ca: Ca) -> None:
    agent.say(message(ca))
    source = await asyncio.to_thread(BackgroundSource.open, agent.endpoint, WAIT_S)
    try:
        assert path_of(source) == "/web"
        agent.say(message(ca, "spiffe://example.org/new"))
        await until(lambda: path_of(source) == "/new")
    finally:
        await asyncio.to_thread(source.close)
    assert path_of(source) == "/new"
    await asyncio.to_thread(source.close)


async def test_a_source_in_the_background_fails_where_the_live_one_does(directory: Path) -> None:
    with pytest.raises(SettingError):
        await asyncio.to_thread(BackgroundSource.open, "tcp://127.0.0.1:1", WAIT_S)


# ---- the endpoint ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["unix:///run/a.sock", "unix:/run/a.sock"])
def test_an_endpoint_is_read_in_both_of_its_forms(text: str) -> None:
    assert parse_endpoint_untrusted(text) == Path("/run/a.sock")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "/run/a.sock",
        "unix:",
        "unix:/",
        "unix://",
        "unix:///",
        "unix:run/a.sock",
        "unix://run/a.sock",
        "unix:////run/a.sock",
        "unix:///run/a.sock\n",
        "unix:///run/\0a",
        "http://127.0.0.1/",
        "tcp://127.0.0.1:8000",
        "UNIX:///run/a.sock",
        "unix:///" + "a" * 107,
    ],
)
def test_another_endpoint_is_a_setting_error_with_a_next_step(text: str | None) -> None:
    with pytest.raises(SettingError) as caught:
        parse_endpoint_untrusted(text)
    assert caught.value.next_step


def test_the_longest_path_a_socket_can_have_is_taken() -> None:
    assert len(str(parse_endpoint_untrusted("unix:///" + "a" * 106))) == 107


@pytest.fixture
def listening(directory: Path) -> Iterator[Path]:
    path = directory / "private" / "agent.sock"
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        yield path


ME = Viewpoint.of_process()


def test_a_socket_everybody_may_connect_to_is_fine_in_a_private_directory(listening: Path) -> None:
    listening.chmod(0o777)
    check_endpoint(listening, ME)


@pytest.mark.parametrize(
    # A sticky directory is fine when it is root's, so root cannot make one that is not.
    "mode",
    [0o777, 0o707, 0o702, pytest.param(0o1777, marks=pytest.mark.ordinary)],
)
def test_a_directory_writable_by_others_is_refused_and_named(listening: Path, mode: int) -> None:
    listening.parent.chmod(mode)
    with pytest.raises(SettingError, match="others could replace") as caught:
        check_endpoint(listening, ME)
    assert str(listening.parent) in caught.value.next_step


def test_a_directory_further_up_counts_as_well(listening: Path) -> None:
    listening.parent.parent.chmod(0o777)
    with pytest.raises(SettingError, match="others could replace"):
        check_endpoint(listening, ME)


def test_a_directory_of_somebody_elses_group_is_refused(listening: Path) -> None:
    listening.parent.chmod(0o770)
    with pytest.raises(SettingError, match="writable by others"):
        check_endpoint(listening, Viewpoint(ME.uid, ME.gid + 1))


_US, _AGENT, _EVE = 1000, 990, 1001
_LOOK_UPS = {
    "root's own directory": (Owned(0, 0, 0o755), Owned(0, 0, 0o777), ""),
    "our own directory": (Owned(_US, _US, 0o700), Owned(_US, _US, 0o777), ""),
    "the agent's own directory": (Owned(_AGENT, _AGENT, 0o755), Owned(_AGENT, 0, 0o777), ""),
    "ours in a sticky one of root's": (Owned(0, 0, 0o1777), Owned(_US, 0, 0o700), ""),
    "root's in a sticky one of root's": (Owned(0, 0, 0o1777), Owned(0, 0, 0o755), ""),
    "a stranger's directory": (Owned(_EVE, _EVE, 0o755), Owned(0, 0, 0o755), "belongs to"),
    "anybody's in a sticky one": (Owned(0, 0, 0o1777), Owned(_EVE, 0, 0o700), "anybody"),
    # The socket's owner is trusted for what he already has, not for what all can make.
    "the agent's in a sticky one": (Owned(0, 0, 0o1777), Owned(_AGENT, 0, 0o700), "anybody"),
    "a sticky one that is not root's": (Owned(_US, 0, 0o1777), Owned(_US, 0, 0o700), "by others"),
    "writable by all": (Owned(0, 0, 0o777), Owned(0, 0, 0o755), "by others"),
    "writable by a group": (Owned(0, 0, 0o775), Owned(0, 0, 0o755), "by others"),
}


@pytest.mark.parametrize("name", _LOOK_UPS)
def test_a_directory_is_judged_by_who_could_make_another_name_in_it(name: str) -> None:
    directory, found, expected = _LOOK_UPS[name]
    fault = fault_of_look_up(directory, found, Owned(_AGENT, _AGENT, 0o777), Viewpoint(_US, _US))
    assert expected in fault
    assert bool(expected) == bool(fault)


@pytest.mark.parametrize("hops", ["straight", "by another link", "by a relative link"])
def test_a_link_in_a_directory_writable_by_others_is_refused(
    listening: Path, directory: Path, hops: str
) -> None:
    open_to_all = directory / "open"
    open_to_all.mkdir()
    link = open_to_all / "agent.sock"
    link.symlink_to(listening)
    if hops == "by another link":
        other = directory / "other.sock"
        other.symlink_to(link)
        link = other
    elif hops == "by a relative link":
        other = listening.parent / "other.sock"
        other.symlink_to("../open/agent.sock")
        link = other
    check_endpoint(link, ME)
    open_to_all.chmod(0o777)
    with pytest.raises(SettingError, match="others could replace"):
        check_endpoint(link, ME)


def test_a_file_is_no_socket(directory: Path) -> None:
    path = directory / "file"
    path.touch()
    with pytest.raises(SettingError, match="not a socket"):
        check_endpoint(path, ME)


@pytest.fixture
def open_directory(directory: Path) -> Path:
    directory.chmod(0o777)
    return directory


@pytest.mark.usefixtures("open_directory")
async def test_the_source_refuses_a_socket_that_others_could_replace(agent: Agent, ca: Ca) -> None:
    agent.say(message(ca))
    with pytest.raises(SettingError, match="others could replace"):
        await X509Source.open(agent.endpoint, WAIT_S)
    assert agent.calls == 0
