"""Who imports whom in the package, read from its source: modules, and rooms made of them.

A room is what `ls edgekd` shows: a folder with everything below it, or a module of its own. A floor
is a room's height: one more than the highest room that it imports.
"""

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2] / "edgekd"

Graph = Mapping[str, frozenset[str]]


def module_name(path: Path, root: Path = ROOT) -> str:
    """`edgekd.values.recipe` for edgekd/values/recipe.py, `edgekd.values` for its __init__.py."""
    parts = list(path.relative_to(root.parent).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(path: Path, modules: Iterable[str]) -> frozenset[str]:
    """The package's modules that a file names in an import statement, also inside functions and
    under TYPE_CHECKING; `from package import module` counts as the module."""
    known, found = set(modules), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in known else node.module for name in names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return frozenset(found & known)


@cache
def module_graph(root: Path = ROOT) -> Graph:
    """Every module of the package with the modules that it imports, itself left out."""
    files = {module_name(path, root): path for path in sorted(root.rglob("*.py"))}
    return {name: imported_by(path, files) - {name} for name, path in files.items()}


def room_of(module: str) -> str:
    """The part of a module's name that `ls edgekd` shows; `__init__` for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def room_graph(modules: Graph) -> Graph:
    """The same between rooms."""
    rooms: dict[str, set[str]] = {}
    for module, imports in modules.items():
        room = room_of(module)
        rooms.setdefault(room, set()).update(room_of(each) for each in imports)
    return {room: frozenset(found - {room}) for room, found in rooms.items()}


def cycles(graph: Graph) -> list[list[str]]:
    """Every group of nodes that reach each other (Tarjan's strongly connected components of more
    than one node), sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return sorted(found)


def floors(graph: Graph) -> dict[str, int]:
    """The height of every node of a graph without cycles, from 1."""

    @cache
    def height(node: str) -> int:
        return 1 + max((height(other) for other in graph[node]), default=0)

    return {node: height(node) for node in graph}
