"""`spike key cipher-oldest`: the cost is shown, a person types a phrase, and only then it is done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pilot_kit import MOMENT, Site, SmallNexus, site
from spike.server import Request
from spike.wire import call as calls
from spike.wire.key import (
    KeyCipherOldestAnswer,
    KeyCipherOldestRequest,
    KeyGeneration,
    KeyTransition,
)
from spike.wire.message import Message
from terminal_kit import terminal


class WithGenerations(SmallNexus):
    """A small Nexus whose cipher key has three generations."""

    def __init__(self) -> None:
        super().__init__()
        self.state = "open"
        self.oldest = 1
        self._calls[calls.KEY_CIPHER_OLDEST.name] = self.raise_oldest

    def raise_oldest(self, asked: KeyCipherOldestRequest, _: Request) -> Message:
        oldest = asked.oldest or self.oldest
        ended = [
            KeyGeneration(
                "cipher",
                number,
                "deactivated",
                [KeyTransition("active", MOMENT, "x", "")],
                sealed=7,
            )
            for number in range(self.oldest, oldest)
        ]
        if asked.confirm:
            self.oldest = oldest
        return KeyCipherOldestAnswer(self.oldest, 3, ended, done=self.oldest == oldest, epoch=1)


@pytest.fixture
def made() -> Iterator[Site[WithGenerations]]:
    with site(WithGenerations()) as each:
        yield each


def test_the_phrase_is_asked_for_behind_the_cost(made: Site[WithGenerations]) -> None:
    with terminal(made, "superuser", "key", "cipher-oldest", "3") as typed:
        typed.wait_for('To go on type "destroy below 3": ')
        assert made.nexus.oldest == 1
        typed.type("destroy below 3\n")
        assert typed.end() == 0
    assert "cipher 1: deactivated, encrypted with from 2026-11-23" in typed.shown
    assert "7 times as far as was counted" in typed.shown
    assert "can NEVER be decrypted again" in typed.shown
    assert "generation 3 alone is accepted. Destroyed: 1, 2." in typed.shown
    assert made.nexus.oldest == 3


def test_another_phrase_changes_nothing(made: Site[WithGenerations]) -> None:
    with terminal(made, "superuser", "key", "cipher-oldest", "2") as typed:
        typed.wait_for("To go on type")
        typed.type("yes\n")
        assert typed.end() == 1
    assert "nothing was changed" in typed.shown
    assert made.nexus.oldest == 1


def test_without_a_terminal_it_takes_yes_and_shows_the_cost_all_the_same(
    made: Site[WithGenerations],
) -> None:
    refused = made.spike("superuser", "key", "cipher-oldest", "2")
    assert refused.exit == 2
    assert "--yes" in refused.stderr
    assert made.nexus.oldest == 1
    done = made.spike("superuser", "key", "cipher-oldest", "2", "--yes", "--format", "json")
    assert done.exit == 0
    assert "DESTROYED" in done.stderr
    assert '"oldest": 2' in done.stdout
    again = made.spike("superuser", "key", "cipher-oldest", "2")
    assert (again.exit, again.stderr) == (0, "")


def test_without_a_generation_it_tells_how_it_is(made: Site[WithGenerations]) -> None:
    told = made.spike("superuser", "key", "cipher-oldest")
    assert told.stdout == "Cipher key: generations 1 to 3 are accepted.\n"
    assert made.nexus.oldest == 1
