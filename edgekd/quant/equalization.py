"""Cross-layer equalization: channels of two successive layers share the range of their weights.

Nagel et al. 2019 (arXiv:1906.04721), equations 10 to 12: between two layers a channel may be
divided by s > 0 in the first and multiplied by s in the second, if what is between is positively
homogeneous, f(s x) = s f(x). With s_i = sqrt(r1_i / r2_i), where r are the largest weights of
channel i, both become sqrt(r1_i r2_i), and one scale for the whole tensor suits every channel.
Chains of more than two layers (depthwise convolutions) are equalized pair by pair until nothing
changes.

A ReLU6 is not homogeneous. Where the samples never reach 6 it is replaced by a ReLU; where they do,
the pair is left alone, unless the user wants it replaced.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx

from edgekd.network.fx_names import layer_of
from edgekd.quant.batches import batches
from edgekd.quant.channel_scaling import (
    has_own_weight,
    input_channels,
    input_ranges,
    output_ranges,
    scale_inputs,
    scale_outputs,
)
from edgekd.quant.clamps import clamp_bounds
from edgekd.quant.fixed_grids import PADS, pad_value
from edgekd.quant.watching import watch
from edgekd.values.tree import Tree

aten = torch.ops.aten

Equalize = Literal[False, True, "replace-relu6"]
"""Whether layers are equalized: "replace-relu6" also where samples reach the 6, which changes the
network."""

_SWEEPS = 30
_SETTLED = 1e-3

_OF_NUMBERS = {
    aten.relu.default,
    aten.relu_.default,
    aten.leaky_relu.default,
    aten.leaky_relu_.default,
    aten.contiguous.default,
    aten.clone.default,
}
"""Functions of each number alone with f(s x) = s f(x) for s > 0."""

_OF_CHANNELS = {
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_bilinear2d.vec,
}
"""Functions of each channel of an image or a sequence (N, C, ...) alone."""

_RELU6 = {
    aten.relu6.default,
    aten.relu6_.default,
    aten.hardtanh.default,
    aten.hardtanh_.default,
    aten.clamp.default,
}
_FLATTENING = {aten.flatten.using_ints, aten.view.default, aten.reshape.default}


@dataclass(frozen=True)
class Pair:
    """Two layers and what is between: `repeats` inputs of the second belong to each channel of the
    first, and `clamps` are the ReLU6 on the way."""

    first: fx.Node
    second: fx.Node
    repeats: int
    clamps: tuple[fx.Node, ...]

    @property
    def name(self) -> str:
        """Both layers' names."""
        return f"{layer_of(self.first)} and {layer_of(self.second)}"


def pairs_of(graph: fx.GraphModule) -> list[Pair]:
    """The pairs of layers of a float graph between which channels can be scaled."""
    found = (_pair(graph, node) for node in graph.graph.nodes if has_own_weight(node))
    return [pair for pair in found if pair is not None]


def _pair(graph: fx.GraphModule, first: fx.Node) -> Pair | None:
    channels = len(output_ranges(graph, first))
    clamps: list[fx.Node] = []
    node, flattened = first, first.meta["val"].dim() == 2
    while len(node.users) == 1:
        node, before = next(iter(node.users)), node
        if has_own_weight(node) and node.args[0] is before:
            inputs = input_channels(graph, node)
            fits = _keeps_channels(first, node, flattened) and inputs % channels == 0
            repeats = inputs // channels
            allowed = repeats == 1 or flattened
            return Pair(first, node, repeats, tuple(clamps)) if fits and allowed else None
        if upper(node) == 6.0:
            clamps.append(node)
        elif _is_of_numbers(node):
            continue
        elif first.target is aten.linear.default or node.op != "call_function":
            return None
        elif _flattens(node, before):
            flattened = True
        elif not _is_of_channels(node):
            return None
    return None


def _keeps_channels(first: fx.Node, second: fx.Node, flattened: bool) -> bool:
    """Whether the second layer's channels are in the dimension in which the first writes them."""
    linear = [layer.target is aten.linear.default for layer in (first, second)]
    return linear[0] == linear[1] or (linear[1] and flattened)


def _is_of_numbers(node: fx.Node) -> bool:
    return node.target in _OF_NUMBERS or (node.target in _RELU6 and upper(node) is None)


def _is_of_channels(node: fx.Node) -> bool:
    if node.target in PADS:
        return pad_value(node) == 0.0
    if node.target is aten.mean.dim:
        value: Any = node.args[0]
        dims = [dim % value.meta["val"].dim() for dim in node.args[1]]  # type: ignore[union-attr]
        keeps = len(node.args) > 2 and bool(node.args[2])
        return all(dim >= 2 for dim in dims) and (keeps or value.meta["val"].dim() - len(dims) == 2)
    return node.target in _OF_CHANNELS


def upper(node: fx.Node) -> float | None:
    """The end of a clamp between 0 and a number; None for one without an upper end that starts at
    0; infinity for anything else."""
    bounds = clamp_bounds(node) if node.target in _RELU6 else None
    return bounds[1] if bounds is not None and bounds[0] == 0 else float("inf")


def _flattens(node: fx.Node, source: fx.Node) -> bool:
    """Whether (N, C, ...) becomes (N, C * ...), each channel's numbers side by side."""
    if node.target not in _FLATTENING:
        return False
    before, after = source.meta["val"], node.meta["val"]
    return after.dim() == 2 and before.dim() > 2 and str(before.shape[0]) == str(after.shape[0])


def equalize(graph: fx.GraphModule, samples: Tree, choice: Equalize) -> list[str]:
    """Equalize the weights of a float graph in place; notes say what was done and what was not."""
    pairs = pairs_of(graph)
    reached = _reached(graph, [clamp for pair in pairs for clamp in pair.clamps], samples)
    clipping = [pair for pair in pairs if any(reached[clamp.name] for clamp in pair.clamps)]
    left = [] if choice == "replace-relu6" else clipping
    chosen = [pair for pair in pairs if pair not in left]
    for pair in chosen:
        for clamp in pair.clamps:
            _as_relu(graph, clamp)
    for _ in range(_SWEEPS):
        if max([_equalized(graph, pair) for pair in chosen], default=0.0) < _SETTLED:
            break
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return list(_notes(pairs, chosen, clipping, reached))


def _notes(
    pairs: list[Pair], chosen: list[Pair], clipping: list[Pair], reached: dict[str, float]
) -> Iterator[str]:
    replaced = {clamp.name for pair in chosen for clamp in pair.clamps}
    yield f"{len(chosen)} of {len(pairs)} pairs of layers equalized" + (
        f", {len(replaced)} ReLU6 replaced by ReLU" if replaced else ""
    )
    if not clipping:
        return
    worst = max(reached[clamp.name] for pair in clipping for clamp in pair.clamps)
    shown = ", ".join(pair.name for pair in clipping[:3]) + (", ..." if clipping[3:] else "")
    if clipping[0] in chosen:
        yield f"their ReLU6 clips up to {worst:.2%} of the values, and ReLU does not: {shown}"
    else:
        yield (
            f"{len(clipping)} pairs are left alone, whose ReLU6 clips up to {worst:.2%} of the "
            f'values ({shown}); equalize = "replace-relu6" replaces it'
        )


def _equalized(graph: fx.GraphModule, pair: Pair) -> float:
    """Equalize one pair; the largest |log s|."""
    first = output_ranges(graph, pair.first)
    second = input_ranges(graph, pair.second).view(-1, pair.repeats).amax(1)
    used = (first > 0) & (second > 0)
    factor = torch.where(used, (first / second.clamp_min(1e-30)).sqrt(), torch.ones_like(first))
    scale_outputs(graph, pair.first, 1.0 / factor)
    scale_inputs(graph, pair.second, factor.repeat_interleave(pair.repeats))
    return float(factor.log().abs().max())


def _as_relu(graph: fx.GraphModule, clamp: fx.Node) -> None:
    clamp.target, clamp.args, clamp.kwargs = aten.relu.default, clamp.args[:1], {}


def _reached(graph: fx.GraphModule, clamps: list[fx.Node], samples: Tree) -> dict[str, float]:
    """The share of each clamp's inputs that lie above its upper end."""
    counts: dict[str, tuple[int, int]] = {clamp.name: (0, 0) for clamp in clamps}
    readers: dict[Any, set[fx.Node]] = {}
    for clamp in clamps:
        readers.setdefault(clamp.args[0], set()).add(clamp)

    def see(source: fx.Node, value: Tensor) -> None:
        for clamp in readers[source]:
            above, total = counts[clamp.name]
            beyond = int((value > (upper(clamp) or 0.0)).sum())
            counts[clamp.name] = above + beyond, total + value.numel()

    watch(graph, batches(samples), readers, see)
    return {name: above / max(1, total) for name, (above, total) in counts.items()}
