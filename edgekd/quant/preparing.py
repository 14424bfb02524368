"""Prepares a module's graph for calibration or training. It makes the choices that depend on
samples: the finite value that replaces a padding of -inf, and the concatenations whose inputs
differ too much in size for one grid.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from edgekd.quant import ops
from edgekd.quant.clamps import clamp_bounds
from edgekd.quant.coarse_softmax import free_softmax
from edgekd.quant.decomposing import decompose
from edgekd.quant.export import export_graph
from edgekd.quant.export_check import check_exported
from edgekd.quant.fine_averages import FEWEST_LEVELS, averages, convolve
from edgekd.quant.fixed_grids import (
    PADS,
    free_from_fixed_grids,
    has_fixed_grids,
    insert_regrid,
    pad_value,
)
from edgekd.quant.functional import slice_splits
from edgekd.quant.masks import fit_masks
from edgekd.quant.operands import make_operands_tensors
from edgekd.quant.post_training import DEFAULTS, PostTraining
from edgekd.quant.rebalancing import rebalance
from edgekd.quant.regions import integer_nodes, is_float, is_weighted
from edgekd.quant.residual_sums import coarse_sums
from edgekd.quant.value_statistics import ValueStatistics
from edgekd.quant.watching import watch
from edgekd.quant.wide_layers import wide_nodes
from edgekd.values.target import Scheme
from edgekd.values.tree import Tree, rows

aten = torch.ops.aten

NOTES = "quantization_notes"
"""The key of a quantized graph's `meta` that holds notes for the user."""

_MAX_POOLS = {aten.max_pool1d.default, aten.max_pool2d.default}
_FEWEST_LEVELS = 32
"""The levels of a common 256-level grid that each input must at least use."""

_MEASURED = 64
"""The number of samples on which ranges are compared."""


@dataclass(frozen=True)
class Prepared:
    """A float graph, the names of operators that stay in float (`apart`), and `notes`. Statistics
    of its values are kept in `statistics`, if that is given, for graphs that are made later."""

    graph: fx.GraphModule
    apart: tuple[str, ...]
    notes: tuple[str, ...]
    statistics: dict[str, ValueStatistics] | None = None


def prepare_graph(
    module: nn.Module,
    example: Tree,
    samples: Tree,
    scheme: Scheme,
    where: str,
    strict: bool = False,
    choices: PostTraining = DEFAULTS,
) -> Prepared:
    """Export a module and make the choices that depend on `samples` (N, ...) and the scheme, after
    weights were moved between layers as `choices` say. If `strict`, nothing stays in float for the
    sake of accuracy; the notes say what it costs.

    Raises `ToolError` if the graph computes something else than the module on the samples.
    """
    graph = export_graph(module, example, where)
    slice_splits(graph)
    decompose(graph, strict)
    make_operands_tensors(graph)
    check_exported(graph, module, samples, where)
    divisions, moved = rebalance(graph, module, samples, choices, strict, where)
    fit_masks(graph, rows(samples, slice(0, _MEASURED)))
    fine = wide_nodes(graph, choices.wide)
    made = _prepared(graph, samples, scheme, strict, fine)
    return Prepared(graph, (*made.apart, *divisions), (*moved, *made.notes))


def _prepared(
    graph: fx.GraphModule, samples: Tree, scheme: Scheme, strict: bool, fine: Collection[fx.Node]
) -> Prepared:
    """What computes in 16 bits (`fine`) needs no exception."""
    _convolve_small_averages(graph, samples, fine)
    pads = [node for node in graph.graph.nodes if _feeds_max_pools(node)]
    joins = [n for n in integer_nodes(graph) if n.target in ops.JOINED and is_float(n)]
    wanted: list[Any] = [node.args[0] for node in pads]
    for node in joins:
        wanted += ops.joined_by(node)
    ranges = _ranges(graph, wanted, rows(samples, slice(0, _MEASURED))) if wanted else {}
    for node in pads:
        _fit_pad(node, ranges[node.args[0]][0])
    graph.recompile()
    apart, notes = _uneven([node for node in joins if node not in fine], ranges, strict)
    joins = [node for node in joins if node.name not in apart]
    for node in joins:
        _keep_small_levels(graph, node, ranges)
        _keep_clamps_fused(graph, node)
    if has_fixed_grids(scheme):
        if not strict:
            notes += free_softmax(graph, rows(samples, slice(0, _MEASURED)), fine)
        free_from_fixed_grids(graph, joins)
    if not strict:
        sums, note = coarse_sums(graph, rows(samples, slice(0, _MEASURED)), fine)
        apart, notes = (*apart, *sums), (*notes, *note)
    return Prepared(graph, apart, notes)


def _convolve_small_averages(
    graph: fx.GraphModule, samples: Tree, fine: Collection[fx.Node]
) -> None:
    """Give averages that are small beside what they read a grid of their own."""
    chosen = integer_nodes(graph)
    pools = [node for node in averages(graph) if node in chosen and node not in fine]
    if not pools:
        return
    wanted = [*pools, *(node.args[0] for node in pools)]
    ranges = _ranges(graph, wanted, rows(samples, slice(0, _MEASURED)))
    small = [
        node
        for node in pools
        if 0 < _span(ranges[node]) * 256 < _span(ranges[node.args[0]]) * FEWEST_LEVELS
    ]
    for node in small:
        convolve(graph, node)
    graph.recompile()


def _feeds_max_pools(node: fx.Node) -> bool:
    if node.target not in PADS or not node.users:
        return False
    return all(user.target in _MAX_POOLS for user in node.users)


def _fit_pad(node: fx.Node, least: float) -> None:
    """Pad with the least value instead of -inf: max pooling never picks either."""
    if pad_value(node) >= least:
        return
    arguments: list[Any] = list(node.args)
    if node.target is aten.pad.default:
        mode = arguments[2] if len(arguments) > 2 else node.kwargs.get("mode", "constant")
        node.args, node.kwargs = (*arguments[:2], mode, least), {}
    else:
        node.args, node.kwargs = (*arguments[:2], least), {}


def _ranges(
    graph: fx.GraphModule, wanted: list[Any], samples: Tree
) -> dict[Any, tuple[float, float]]:
    """The smallest and the largest value of each node."""
    found: dict[Any, tuple[float, float]] = {}

    def see(node: fx.Node, value: torch.Tensor) -> None:
        finite = value[value.isfinite()]
        found[node] = (float(finite.min()), float(finite.max())) if len(finite) else (0, 0)

    watch(graph, [samples], wanted, see)
    return found


def _uneven(
    joins: list[fx.Node], ranges: dict[Any, tuple[float, float]], strict: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Concatenations of values whose sizes differ too much for one grid, and the notes about
    them."""
    apart, notes = [], []
    for node in joins:
        parts = ops.joined_by(node)
        spans = [_span(ranges[part]) for part in parts]
        largest, least = max(spans), min((span for span in spans if span > 0), default=0.0)
        if node.target in ops.CHOOSING or least * 256 >= largest * _FEWEST_LEVELS:
            continue
        ratio = (
            f"'{node.name}' joins values that differ in size by a factor of {largest / least:.0f}"
        )
        if strict or _reaches_layer(node):
            notes.append(f"{ratio}: on one int8 grid the small ones have few levels left")
        else:
            apart.append(node.name)
            notes.append(f"{ratio}: they are joined in float, each part on its own grid")
    return tuple(apart), tuple(notes)


def _keep_clamps_fused(graph: fx.GraphModule, node: fx.Node) -> None:
    """Give clamped values that are concatenated with signed ones their own grid, starting at zero.
    On the common grid zero is not the smallest value, and kernels that clamp by saturating the
    output, as ONNX Runtime's do, would leave layer and clamp in float.
    """
    parts = ops.joined_by(node)
    clamped = [part for part in parts if _clamps_at_zero(part)]
    if len(clamped) == len(parts):
        return
    for part in clamped:
        insert_regrid(graph, part, node)


def _keep_small_levels(
    graph: fx.GraphModule, node: fx.Node, ranges: dict[Any, tuple[float, float]]
) -> None:
    """Let values that are small beside those they share a grid with keep their own for the other
    operators that read them."""
    parts = ops.joined_by(node)
    largest = max(_span(ranges[part]) for part in parts)
    for part in parts:
        few = _span(ranges[part]) * 256 < largest * _FEWEST_LEVELS
        if few and len(part.users) > 1:
            insert_regrid(graph, part, node)


def _span(ends: tuple[float, float]) -> float:
    """The size of a range with zero in it."""
    return max(ends[1], 0.0) - min(ends[0], 0.0)


def _clamps_at_zero(node: fx.Node) -> bool:
    while node.target in ops.SHARED and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    if node.target is aten.cat.default:  # as a shuffle of channels joins them again and again
        return all(map(_clamps_at_zero, ops.joined_by(node)))
    bounds = clamp_bounds(node)
    return bounds is not None and bounds[0] == 0


def _reaches_layer(node: fx.Node) -> bool:
    waiting, seen = list(node.users), set()
    while waiting:
        user = waiting.pop()
        if is_weighted(user):
            return True
        if user not in seen:
            seen.add(user)
            waiting.extend(user.users)
    return False
