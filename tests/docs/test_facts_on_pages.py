"""Paths, exit codes and names on the pages are those of the code."""

import re

import pytest
from imports import floors, module_graph, room_graph
from pages import PAGES, README, ROOT

from edgekd.cli import CLOSED_PIPE, INTERRUPTED
from edgekd.errors import InputError, ToolError
from edgekd.measure.budgets import EXIT_CODES
from edgekd.values.target import target_files

PATH = re.compile(r"`((?:edgekd|tests|examples|benchmarks|docs|targets|\.ci)/[\w./-]+)`")
EXAMPLES = {"docs/NAME.md", "targets/"}


@pytest.mark.parametrize("page", [README, ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda p: p.stem)
def test_every_path_that_a_page_names_is_there(page):
    named = set(PATH.findall(page.read_text(encoding="utf-8"))) - EXAMPLES
    gone = [path for path in named if "NAME" not in path and not (ROOT / path).exists()]
    assert gone == []


def test_the_exit_codes_on_the_page_are_those_of_the_code():
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    codes = {*EXIT_CODES.values(), InputError.exit_code, ToolError.exit_code}
    assert rows == {*codes, INTERRUPTED, CLOSED_PIPE}


def test_the_page_on_targets_has_every_target():
    page = (ROOT / "docs/targets.md").read_text(encoding="utf-8")
    assert [name for name in target_files() if f"`{name}`" not in page] == []


def test_the_page_on_diagnostics_has_every_diagnostic():
    from edgekd.registry import DIAGNOSTICS

    page = (ROOT / "docs/diagnostics.md").read_text(encoding="utf-8")
    assert [name for name in DIAGNOSTICS.names() if f"| `{name}` |" not in page] == []


def test_the_pages_on_tasks_schemes_and_criteria_have_every_one():
    from edgekd.registry import CRITERIA, SCHEMES, TASKS

    for registry, name in ((TASKS, "tasks"), (SCHEMES, "schemes"), (CRITERIA, "compression")):
        page = (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
        assert [method for method in registry.names() if f"`{method}`" not in page] == []


def test_the_folders_of_the_architecture_page_are_all_of_them_from_top_to_bottom():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("## Folders")[1]
    rows = [
        re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE)
    ]
    floor = floors(room_graph(module_graph()))
    named = [name for row in rows for name in row]
    assert sorted(named) == sorted(name for name in floor if not name.startswith("__"))
    heights = [floor[name] for name in named]
    assert heights == sorted(heights, reverse=True)


def test_the_page_on_finished_files_has_every_operator_that_converts():
    from edgekd.network.onnx_module.coverage import covered

    page = (ROOT / "docs/finished-files.md").read_text(encoding="utf-8")
    listed = page.split("These operators convert:")[1].split("\n\n")[1]
    assert re.findall(r"`(\w+)`", listed) == list(covered())
