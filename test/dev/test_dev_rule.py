"""What `spike dev` decides, and what it refuses before it starts anything."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from dev_kit import SPIKE, run_dev
from pilot_kit import SmallNexus, site
from spike.client.launch import Launcher
from spike.error import RefusedError, SettingError
from spike.pilot.dev.backoff import FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S, Backoff
from spike.pilot.dev.keeper import (
    COUNT,
    THRESHOLD,
    Tally,
    all_looked_at,
    may_come_back,
    nexus_variables,
    sites_at,
    tally_of,
)
from spike.pilot.dev.machine import (
    Programs,
    check_machine,
    choose_port,
    choose_ports,
    find_programs,
)
from spike.pilot.dev.opening import Opening
from spike.pilot.dev.place import DevPlace, default_directory, require_empty
from spike.pilot.dev.report import CameBack, Event, Locked, Served, data_of, lines_of
from spike.pilot.dev.supervisor import NotStarted
from spike.pilot.dev.world import without_ours
from spike.server.response import Response
from spike.wire.own import StatusAnswer, StatusKeeper

FAULT = Response(500, b'{"err":"api_internal_error"}')


def refused() -> Response:
    return Response(400, b'{"err":"refused_keeper","message":"Keeper 1 does not answer"}')


class Heard:
    """A report that counts passwords and keeps events."""

    def __init__(self) -> None:
        self.passwords = 0
        self.events: list[Event] = []

    def tell(self, event: Event) -> None:
        self.events.append(event)

    def show_password(self, _password: bytearray) -> None:
        self.passwords += 1


def test_pause_doubles_while_a_part_keeps_dying_and_has_a_limit() -> None:
    pauses, backoff = [], Backoff()
    for _ in range(12):
        backoff = backoff.after_death(0.1)
        pauses.append(backoff.pause_s)
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_pause_is_short_again_after_a_part_ran_well() -> None:
    tired = Backoff(LONGEST_PAUSE_S)
    assert tired.after_death(STEADY_S).pause_s == FIRST_PAUSE_S
    assert tired.after_death(STEADY_S - 1).pause_s == LONGEST_PAUSE_S


@pytest.mark.parametrize(
    ("platform", "version", "name", "said"),
    [
        ("darwin", (3, 11), "cpython", "Linux only"),
        ("win32", (3, 12), "cpython", "Linux only"),
        ("linux", (3, 10), "cpython", "3.11 or newer"),
        ("linux", (3, 11), "pypy", "CPython"),
    ],
)
def test_another_machine_is_refused_in_one_sentence(
    platform: str, version: tuple[int, int], name: str, said: str
) -> None:
    with pytest.raises(SettingError, match=said) as refused:
        check_machine(platform, version, name)
    assert refused.value.next_step


def test_this_kind_of_machine_is_accepted() -> None:
    check_machine("linux", (3, 11), "cpython")
    check_machine("linux", (3, 14), "cpython")


def test_missing_program_is_named(tmp_path: Path) -> None:
    for name in ("spike", "spike-authority", "spike-keeper"):
        (tmp_path / name).touch(mode=0o755)
    with pytest.raises(SettingError, match="spike-nexus is missing"):
        find_programs(tmp_path / "python")
    (tmp_path / "spike-nexus").touch(mode=0o755)
    assert find_programs(tmp_path / "python").path("spike") == str(tmp_path / "spike")


def test_default_directory_follows_the_state_directory() -> None:
    assert default_directory({"XDG_STATE_HOME": "/s"}) == Path("/s/spike/dev")
    assert default_directory({"HOME": "/h"}) == Path("/h/.local/state/spike/dev")
    with pytest.raises(SettingError, match="no home directory"):
        default_directory({})


def test_socket_path_is_measured_to_the_byte(tmp_path: Path) -> None:
    longest = 107 - len("/run/workload.sock")
    for size, accepted in ((longest, True), (longest + 1, False)):
        directory = Path(str(tmp_path) + "/" + "d" * (size - len(str(tmp_path)) - 1))
        assert len(str(directory)) == size
        place = DevPlace(directory)
        if accepted:
            with place.claimed():
                place.prepare()
        else:
            with pytest.raises(SettingError, match="108 bytes"), place.claimed():
                raise AssertionError


def test_directory_of_others_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "open"
    directory.mkdir()
    directory.chmod(0o755)
    with pytest.raises(SettingError, match="others can enter"):
        DevPlace(directory).prepare()


def test_directory_with_something_in_it_is_never_taken_for_a_fresh_store(tmp_path: Path) -> None:
    require_empty(tmp_path)
    require_empty(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="not empty"):
        require_empty(tmp_path)


def test_who_does_not_hold_a_directory_deletes_nothing_in_it(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "dev"
    ours, theirs = DevPlace(directory), DevPlace(directory)
    with ours.claimed():
        ours.prepare()
        (directory / "data").mkdir()
        (directory / "data" / "store.sqlite").write_text("the only copy")
        with pytest.raises(SettingError, match=r"already runs .*process"), theirs.claimed():
            theirs.empty()
    assert (directory / "data" / "store.sqlite").read_text() == "the only copy"
    ran = run_dev("--data", str(directory), "--ephemeral", "--port", "0")
    assert (ran.returncode, "is not empty" in ran.stderr) == (2, True)
    assert (directory / "data" / "store.sqlite").exists()


def test_a_directory_that_stays_empty_is_taken_away_with_all_that_was_made_for_it(
    tmp_path: Path,
) -> None:
    place = DevPlace(tmp_path / "new" / "dev")
    with pytest.raises(ZeroDivisionError), place.claimed():
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()
    place.directory.mkdir(mode=0o700, parents=True)
    with place.claimed():
        place.prepare()
        assert (place.directory / "run" / "pid").read_text() == f"{os.getpid()}\n"
        place.empty()
    assert place.directory.is_dir(), "it was there before"
    with pytest.raises(ZeroDivisionError), place.claimed():
        raise ZeroDivisionError
    assert place.directory.is_dir()


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    command = f"ulimit -f 0; exec {SPIKE} dev --data {tmp_path}/dev --port 0"
    ran = subprocess.run(
        ["/bin/bash", "-c", command], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 2, ran
    assert "cannot be written" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([None, None, refused()], "is void, and the next start shows another one"),
        ([None, None, FAULT, FAULT], "is void, unless the next start asks for it"),
    ],
)
def test_a_store_that_could_not_be_made_ends_it_and_makes_its_password_void(
    answers: list[Response | None], said: str, tmp_path: Path
) -> None:
    with site(SmallNexus()) as made:
        made.nexus.answers = answers
        report = Heard()
        launcher = Launcher(tmp_path / "none.sock")
        opening = Opening(
            *(DevPlace(tmp_path), made.environment("superuser"), Programs(tmp_path)),
            *(launcher, report),
        )
        with pytest.raises(RefusedError, match="the store was not made") as ended:
            asyncio.run(opening.open())
        launcher.close()
        assert said in ended.value.message
        assert (report.passwords, report.events) == (1, [])
        assert made.nexus.state == "uninitialized"


def test_an_empty_store_stays_empty_where_that_is_wanted(tmp_path: Path) -> None:
    with site(SmallNexus()) as made:
        report = Heard()
        launcher = Launcher(tmp_path / "none.sock")
        opening = Opening(
            *(DevPlace(tmp_path), made.environment("superuser"), Programs(tmp_path)),
            *(launcher, report),
            init=False,
        )
        asyncio.run(opening.open())
        launcher.close()
        assert report.passwords == 0
        (served,) = report.events
        assert isinstance(served, Served)
        assert served.state == made.nexus.state == "uninitialized"
        assert "It has no root key yet" in "\n".join(lines_of(served))


def test_environment_file_survives_a_name_with_spaces(tmp_path: Path) -> None:
    place = DevPlace(tmp_path / "a b'c")
    place.prepare()
    place.write_environment(place.client_environment(1, tmp_path))
    line = next(
        line
        for line in lines_of(Served(place, "https://localhost:1", "open", Tally(3, 3, 2)))
        if line.startswith("  . ")
    )
    shown = _shell(f'{line} && printf %s "$SPIKE_PILOT_STATE_DIR|$PATH"')
    state, path = shown.split("|")
    assert state == str(place.pilot)
    assert path.split(":")[0] == str(tmp_path)


def test_free_port_is_taken_as_it_is_and_a_taken_one_names_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match=f"port {port} is taken") as refused:
            choose_port(port)
    offered = int(refused.value.next_step.rpartition(" ")[2])
    assert choose_port(offered) == offered
    assert choose_port(0) > 0


def told(state: str, keepers: str, missing: str | None = None) -> StatusAnswer:
    """What Nexus says; `keepers` are their states, `missing` is what it waits for."""
    known = [
        StatusKeeper(index, f"https://localhost:{index}", "", each)
        for index, each in enumerate(keepers.split(), 1)
    ]
    ready = state == "open"
    return StatusAnswer(ready, state=state, keepers=known, keeper_threshold=2, recovery=missing)


@pytest.mark.parametrize(
    ("status", "hope"),
    [
        (told("locked", "unknown unknown unknown"), True),
        (told("locked", "unknown unknown unknown", missing="Keeper 2: it holds no share"), False),
        (told("locked", ""), False),
        (told("open", "current current current"), False),
        (told("uninitialized", "unknown unknown unknown"), False),
    ],
)
def test_keepers_are_waited_for_until_nexus_has_asked_them_all(
    status: StatusAnswer, hope: bool
) -> None:
    assert may_come_back(status) is hope


def test_nexus_is_asked_again_until_it_has_looked_at_each_keeper() -> None:
    assert not all_looked_at(told("open", "current unknown current"))
    assert all_looked_at(told("open", "current unreachable suspect"))
    assert tally_of(told("open", "current unreachable current")) == Tally(2, 3, 2)


def test_each_keeper_has_an_identity_of_its_own_that_nexus_is_told_to_insist_on() -> None:
    sites = sites_at((1001, 1002, 1003))
    variables = nexus_variables(sites)
    assert variables["SPIKE_NEXUS_KEEPER_PEERS"].split(",") == [
        f"https://127.0.0.1:{1000 + n}#spiffe://spike.ist/spike/keeper/{n}" for n in (1, 2, 3)
    ]
    assert variables["SPIKE_NEXUS_SHAMIR_SHARES"] == str(COUNT) == "3"
    assert variables["SPIKE_NEXUS_SHAMIR_THRESHOLD"] == str(THRESHOLD) == "2"


def test_keepers_listen_where_they_did_before_unless_somebody_else_does(tmp_path: Path) -> None:
    place = DevPlace(tmp_path / "dev")
    place.prepare()
    assert place.keeper_ports() == ()
    first = choose_ports(place.keeper_ports(), 3, 8553)
    assert len({*first, 8553}) == 4
    place.keep_keeper_ports(first)
    assert choose_ports(place.keeper_ports(), 3, 8553) == first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first[1]))
        taken.listen()
        now = choose_ports(place.keeper_ports(), 3, first[2])
    assert now[0] == first[0]
    assert len({*now, first[1], first[2]}) == 5


@pytest.mark.parametrize("content", ["", "nonsense", "0", "-1", "99999", "1" * 5000, "\xff"])
def test_what_is_no_list_of_ports_is_as_if_there_were_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "keeper-port").write_text(content, encoding="latin-1")
    assert DevPlace(tmp_path).keeper_ports() == ()


def test_what_another_spike_was_told_is_left_out_and_the_rest_is_kept() -> None:
    kept = {"HOME": "/h", "SPIKE_NEXUS_KEEPER_UPDATE_INTERVAL": "1s", "SPIKE_MEMORY_STRICT": "true"}
    others = (
        "SPIKE_NEXUS_KEEPER_PEERS",
        "SPIKE_NEXUS_SHAMIR_SHARES",
        "SPIKE_NEXUS_SHAMIR_THRESHOLD",
        "SPIKE_KEEPER_TLS_PORT",
        "SPIKE_TRUST_ROOT_KEEPER",
        "SPIKE_NEXUS_DATA_DIR",
    )
    assert without_ours({**kept, **dict.fromkeys(others, "x")}) == kept


def test_report_says_who_holds_shares_and_what_they_are_good_for(tmp_path: Path) -> None:
    place = DevPlace(tmp_path)
    served = Served(place, "https://localhost:1", "open", Tally(3, 3, 2))
    assert "  Keepers  3 hold shares of the root key; any 2 bring it back" in lines_of(served)
    assert data_of(served)["keepers"] == {"current": 3, "total": 3, "threshold": 2}
    fewer = Served(place, "https://localhost:1", "locked", Tally(1, 3, 2))
    assert "  Keepers  1 of 3 hold a share; it takes 2" in lines_of(fewer)
    locked = Locked(place, "two Keepers have to give their shares")
    assert "It waits: two Keepers have to give their shares." in lines_of(locked)
    assert data_of(locked)["recovery"] == "two Keepers have to give their shares"
    assert not [line for line in lines_of(Locked(place, "")) if "Keepers" in line]
    assert data_of(CameBack()) == {"event": "came-back"}
    failed = NotStarted("Keeper 2", "no process can be started", 0.4)
    assert data_of(failed)["event"] == "not-started"
    assert "trying again in 0.4 s" in lines_of(failed)[0]
    assert re.search("by itself", "".join(lines_of(CameBack())))


def test_taken_port_is_one_sentence_and_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = run_dev("--data", str(tmp_path / "dev"), "--port", str(port))
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"Error: port {port} is taken")
    assert "Next: choose another: spike dev --port" in ran.stderr
    assert ran.stdout == ""
    assert not (tmp_path / "dev").exists(), "what is refused leaves nothing"


def test_long_path_is_one_sentence_and_makes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 25)
    ran = run_dev("--data", str(directory), "--port", "0")
    assert ran.returncode == 2
    assert "too long for a socket" in ran.stderr
    assert "--data DIR" in ran.stderr
    assert not directory.exists()


def test_fresh_store_leaves_an_existing_one_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    for option in ("--fresh", "--ephemeral"):
        ran = run_dev("--data", str(tmp_path), option, "--port", "0")
        assert ran.returncode == 2
        assert "is not empty" in ran.stderr
    assert (tmp_path / "precious").read_text() == "data"


def test_sabotage_without_demo_is_wrong_usage() -> None:
    ran = run_dev("--sabotage", "lost-secret")
    assert ran.returncode == 2
    assert "--demo" in ran.stderr


def _shell(script: str) -> str:
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout
