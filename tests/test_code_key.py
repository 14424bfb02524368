"""What a cache key hashes of the code: whatever no marker takes out."""

from pathlib import Path

import pytest
from imports import ROOT, module_graph, module_name

from edgekd.store import ROLES, code_files, hash_code, role_of

JUDGES_ONLY = "edgekd.measure.budgets"
"""A plan checks and merges budgets, and results are judged by them anew in each run, never from a
store: whatever computes may import them."""

PACKAGE = "edgekd"
"""Its `__init__` only names the public API, which it imports when a name is first used."""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with a part that measures, one that presents, and one of each within those."""
    sources = {
        "__init__.py": '"""All."""\n',
        "compute.py": '"""Computes."""\n\nVALUE = 1\n',
        "kernel.c": "int value = 1;\n",
        "code.h.jinja": "int {{ name }};\n",
        "notes.txt": "no code\n",
        "show.py": '"""Shows."""\n\n# code-key: presents\n\nVALUE = 1\n',
        "devices/__init__.py": '"""Measures."""\n\n# code-key: measures\n',
        "devices/host.py": "VALUE = 1\n",
        "devices/inner/__init__.py": "VALUE = 1\n",
        "devices/inner/agent.py": "VALUE = 1\n",
        "devices/table.py": "# code-key: presents\n",
        "devices/quantize.py": "# code-key: computes\n",
    }
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    return tmp_path


def names(files: list[Path], root: Path) -> list[str]:
    return [str(file.relative_to(root)) for file in files]


def test_the_key_hashes_exactly_what_is_not_marked(package: Path):
    computing = ["__init__.py", "code.h.jinja", "compute.py", "devices/quantize.py", "kernel.c"]
    measuring = ["__init__.py", "host.py", "inner/__init__.py", "inner/agent.py"]
    assert names(code_files(package), package) == computing
    assert names(code_files(package, measured=True), package) == sorted(
        [*computing, *(f"devices/{name}" for name in measuring)]
    )


@pytest.mark.parametrize(
    ("changed", "computed", "measured"),
    [
        ("compute.py", True, True),
        ("kernel.c", True, True),
        ("code.h.jinja", True, True),
        ("devices/quantize.py", True, True),
        ("devices/host.py", False, True),
        ("devices/inner/agent.py", False, True),
        ("show.py", False, False),
        ("devices/table.py", False, False),
        ("notes.txt", False, False),
    ],
)
def test_a_change_counts_where_results_depend_on_it(
    package: Path, changed: str, computed: bool, measured: bool
):
    before = hash_code(package), hash_code(package, measured=True)
    with (package / changed).open("a") as source:
        source.write("\n")
    assert (hash_code(package) != before[0]) is computed
    assert (hash_code(package, measured=True) != before[1]) is measured


def test_a_renamed_file_changes_the_key(package: Path):
    before = hash_code(package)
    (package / "compute.py").rename(package / "computes.py")
    assert hash_code(package) != before


def test_an_unknown_role_is_refused(package: Path):
    (package / "compute.py").write_text("# code-key: present\n")
    with pytest.raises(ValueError, match="'# code-key: present' is none of computes, measures"):
        code_files(package)


def test_every_role_occurs_in_edgekd():
    assert {role_of(file, ROOT) for file in ROOT.rglob("*.py")} == set(ROLES)


@pytest.mark.parametrize("importing", ["computes", "measures"])
def test_no_result_depends_on_code_that_only_presents(importing: str):
    roles = {module_name(file): role_of(file, ROOT) for file in ROOT.rglob("*.py")}
    wrong = [
        f"{module} ({importing}) imports {imported} (presents)"
        for module, imports in module_graph().items()
        for imported in imports - {JUDGES_ONLY}
        if module != PACKAGE and roles[module] == importing and roles[imported] == "presents"
    ]
    assert wrong == []
