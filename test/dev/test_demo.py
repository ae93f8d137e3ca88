"""The demo is true as it stands, and false and named when something is broken."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dev_kit import SPIKE
from size import PROOF, record
from spike.error import ClaimError
from spike.pilot.demo import play as playing
from spike.pilot.demo.claim import Chapter, Claim, Sabotage, Scene, claim, require, require_equal
from spike.pilot.demo.keeper import chapter as keeper
from spike.pilot.demo.main import chapter as main
from spike.pilot.demo.recovery import chapter as recovery
from spike.pilot.demo.rotation import chapter as rotation

LIMIT_S = 290.0
CHAPTERS: tuple[Chapter[Any], ...] = (
    *(main.CHAPTER, keeper.CHAPTER),
    *(rotation.CHAPTER, recovery.CHAPTER),
)
NAMES = [each.name for chapter in CHAPTERS for each in chapter.sabotages]
# Early ones, which end quickly, and one that breaks what was written; in proof size all of them.
QUICK = {
    *("leaked-password", "widened-policy", "lost-secret"),
    *("frozen-keepers", "lost-order", "stolen-identity"),
    *("frozen-keeper", "deleted-secret"),
}
CHOSEN = [
    (chapter, each)
    for chapter in CHAPTERS
    for each in chapter.sabotages
    if PROOF or each.name in QUICK
]


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for what the demo makes, with a path short enough for sockets whatever the user is called."""
    return tmp_path_factory.mktemp("d")


def run_demo(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SPIKE, "dev", "--demo", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(place)},
        timeout=LIMIT_S,
        check=False,
        start_new_session=True,
    )


def claims_of(chapter: Chapter[Any]) -> list[Claim[Any]]:
    return [each for scene in chapter.scenes for each in scene.claims]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda each: each.name)
def test_every_claim_is_true_and_nothing_is_left(chapter: Chapter[Any], place: Path) -> None:
    ran = run_demo(place, chapter.name)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = [line for line in ran.stdout.split("\n") if line.startswith("  ok  ")]
    expected = [each.says for each in claims_of(chapter)]
    assert [line[6:].rpartition(" (")[0] for line in lines] == expected
    assert f"{len(expected)} claims, all true" in ran.stdout
    assert not any(place.iterdir())
    record(f"claims of the demo, chapter {chapter.name}", len(expected), "all true")


@pytest.mark.parametrize(("chapter", "sabotage"), CHOSEN, ids=[each.name for _, each in CHOSEN])
def test_sabotage_makes_the_claim_false_that_it_breaks(
    chapter: Chapter[Any], sabotage: Sabotage[Any], place: Path
) -> None:
    ran = run_demo(place, chapter.name, "--sabotage", sabotage.name)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    false = [line for line in ran.stdout.split("\n") if line.startswith("FALSE  ")]
    assert [line.rpartition("[")[2] for line in false] == [f"{sabotage.exposed_by.name}]"]
    assert "could not be checked" not in ran.stdout
    assert sabotage.name in ran.stdout
    assert not any(place.iterdir())
    what = f"demo sabotaged with {sabotage.name}"
    record(what, 1, f"{sabotage.exposed_by.name} is false, and is named")


def test_sabotages_are_listed_one_a_line(place: Path) -> None:
    ran = run_demo(place, "--sabotage", "list")
    assert ran.returncode == 0
    assert ran.stdout.split("\n") == [*NAMES, ""]
    assert len(set(NAMES)) == len(NAMES)
    for chapter in CHAPTERS:
        ran = run_demo(place, chapter.name, "--sabotage", "list")
        assert ran.returncode == 0
        assert ran.stdout.split("\n") == [*(each.name for each in chapter.sabotages), ""]


@pytest.mark.parametrize(
    "arguments", [("no-such-chapter",), ("main", "--sabotage", "no-such-thing")]
)
def test_unknown_name_is_wrong_usage_and_lists_the_known(
    arguments: tuple[str, ...], place: Path
) -> None:
    ran = run_demo(place, *arguments)
    assert ran.returncode == 2
    assert ran.stderr.startswith("Error: there is no")
    assert "Next: choose one of: " in ran.stderr


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda each: each.name)
def test_every_group_of_claims_has_a_sabotage_of_its_own(chapter: Chapter[Any]) -> None:
    exposed = {each.exposed_by.name for each in chapter.sabotages}
    befores = {each.before.name for each in chapter.sabotages}
    names = [each.name for each in claims_of(chapter)]
    assert len(set(names)) == len(names)
    assert exposed | befores <= set(names)
    for scene in chapter.scenes:
        assert exposed & {each.name for each in scene.claims}, scene.title


@claim("the first is true")
def first_one(world: list[str]) -> None:
    world.append("first")


@claim("the second holds what the first wrote, and no more")
def second_one(world: list[str]) -> None:
    require_equal(world, ["first"], "what was written")


@claim("the third is told only if the others were true")
def third_one(world: list[str]) -> str:
    require(len(world) == 1, "too much was written")
    world.append("third")
    return "what the third saw"


def test_telling_ends_at_the_first_false_claim(capsys: pytest.CaptureFixture[str]) -> None:
    from contextlib import nullcontext

    world: list[str] = []
    chapter = Chapter(
        "small",
        "three claims",
        lambda: nullcontext(world),
        (Scene("Scene", (first_one, second_one, third_one)),),
        (),
    )
    assert playing.play_all((chapter,), None) == 0
    assert world == ["first", "third"]
    assert capsys.readouterr().out.count("\n      what the third saw\n") == 1
    world.clear()
    broken = Sabotage("more", "more was written", _write_more, before=second_one)
    assert playing.play_all((chapter,), broken) == 1
    assert world == ["first", "more"]
    said = capsys.readouterr().out
    assert "FALSE  the second holds what the first wrote, and no more  [second-one]" in said
    assert "Sabotaged on purpose with more: more was written." in said


def test_unnoticed_sabotage_is_said_and_fails_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    from contextlib import nullcontext

    chapter = Chapter(
        "small", "one claim", lambda: nullcontext([]), (Scene("Scene", (first_one,)),), ()
    )
    broken = Sabotage("nothing", "nothing is broken", _break_nothing, before=first_one)
    assert playing.play_all((chapter,), broken) == 0
    assert "no claim was false" in capsys.readouterr().out


def test_require_says_what_was_found() -> None:
    require(True, "never said")
    with pytest.raises(ClaimError, match="the answer is 200, and 401 was expected"):
        require_equal(200, 401, "the answer")


def _write_more(world: list[str]) -> None:
    world.append("more")


def _break_nothing(world: list[str]) -> None:
    pass
