"""The page of proofs holds what ran and exists, and replacing a part of it leaves nothing of before."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

import pytest
from tool.proof import Row, merged, page_of, rows_of, rows_of_page

from doc_kit import ROOT, page

PAGE = page("docs/reference/proof.md")
ROWS = rows_of_page(PAGE)
OLD = Row("fuzz a", "1,000", "fine", "", "2026-01-02", "0123456789ab", "test/a.py::test_a")


def test_the_page_is_what_the_tool_writes() -> None:
    assert len(ROWS) > 100
    assert page_of(sorted(ROWS, key=lambda row: (row.name, row.test))) == PAGE
    for row in ROWS:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", row.date), row
        assert re.fullmatch(r"[0-9a-f]{12}", row.commit), row
        assert re.fullmatch(r"[\d,]+", row.count), row
        assert row.seed == "" or row.seed.isdigit(), row


@pytest.mark.parametrize("test", sorted({row.test.partition("[")[0] for row in ROWS}))
def test_a_proof_is_of_a_test_that_records_it(test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in tree.body if isinstance(node, kinds) and node.name == name]
    assert found, f"{test} is not there any more"
    calls = [ast.unparse(n.func) for n in ast.walk(found[0]) if isinstance(n, ast.Call)]
    assert "record" in calls, f"{test} records nothing"


def test_a_row_is_read_back_as_it_was_written() -> None:
    odd = replace(OLD, name="one | two", seed="7", test="test/a.py::test_a[x|y z]")
    assert rows_of_page(page_of([OLD, odd])) == [OLD, odd]


def test_a_record_becomes_a_row() -> None:
    entry = {"name": "n", "count": 12000, "result": "r", "seed": None, "test": "t"}
    told = rows_of([entry, entry | {"seed": 5}], "c", "d")
    assert [row.seed for row in told] == ["", "5"]
    assert told[0].count == "12,000"


def test_a_test_that_ran_again_leaves_no_row_of_before() -> None:
    renamed = replace(OLD, name="fuzz/a", commit="ba9876543210")
    assert merged([OLD, replace(OLD, name="fuzz b")], [renamed], {OLD.test}) == [renamed]


def test_rows_of_tests_that_did_not_run_stay_and_of_those_that_are_gone_do_not() -> None:
    other, gone = replace(OLD, test="test/b.py::test_b"), replace(OLD, test="test/c.py::test_c")
    new = replace(OLD, date="2026-02-02")
    assert merged([OLD, other, gone], [new], {OLD.test, other.test}) == [new, other]
