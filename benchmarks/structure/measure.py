"""How the package is built, in numbers: `python benchmarks/structure/measure.py [CHECKOUT...]`.

Rooms are what `ls edgekd` shows; a floor is the length of the longest chain of imports below a room
(rooms in a cycle share one). Counts are read from the source; nothing is imported.
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2] / "tests" / "support")]

from dated import write_result  # noqa: E402
from imports import cycles, floors, module_graph, room_graph  # noqa: E402

LONG, MANY = 40, 7


def functions(root: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a package."""
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many a caller may give; `self` and `cls` do not count, a command's options do."""
    args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([arg for arg in args if arg.arg not in ("self", "cls")])


def local_imports(node: ast.AST) -> int:
    """Import statements of the package itself inside a function."""
    found = (
        each.module if isinstance(each, ast.ImportFrom) else each.names[0].name
        for each in ast.walk(node)
        if isinstance(each, ast.ImportFrom | ast.Import)
    )
    return sum((name or "").startswith("edgekd") for name in found)


def condensed(graph: dict[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """The graph with every cycle as one node."""
    name = {node: group[0] for group in cycles(graph) for node in group}
    merged: dict[str, set[str]] = {}
    for node, others in graph.items():
        own = name.get(node, node)
        merged.setdefault(own, set()).update({name.get(other, other) for other in others} - {own})
    return {node: frozenset(others) for node, others in merged.items()}


def measured(checkout: Path) -> dict[str, int]:
    """The table's column for one checkout."""
    root = checkout / "edgekd"
    modules = module_graph(root)
    rooms = room_graph(modules)
    every = list(functions(root))
    sources = list(root.rglob("*.py"))
    return {
        "rooms": len(rooms),
        "floors": max(floors(condensed(dict(rooms))).values()),
        "import arrows between rooms": sum(map(len, rooms.values())),
        "cycles of rooms": len(cycles(rooms)),
        "cycles of modules": len(cycles(modules)),
        f"functions over {LONG} lines": sum(
            (node.end_lineno or 0) - node.lineno + 1 > LONG for node in every
        ),
        f"functions with more than {MANY} parameters": sum(
            parameters(node) > MANY for node in every
        ),
        "function-local imports of own modules": sum(map(local_imports, every)),
        "modules": len(sources),
        "lines": sum(len(path.read_text(encoding="utf-8").splitlines()) for path in sources),
    }


def main() -> None:
    """Print a column for each checkout; with --out, write them with the date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[HERE.parents[2]])
    parser.add_argument("--names", nargs="*", help="one for each checkout")
    parser.add_argument("--write", action="store_true", help="write them beside this script")
    given = parser.parse_args()
    names = given.names or [path.name for path in given.checkouts]
    columns = {name: measured(path) for name, path in zip(names, given.checkouts, strict=True)}
    for row in next(iter(columns.values())):
        print(f"{row:45}", *(f"{column[row]:>9,}" for column in columns.values()))
    if given.write:
        write_result(__file__, {"what": "how the package is built", "checkouts": columns})


if __name__ == "__main__":
    main()
