"""Rewrites slices that are read or overwritten as concatenations, which every backend has."""

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quant.inserting import insert_call, insert_constant, replace_by

aten = torch.ops.aten

_FILLS = {aten.fill.Tensor, aten.fill.Scalar}


def rewrite_scatter(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace an overwritten slice by a concatenation of the part before, the new values and the
    rest. Slices of the result that have the same bounds read the new values themselves."""
    source, x, dim, start, end, step = _scatter_arguments(node)
    size = x.meta["val"].shape[dim]
    if not isinstance(size, int) or not isinstance(start, int):
        return
    for user in list(node.users):
        if user.target is aten.slice.Tensor and _slice_arguments(user)[1:] == (
            dim,
            start,
            end,
            step,
        ):
            replace_by(user, source)
    if not node.users:
        graph.graph.erase_node(node)
        return
    start, end = (min(max(at + size if at < 0 else at, 0), size) for at in (start, end))
    if source.target in _FILLS:
        _fill(graph, node, source, x, dim, range(start, end, step))
        return
    if step != 1:
        _interleave(graph, node, source, x, dim, range(start, end, step))
        return
    with graph.graph.inserting_before(node):
        before = _parts(graph, x, dim, 0, start)
        behind = _parts(graph, x, dim, end, size)
        replacement = _joined(graph, [*before, source, *behind], dim, node)
    node.replace_all_uses_with(replacement)
    graph.graph.erase_node(node)


def _fill(
    graph: fx.GraphModule, node: fx.Node, source: fx.Node, x: fx.Node, dim: int, rows: range
) -> None:
    """Replace rows that are filled with a number by a choice between it and x."""
    shape = [1] * x.meta["val"].dim()
    shape[dim] = x.meta["val"].shape[dim]
    filled = torch.zeros(shape, dtype=torch.bool)
    filled.movedim(dim, 0)[list(rows)] = True
    number: Any = source.args[1]
    with graph.graph.inserting_before(node):
        mask = insert_constant(graph, f"{node.name}_filled", filled, node)
        if not isinstance(number, fx.Node):
            value = torch.full((1,), float(number))
            number = insert_constant(graph, f"{node.name}_number", value, node)
        replace_by(node, insert_call(graph, aten.where.self, (mask, number, x), node))


def _interleave(
    graph: fx.GraphModule, node: fx.Node, source: fx.Node, x: fx.Node, dim: int, rows: range
) -> None:
    """Replace rows that are apart by a choice among the rows of x and the new ones."""
    size = x.meta["val"].shape[dim]
    places = torch.arange(size)
    places[list(rows)] = torch.arange(size, size + len(rows))
    with graph.graph.inserting_before(node):
        both = insert_call(graph, aten.cat.default, ([x, source], dim), node)
        chosen = insert_constant(graph, f"{node.name}_places", places, node)
        replace_by(node, insert_call(graph, aten.index_select.default, (both, dim, chosen), node))


def rewrite_select_scatter(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace an overwritten row by a concatenation of the part before, the new row and the
    rest."""
    names = ("self", "src", "dim", "index")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    x, source = given["self"], given["src"]
    value = x.meta["val"]
    dim = given["dim"] % value.dim()
    size = value.shape[dim]
    if not isinstance(size, int) or not isinstance(given["index"], int):
        return
    at = given["index"] % size
    if source.target in _FILLS:
        _fill(graph, node, source, x, dim, range(at, at + 1))
        return
    with graph.graph.inserting_before(node):
        row = graph.graph.call_function(aten.unsqueeze.default, (source, dim))
        with value.fake_mode:
            row.meta.update({**node.meta, "val": source.meta["val"].unsqueeze(dim)})
        before = _parts(graph, x, dim, 0, at)
        behind = _parts(graph, x, dim, at + 1, size)
        replacement = _joined(graph, [*before, row, *behind], dim, node)
    node.replace_all_uses_with(replacement)
    graph.graph.erase_node(node)


def rewrite_slice(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace a slice of a concatenation along the same dimension by a concatenation of its
    parts."""
    x, dim, start, end, step = _slice_arguments(node)
    size = x.meta["val"].shape[dim]
    if x.target is not aten.cat.default or step != 1 or not isinstance(size, int):
        return
    start, end = (min(max(at + size if at < 0 else at, 0), size) for at in (start, end))
    if start >= end:
        return
    with graph.graph.inserting_before(node):
        replacement = _joined(graph, _parts(graph, x, dim, start, end), dim, node)
    node.replace_all_uses_with(replacement)
    graph.graph.erase_node(node)


def rewrite_narrow(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace `narrow` by a slice, if its bounds are known."""
    x: Any = node.args[0]
    dim, start, length = (node.args[place] for place in (1, 2, 3))
    size = x.meta["val"].shape[dim]
    if all(isinstance(number, int) for number in (start, length, size)):
        start %= size
        node.target, node.args = aten.slice.Tensor, (x, dim, start, start + length)
        rewrite_slice(graph, node)


def _slice_arguments(node: fx.Node) -> tuple[Any, ...]:
    names = ("self", "dim", "start", "end", "step")
    return _indices({**dict(zip(names, node.args, strict=False)), **node.kwargs})


def _scatter_arguments(node: fx.Node) -> tuple[Any, ...]:
    names = ("self", "src", "dim", "start", "end", "step")
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    return given["src"], *_indices(given)


def _indices(given: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of a slice: the node, the non-negative dimension, start, end and step."""
    start, end = given.get("start"), given.get("end")
    return (
        given["self"],
        given.get("dim", 0) % given["self"].meta["val"].dim(),
        0 if start is None else start,
        2**63 - 1 if end is None else end,
        given.get("step", 1),
    )


def _parts(graph: fx.GraphModule, x: fx.Node, dim: int, start: int, end: int) -> list[fx.Node]:
    """Nodes whose concatenation is x[start:end] along `dim`; sees through concatenations."""
    value: Tensor = x.meta["val"]
    if start >= end:
        return []
    if (start, end) == (0, value.shape[dim]):
        return [x]
    if x.target is aten.cat.default and _cat_dim(x) == dim:
        found, offset = [], 0
        for part in x.args[0]:  # type: ignore[union-attr]
            size = part.meta["val"].shape[dim]  # type: ignore[union-attr]
            inside = max(start - offset, 0), min(end - offset, size)
            found += _parts(graph, part, dim, *inside)  # type: ignore[arg-type]
            offset += size
        return found
    sliced = graph.graph.call_function(aten.slice.Tensor, (x, dim, start, end))
    sliced.meta.update(x.meta)
    with value.fake_mode:  # type: ignore[attr-defined]
        sliced.meta["val"] = value.narrow(dim, start, end - start)
    return [sliced]


def _cat_dim(node: fx.Node) -> int:
    dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    return int(dim) % int(node.meta["val"].dim())


def _joined(graph: fx.GraphModule, parts: list[fx.Node], dim: int, like: fx.Node) -> fx.Node:
    if len(parts) == 1:
        return parts[0]
    joined = graph.graph.call_function(aten.cat.default, (parts, dim))
    joined.meta.update(like.meta)
    return joined
