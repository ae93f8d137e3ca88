"""Pages as a whole: links lead somewhere, figures are those of the code, promises of pages are kept by the pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from doc_kit import DOCS, ROOT, anchors, page, pages, rows, sections, without_fences
from spike.crypto.slot import Argon2Setting
from spike.lifecycle import attempt, password
from spike.nexus.restore_flow import PREVIEW_LIFE_S
from spike.pilot.command.init import WARNING

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("path", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = without_fences(path.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.is_file(), f"{link} leads nowhere"
        if target == DOCS / "security.md":  # the page that shows SECURITY.md
            target = ROOT / "SECURITY.md"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{link}: no such heading"


def test_every_decision_stands_in_the_list_of_decisions() -> None:
    listed = {
        link for row in rows(page("docs/decision/README.md")) for link in LINK.findall(row[0])
    }
    assert listed == {path.name for path in (DOCS / "decision").glob("*.md")} - {"README.md"}


def test_every_reference_page_can_be_found_from_the_readme_or_another_page() -> None:
    linked = {
        (path.parent / link.partition("#")[0]).resolve()
        for path in pages()
        for link in LINK.findall(without_fences(path.read_text(encoding="utf-8")))
        if "://" not in link
    }
    missing = {p for p in DOCS.rglob("*.md") if p.name not in {"index.md", "proof.md"}} - linked
    assert not missing - {DOCS / "security.md"}


def test_guides_keep_their_promises() -> None:
    guide, limit = page("docs/guide/password.md"), page("docs/guide/limit.md")
    wanted = ("Making one", "Keeping it", "Handing it over", "Practising", "When a holder leaves")
    headings = list(sections(guide))
    assert all(any(h.startswith(each) for h in headings) for each in wanted), headings
    plain = " ".join(guide.split())
    assert "**Never beside the backup.**" in plain
    assert "**Two holders.**" in plain
    assert "lost together, the data are lost for good" in plain
    assert "lost for good" in " ".join(WARNING.split())
    assert "docs/guide/password.md" in WARNING
    least, most = password.MINIMUM_CHARACTERS, password.MAXIMUM_CHARACTERS
    assert f"{least} to {most} characters" in plain
    assert f"list of {len(password.word_list()):,}" in plain
    assert f"{password.GENERATED_BITS} bits" in plain
    assert f"below 2^{password.MINIMUM_BITS:g}" in plain
    assert attempt.LAST_DELAY_S == 60
    assert "one a minute" in plain
    topics = (
        "Everything hangs on one password",
        "What comes back by itself, and what does not",
        "Effort",
        "Load",
    )
    assert set(topics) <= set(sections(limit))
    assert f"{Argon2Setting().memory_kib // 1024} MiB" in limit


def test_figures_in_pages_are_those_of_the_code() -> None:
    cost = Argon2Setting()
    hierarchy = " ".join(page("docs/key-hierarchy.md").split())
    assert f"{cost.memory_kib // 1024} MiB, {cost.passes} passes, {cost.lanes} lanes" in hierarchy
    assert f"({cost.memory_kib // 1024} MiB)" in page("SECURITY.md")
    assert PREVIEW_LIFE_S == 120
    assert "within two minutes" in " ".join(page("docs/reference/wire.md").split())
    delay = f"{attempt.FIRST_DELAY_S:g} s, doubling to {attempt.LAST_DELAY_S:g} s"
    assert delay in page("docs/reference/refusal.md")


def test_security_numbers_its_assumptions_and_says_what_breaks() -> None:
    text = sections(page("SECURITY.md"))["Assumptions"]
    items = re.split(r"^(\d+)\. ", text, flags=re.MULTILINE)[1:]
    numbers, said = items[::2], items[1::2]
    assert [int(number) for number in numbers] == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 10
    for each in said:
        assert re.search(r"\*If false\*|\*What is left to him\*", each), each


def test_the_glossary_has_each_word_once_and_in_order() -> None:
    words = [re.sub(r" †", "", row[0]) for row in rows(page("docs/glossary.md"))]
    assert len(words) > 50
    assert words == sorted(set(words), key=str.lower)
