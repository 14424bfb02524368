"""Imports point down only, which is read from the imports themselves."""

from pathlib import Path

import pytest
from imports import ROOT, cycles, floors, module_graph, room_graph

# Within these packages each file is one method, and no method knows another.
SIBLINGS = (
    "stages", "training.losses", "training.schedules", "stages.prune.criteria",
    "stages.distill.schemes", "backends", "measure.diagnostics",
    "network.sources",
)  # fmt: skip


def test_no_room_imports_one_that_imports_it():
    assert cycles(room_graph(module_graph())) == []


def test_no_module_imports_one_that_imports_it():
    assert cycles(module_graph()) == []


def test_the_house_has_few_rooms_on_few_floors():
    rooms = room_graph(module_graph())
    assert len(rooms) <= 30
    assert max(floors(rooms).values()) <= 12


def test_a_room_that_imports_upward_is_found():
    graph = {"cli": frozenset({"run"}), "run": frozenset({"values", "cli"}), "values": frozenset()}
    assert cycles(graph) == [["cli", "run"]]
    assert floors({"a": frozenset({"b"}), "b": frozenset({"c"}), "c": frozenset()})["a"] == 3


def test_a_room_of_any_other_program_may_be_read(tmp_path: Path):
    root = tmp_path / "package"
    (root / "low").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "low" / "__init__.py").write_text("if True:\n    from package import high\n")
    (root / "high.py").write_text("import package.low\n")
    assert cycles(room_graph(module_graph(root))) == [["high", "low"]]


@pytest.mark.parametrize("package", SIBLINGS)
def test_siblings_do_not_import_each_other(package: str):
    """Files that begin with an underscore, and those of a method's own folder, are its own."""
    prefix = f"edgekd.{package}."
    members = {
        path.stem if path.suffix else path.name
        for path in ROOT.joinpath(*package.split(".")).iterdir()
        if not path.name.startswith("_")
    }
    for module, imports in module_graph().items():
        if not module.startswith(prefix):
            continue
        own = module.removeprefix(prefix).split(".")[0]
        others = {
            each.removeprefix(prefix).split(".")[0] for each in imports if each.startswith(prefix)
        }
        assert (others & members) - {own} == set(), module
