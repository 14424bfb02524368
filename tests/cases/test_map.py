"""The table of cases names a test for every row, and every test that it names is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
SKIPPED = ("mark.skip(", "xfail")


def rows() -> list[list[str]]:
    """The cells of each row below a table's head."""
    lines = Path(__file__).with_name("README.md").read_text(encoding="utf-8").splitlines()
    found = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return [cells for cells in found if cells[0] not in ("what", "---")]


@cache
def defined_in(file: str) -> dict[str, str]:
    """The tests of a file, each with the text of its decorators."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {
        part.name: " ".join(map(ast.unparse, part.decorator_list))
        for part in ast.walk(tree)
        if isinstance(part, ast.FunctionDef) and part.name.startswith("test_")
    }


NAMES = sorted({each for row in rows() for each in NAMED.findall(row[2])})


def test_every_case_is_one_row_with_a_right_result_and_a_test() -> None:
    found = rows()
    assert len(found) >= 55
    assert len({cells[0] for cells in found}) == len(found)
    for cells in found:
        assert len(cells) == 3, cells[0]
        assert NAMED.search(cells[2]), cells[0]


@pytest.mark.parametrize(("file", "name"), NAMES)
def test_a_named_test_is_there_and_runs(file: str, name: str) -> None:
    assert name in defined_in(file)
    assert not any(word in defined_in(file)[name] for word in SKIPPED)
