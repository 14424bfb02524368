"""What each layer of a quantized graph adds to the error by itself, bias and constants included.

The quantized graph runs with the reference's values on every grid that it writes, so that errors
don't add up: what differs after a layer is the layer's own (as in `edgekd.measure.divergence`).
What its bits can give is measured too: the float graph runs with ideal grids, whose ranges are
exactly those of the values (Jacob et al. 2018, section 3), under the same rule. A layer's noise
hence needs no model of its inputs, unlike 6.02 b + 1.76 dB (Bennett 1948), which holds for a
full-scale sine alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from edgekd.errors import ToolError
from edgekd.network.fx_names import layer_of
from edgekd.quant import ops
from edgekd.quant.bias_correction import shifted
from edgekd.quant.common_grids import grid_groups
from edgekd.quant.fixed_grids import fixed_grid, has_fixed_grids
from edgekd.quant.layer_noise import (
    GOOD_DB,
    MARGIN_DB,
    LayerNoise,
    has_integers,
    ideal_weight,
    signal_to_noise,
)
from edgekd.quant.masks import hides
from edgekd.quant.regions import is_weighted
from edgekd.quant.rewrite import DEQUANTIZE, QUANTIZE, is_weight
from edgekd.quant.wide_layers import WIDE_LIMIT
from edgekd.values.target import Scheme
from edgekd.values.tree import Tree, mapped, rows

FLOOR_DB = 15.0
"""Below this a layer is wrong, if its bits can give `BEYOND_DB` more: noise of 18 %, and more than
five times what rounding explains. Clipped ranges that training or the user chose lie above it."""

BEYOND_DB = 15.0

FINEST = 6.4e-6
"""Values on a grid of finer steps are next to nothing and not judged, such as those of a layer
scale before training: NNCF makes every range at least 0.0016 wide."""

_SAMPLES = 16


def own_noises(
    reference: fx.GraphModule,
    quantized: fx.GraphModule,
    samples: Tree,
    scheme: Scheme,
    *,
    clips: bool = False,
    shifts: Mapping[str, Tensor] = {},
) -> list[LayerNoise]:
    """The noise of each value that a quantized graph puts on a grid, and of its output.

    `reference` is the float graph or the fake-quantized one, whose nodes have the same names;
    `samples` are (N, ...), of which the first 16 count. Where the grids clip on purpose, which
    `clips` says, they count as ideal. `shifts` (C,) by node name are what bias correction added to
    make up for the layers before: they are no noise.
    """
    x = rows(samples, slice(0, _SAMPLES))
    values = _values(reference, quantized, x)
    possible = _Ideal(reference, quantized, values, scheme, clips)
    found = _Forced(quantized, values, shifts)
    with torch.no_grad():
        possible.run(mapped(torch.clone, x))
        found.run(mapped(torch.clone, x))
    return [
        LayerNoise(found.layers[name], noise, possible.noises[name])
        for name, noise in found.noises.items()
        if name in possible.noises
        and not _is_next_to_nothing(found.written.get(name))
        and not _spans_next_to_nothing(values.get(name))
    ]


def check_noises(
    noises: Sequence[LayerNoise], scheme: Scheme, where: str = "quantize"
) -> tuple[str, ...]:
    """A note on each layer far under what its bits can give. Raises `ToolError` for layers that are
    wrong: under `FLOOR_DB`, and `BEYOND_DB` under what their bits can give."""
    wrong = [each for each in noises if each.found < min(FLOOR_DB, each.possible - BEYOND_DB)]
    if wrong:
        raise ToolError(
            f"the quantized graph is wrong in {_listed(wrong, scheme)}",
            where=where,
            hint="this is a fault of the conversion, not of the training: please report the layer",
        )
    weak = [each for each in noises if each.found < min(GOOD_DB, each.possible - MARGIN_DB)]
    return (f"coarse: {_listed(weak, scheme)}",) if weak else ()


def _is_next_to_nothing(quantize: fx.Node | None) -> bool:
    return quantize is not None and float(quantize.args[1]) <= FINEST  # type: ignore[arg-type]


def _spans_next_to_nothing(value: Tensor | None) -> bool:
    """Whether a value's own grid would be that fine: beside others, on theirs, nothing is left."""
    if value is None or not value.numel():
        return False
    finite = value[value.isfinite()]
    return not len(finite) or float(finite.max() - finite.min()) / 255 <= FINEST


def _listed(noises: Sequence[LayerNoise], scheme: Scheme) -> str:
    shown = [
        f"{each.layer} {each.found:.0f} dB where {scheme.weight_bits} bits give {each.possible:.0f}"
        for each in noises[:4]
    ]
    more = f" and {len(noises) - 4} more" if len(noises) > 4 else ""
    return ", ".join(shown) + more


def _written(quantized: fx.GraphModule) -> dict[str, fx.Node]:
    """The first quantize node of each value that goes onto a grid, by the value's name; constants
    are no values."""
    nodes: dict[str, fx.Node] = {}
    for node in quantized.graph.nodes:
        if node.target in QUANTIZE and not is_weight(node):
            nodes.setdefault(node.args[0].name, node)
    return nodes


def _ends(graph: fx.GraphModule) -> set[str]:
    """The names of the graph's outputs, those on a grid by what was put there."""
    output = next(node for node in graph.graph.nodes if node.op == "output")
    return {node.name for node in output.all_input_nodes}


def _values(reference: fx.GraphModule, quantized: fx.GraphModule, x: Tree) -> dict[str, Tensor]:
    """The reference's values that the quantized graph puts on a grid or returns, by node."""
    wanted = set(_written(quantized)) | _ends(quantized)
    values: dict[str, Tensor] = {}

    class Kept(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if n.name in wanted and isinstance(result, Tensor) and result.is_floating_point():
                values[n.name] = result.clone()
            return result

    with torch.no_grad():
        Kept(reference).run(mapped(torch.clone, x))
    return values


class _Forced(fx.Interpreter):
    """Runs the quantized graph, each grid filled with the reference's value, without the shifts of
    its biases."""

    def __init__(
        self, graph: fx.GraphModule, values: dict[str, Tensor], shifts: Mapping[str, Tensor]
    ) -> None:
        super().__init__(graph)
        self.values, self.ends, self.written = values, _ends(graph), _written(graph)
        self.shifts = shifts
        self.noises: dict[str, float] = {}
        self.layers: dict[str, str] = {}

    def run_node(self, n: fx.Node) -> Any:
        source: Any = n.args[0] if n.target in QUANTIZE else None
        if source is None or source.name not in self.values:
            result = super().run_node(n)
            if n.name in self.shifts:
                result = shifted(n, result, -self.shifts[n.name])
            if n.name in self.ends and n.name in self.values:
                self._note(n, result)
            return result
        self._note(source, self.env[source])
        arguments: Any = self.fetch_args_kwargs_from_env(n)[0]
        return n.target(self.values[source.name], *arguments[1:])  # type: ignore[operator]

    def _note(self, node: fx.Node, value: Tensor) -> None:
        if node.op != "placeholder":
            if hides(node):
                return  # masked scores are far from the others; the softmax says what is lost
            self.noises[node.name] = signal_to_noise(self.values[node.name], value)
            self.layers[node.name] = layer_behind(node)


class _Ideal(fx.Interpreter):
    """Runs the float graph with ideal grids in the places of the quantized graph's."""

    def __init__(
        self,
        graph: fx.GraphModule,
        quantized: fx.GraphModule,
        values: dict[str, Tensor],
        scheme: Scheme,
        clips: bool,
    ) -> None:
        super().__init__(graph)
        self.values, self.scheme, self.clips = values, scheme, clips
        self.written = _written(quantized)
        self.integer = {node.name for node in quantized.graph.nodes if has_integers(node)}
        self.groups = grid_groups(graph)
        self.noises: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.name in self.integer and is_weighted(n):
            arguments, keys = self.fetch_args_kwargs_from_env(n)
            weight = ideal_weight(arguments[1].detach(), self.scheme)
            result = n.target(arguments[0], weight, *arguments[2:], **keys)  # type: ignore[operator]
        else:
            result = super().run_node(n)
        if n.name not in self.values:
            return result
        value = self.values[n.name]
        self.noises[n.name] = signal_to_noise(value, result)
        if n.name not in self.written:
            return result
        fixed = has_fixed_grids(self.scheme) and fixed_grid(n) is not None
        if self.clips or fixed or n.name in self.groups:
            return _on_grid(value, self.written[n.name])
        return _on_ideal_grid(value, self.scheme, self.written[n.name])


def _on_ideal_grid(value: Tensor, scheme: Scheme, quantize: fx.Node) -> Tensor:
    """A value rounded to the levels of a quantize node, but between its own extremes, zero among
    them."""
    low, high = value.min().clamp_max(0.0), value.max().clamp_min(0.0)
    wide = quantize.args[-1] is torch.int16
    if wide or "symmetric" in scheme.activations:
        high = torch.maximum(high, -low)
        low = -high
    steps = 2 * WIDE_LIMIT if wide else 255
    step = ((high - low) / steps).clamp_min(torch.finfo(torch.float32).tiny)
    zero = (-low / step).round()
    return ((value / step + zero).round().clamp(0, steps) - zero) * step


def _on_grid(value: Tensor, node: fx.Node) -> Tensor:
    """A value rounded to the grid of a quantize node."""
    arguments: tuple[Any, ...] = node.args
    _, step, zero, low, high, *_ = arguments
    rounded: Tensor = ((value / step + zero).round().clamp(low, high) - zero) * step
    return rounded


def layer_behind(node: fx.Node) -> str:
    """The layer with weights that computes a value, including the clamps and sums after it."""
    source: Any = node
    while isinstance(source, fx.Node) and source.target not in DEQUANTIZE:
        if source.target in ops.WEIGHTED:
            return layer_of(source)
        inputs = [each for each in source.all_input_nodes if each.op != "get_attr"]
        source = inputs[0] if len(inputs) == 1 else None
    return layer_of(node)
