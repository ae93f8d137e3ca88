"""The policy for backup passwords, and the generator of ten words. Pure: keeps and logs nothing.

Source: NIST SP 800-63B-4, section 3.1.1.2: a least length, all of Unicode after NFKC, a block list,
and neither composition rules nor expiry. To it comes an estimate of how long a stolen backup would
resist guessing, because a backup can be attacked without a server that counts the attempts.

What the least estimate means. A guess costs 256 MiB and three passes of Argon2id, memory traffic
that holds a large graphics card to some thousand guesses a second. 2^40 guesses keep a hundred such
cards busy for months. The estimate is zxcvbn's, which counts ten possibilities for each character
it cannot explain: fifteen random letters and digits, in truth 89 bits, are counted as 44 to 50.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import log2

from spike.error import InputError

MINIMUM_CHARACTERS = 15
MAXIMUM_CHARACTERS = 256
MINIMUM_BITS = 40.0
GENERATED_WORDS = 10
GENERATED_BITS = 110  # ten words, each one of 2,048
# NFKC can join characters, so more bytes may come in than 256 characters need; but not as many.
MAXIMUM_INPUT_BYTES = 4096

# Words an attacker of this very system tries first. Callers add names, such as the slot's.
CONTEXT_WORDS = (
    "spike", "spiffe", "spire", "nexus", "keeper", "pilot", "authority", "secret", "secrets",
    "store", "vault", "rootkey", "root", "backup", "restore", "recovery", "slot", "admin",
    "administrator", "superuser", "password", "passwort", "passphrase", "master",
)  # fmt: skip

# zxcvbn's time grows faster than the square of the length: at worst 0.8 s here, 26 s at 256.
_CHUNK_CHARACTERS = 40
_LEAST_DISTINCT_CHARACTERS = 5
_LEAST_CONTEXT_CHARACTERS = 3  # a shorter name occurs by chance
# No composition rule: only what cannot be typed again, or a later Unicode may normalize otherwise.
_REFUSED_CATEGORIES = {"Cc": "a control character", "Cn": "a character Unicode has not assigned"}

_LONGER = "use a longer one, or let `--generate` make ten words"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The password may be used. `bits`: it resists at least 2^bits guesses, by estimate."""

    bits: float


@dataclass(frozen=True, slots=True)
class TooWeak:
    """The password is refused. `reason` completes "it is refused: …" and quotes no part of it."""

    reason: str
    next_step: str


Verdict = Accepted | TooWeak


def normalize_untrusted(raw: bytes | bytearray | memoryview) -> bytearray:
    """Return the one form of a password that is derived from: NFKC, UTF-8. The caller wipes it.

    Raises:
        InputError: more than 4,096 bytes, or no UTF-8.
    """
    return bytearray(_text_untrusted(raw).encode())


def verdict(password: bytes | bytearray | memoryview, context_words: Iterable[str] = ()) -> Verdict:
    """Judge a password, given as UTF-8 bytes in any normalization, for a backup slot.

    `context_words` are names around this system, such as the slot's or the administrator's; shorter
    than three characters they do not count. Takes under 0.1 s as a rule, at most some seconds for
    input made to be slow. Not for use by several threads at once: zxcvbn's word lists are global.

    Source: NIST SP 800-63B-4, section 3.1.1.2.
    """
    try:
        text = _text_untrusted(password)
    except InputError as error:
        return TooWeak(error.message, error.next_step)
    return _refusal_by_form(text) or _refusal_by_pattern(text) or _strength(text, context_words)


def generate(choose: Callable[[Sequence[str]], str] = secrets.choice) -> bytearray:
    """Return ten words joined by hyphens, each one of 2,048: 110 bits. The caller wipes it.

    Hyphens, not spaces: one shell word, one double click, and a line break in print stays visible.
    What the policy refuses is drawn again, so that a generated password always passes; it refuses
    only ten words of which hardly two differ.
    """
    words = word_list()
    while True:
        password = bytearray("-".join(choose(words) for _ in range(GENERATED_WORDS)).encode())
        if isinstance(verdict(password), Accepted):
            return password


@cache
def word_list() -> tuple[str, ...]:
    """Return the 2,048 words of BIP-39 English; docs/decision/word-list.md says why these."""
    return _lines("english.txt")


def _text_untrusted(raw: bytes | bytearray | memoryview) -> str:
    if len(raw) > MAXIMUM_INPUT_BYTES:
        raise InputError(
            f"it has more than {MAXIMUM_CHARACTERS} characters",
            f"use one of {MINIMUM_CHARACTERS} to {MAXIMUM_CHARACTERS} characters",
        )
    try:
        return unicodedata.normalize("NFKC", str(raw, "utf-8"))
    except UnicodeDecodeError:
        # `from None`: the decoder's error carries the password.
        raise InputError("it is not valid UTF-8", "use a terminal or file in UTF-8") from None


def _refusal_by_form(text: str) -> TooWeak | None:
    if len(text) < MINIMUM_CHARACTERS:
        return TooWeak(
            f"it is too short: at least {MINIMUM_CHARACTERS} characters are needed", _LONGER
        )
    if len(text) > MAXIMUM_CHARACTERS:
        return TooWeak(
            f"it has more than {MAXIMUM_CHARACTERS} characters",
            f"use one of {MINIMUM_CHARACTERS} to {MAXIMUM_CHARACTERS} characters",
        )
    for character in text:
        if what := _REFUSED_CATEGORIES.get(unicodedata.category(character)):
            return TooWeak(
                f"it contains {what}, which could not be typed the same way again",
                "use characters that your keyboard gives everywhere",
            )
    return None


def _refusal_by_pattern(text: str) -> TooWeak | None:
    folded = text.casefold()
    if _period(folded) < MINIMUM_CHARACTERS and _period(folded) * 2 <= len(folded):
        return TooWeak("it repeats a short piece", _LONGER)
    if len(set(folded)) < _LEAST_DISTINCT_CHARACTERS:
        return TooWeak("it uses only a few different characters", _LONGER)
    if _outside_runs(folded) < _LEAST_DISTINCT_CHARACTERS:
        return TooWeak("it is a sequence, such as abcdef or 987654", _LONGER)
    return None


def _period(text: str) -> int:
    """Return the length of the shortest piece that, repeated and cut off, gives `text`."""
    # The failure function of Knuth, Morris and Pratt: the longest border gives the shortest period.
    border = [0] * len(text)
    length = 0
    for i in range(1, len(text)):
        while length and text[i] != text[length]:
            length = border[length - 1]
        length += text[i] == text[length]
        border[i] = length
    return len(text) - border[-1]


def _outside_runs(text: str) -> int:
    """Return how many characters are in no run of four or more neighbours in code-point order."""
    outside, start = 0, 0
    for i in range(1, len(text) + 1):
        step = ord(text[start + 1]) - ord(text[start]) if start + 1 < len(text) else 0
        goes_on = i < len(text) and step in (-1, 0, 1) and ord(text[i]) - ord(text[i - 1]) == step
        if not goes_on:
            outside += i - start if i - start < 4 else 0
            start = i
    return outside


def _strength(text: str, context_words: Iterable[str]) -> Verdict:
    words = [word.casefold() for word in (*CONTEXT_WORDS, *context_words)]
    words = sorted({word for word in words if len(word) >= _LEAST_CONTEXT_CHARACTERS})
    known = _known_pieces(words)
    rest, removed = known.subn(" ", text.casefold())
    best, reason = 0.0, ""
    for chunk in _chunks(rest if removed else text):
        bits, reason = _estimate(chunk, words)
        best = max(best, bits)
        if best >= MINIMUM_BITS:
            return Accepted(best)
    if removed:
        reason = "it is mostly a well-known phrase or words about this system"
    return TooWeak(f"{reason}; a stolen backup would not resist guessing", _LONGER)


def _known_pieces(words: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern for well-known phrases and context words, however their words are joined."""
    pieces = [*(phrase.split() for phrase in _lines("phrase.txt")), *([word] for word in words)]
    pieces.sort(key=lambda piece: -sum(map(len, piece)))  # the longest one that fits, first
    return re.compile("|".join(r"[\W_]*".join(map(re.escape, piece)) for piece in pieces))


def _chunks(text: str) -> Iterator[str]:
    """Yield the different pieces; a password is at least as strong as its strongest piece."""
    pieces = [text[i : i + _CHUNK_CHARACTERS] for i in range(0, len(text), _CHUNK_CHARACTERS)]
    yield from dict.fromkeys(pieces)


def _estimate(chunk: str, words: list[str]) -> tuple[float, str]:
    """Return zxcvbn's estimate in bits and what explains most of the chunk."""
    # Imported here: its word lists take 50 ms and 10 MB, which only those who judge a password pay.
    from zxcvbn import zxcvbn

    result = zxcvbn(chunk, user_inputs=words, max_length=_CHUNK_CHARACTERS)
    covered: dict[str, int] = {}
    for match in result["sequence"]:
        kind = match["pattern"]
        if kind == "dictionary":
            kind = match["dictionary_name"]
        covered[kind] = covered.get(kind, 0) + len(match["token"])
    return log2(float(result["guesses"])), _REASONS.get(
        max(covered, key=lambda kind: covered[kind], default=""), "it is too easy to guess"
    )


_REASONS = {
    "passwords": "it is made of common passwords",
    "user_inputs": "it is made of words about this system",
    "english_wikipedia": "it is made of a few common words",
    "us_tv_and_film": "it is made of a few common words",
    "male_names": "it is made of names",
    "female_names": "it is made of names",
    "surnames": "it is made of names",
    "repeat": "it repeats itself",
    "sequence": "it is mostly a sequence, such as abcdef or 987654",
    "spatial": "it is mostly a row of the keyboard",
    "date": "it is mostly a date",
    "regex": "it is mostly a year",
}


@cache
def _lines(name: str) -> tuple[str, ...]:
    text = resources.files("spike.lifecycle").joinpath("word", name).read_text(encoding="utf-8")
    return tuple(text.split("\n")[:-1])
