"""docs/architecture.md speaks of files and functions that exist, and draws the layers that are enforced."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from doc_kit import ROOT, SOURCE, codes, fences, items, page, rows, sections

PAGE = "docs/architecture.md"
FILE = re.compile(r"[a-z_/0-9]+\.(?:py|sql)")
NAME = re.compile(r"[A-Za-z_]+(?:\.[A-Za-z_]+)?")
WORDS = frozenset({"spike", "sqlite", "memory", "lifecycle", "secret", "policy"})
"""What stands in backticks beside files and is no function: the command, engines, packages."""


def defined(file: str) -> set[str]:
    """Return the functions and classes of a module, methods as `Class.method`."""
    names: set[str] = set()
    for node in ast.parse((SOURCE / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{each.name}"
                for each in node.body
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return names


def packages() -> set[str]:
    """Return the packages and the one module that stand in layers."""
    found = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    return found | {path.stem for path in SOURCE.glob("*.py")} - {"__init__"}


def test_the_drawing_is_the_import_contract() -> None:
    contract = tomllib.loads(page("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]
    (drawing,) = [text for language, text in fences(page(PAGE)) if language == "text"]
    drawn = [re.split(r"\s{2,}", line)[0] for line in drawing.splitlines()]
    assert drawn == contract["layers"]


def test_every_package_has_its_line() -> None:
    lines = [codes(row[0])[0] for row in rows(sections(page(PAGE))["Layers"])]
    assert sorted(lines) == sorted(packages())


@pytest.mark.parametrize(
    "item", [i for i in items(page(PAGE)) if any(map(FILE.fullmatch, codes(i)))]
)
def test_files_and_functions_exist(item: str) -> None:
    named = codes(item)
    files = [code for code in named if FILE.fullmatch(code)]
    for file in files:
        assert (SOURCE / file).is_file(), f"{file} is not there"
    known: set[str] = set().union(*(defined(file) for file in files if file.endswith(".py")))
    functions = {c for c in named if NAME.fullmatch(c) and c not in WORDS and c not in files}
    assert functions <= known, f"not defined in {files}: {sorted(functions - known)}"


def test_the_walks_are_there_and_name_functions_step_by_step() -> None:
    walks = {name: text for name, text in sections(page(PAGE)).items() if "file to file" in name}
    assert len(walks) >= 5
    for text in walks.values():
        steps = [item for item in items(text) if re.match(r"\d+\. ", item)]
        assert len(steps) >= 5
        assert all(any(map(FILE.fullmatch, codes(step))) for step in steps)


REFERENCE = re.compile(
    r"(?i)(?:(key[ -]hierarchy|wire contract),?\s+sections? (\d)(?: and (\d))?"
    r"|section (\d) of the (wire contract|key hierarchy))"
)
HOME = {"key hierarchy": "docs/key-hierarchy.md", "wire contract": "docs/reference/wire.md"}


def test_what_code_refers_to_is_there() -> None:
    """Docstrings name sections of the key hierarchy and the wire contract: each must exist."""
    found: set[tuple[str, str]] = set()
    for path in sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "test").rglob("*.py")]):
        text = re.sub(r"\s+#?\s*", " ", path.read_text(encoding="utf-8"))
        for name, one, two, other, what in REFERENCE.findall(text):
            thing = (name or what).lower().replace("-", " ")
            found |= {(thing, number) for number in (one, two, other) if number}
    assert len(found) > 5
    for thing, number in sorted(found):
        assert any(h.startswith(f"{number}. ") for h in sections(page(HOME[thing]))), (
            thing,
            number,
        )
