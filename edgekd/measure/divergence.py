"""Where an artifact diverges from its reference: layer by layer, on the artifact's own inputs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from edgekd.measure.matching import (
    Matches,
    is_number,
    matched,
    number,
    quantizes_activation,
    reads_grid,
    reference_points,
    unseen,
)
from edgekd.network.fx_names import layer_of, module_paths
from edgekd.registry import BACKENDS
from edgekd.values.artifact import Artifact
from edgekd.values.backend_lookup import backend_of
from edgekd.values.tree import Tree, leaves

_WEIGHTED = ("conv", "linear", "addmm", "matmul", "bmm", "mm.")


@dataclass(frozen=True)
class Divergence:
    """What a look at every layer says; `clean` is whether none strays. Of a file that does not show
    its layers that is not known, so it is not clean. `shares` are those of each quantize node's
    values that differ, by the node's name."""

    sentence: str
    clean: bool = False
    shares: Mapping[str, float] = field(default_factory=dict)


def divergence_of(
    graph: fx.GraphModule, artifact: Artifact, inputs: Tree, most: float
) -> Divergence:
    """See `edgekd.measure.parity.first_difference`."""
    backend = backend_of(artifact.format)
    arrays = [tensor.numpy() for tensor in leaves(inputs)]
    seen = BACKENDS.get(backend).make().inner_tensors(artifact.path, arrays) if backend else None
    if seen is None:
        return Divergence(
            f"unknown: a {artifact.format} artifact does not expose its intermediate tensors"
        )
    points = reference_points(graph, inputs)
    matches = matched(points, seen)
    if not matches:
        return Divergence(
            f"unknown: none of the artifact's {len(seen)} quantized tensors "
            f"matches one of the reference's {len(points)}"
        )
    run = _Forced(graph, matches)
    run.run(inputs)
    beside = "from the reference on the same input"
    for each in run.differences:
        if each.lsb > most:
            return Divergence(f"{each.layer}: {each.lsb:.0f} LSB {beside}")
        if each.is_biased:
            return Divergence(f"{each.layer}: {each.bias:+.2f} LSB on average {beside}")
    furthest = max(run.differences, key=lambda each: each.lsb)
    more = len(unseen(points, matches))
    return Divergence(
        f"no single layer: each of {len(run.differences)} is within {most:g} LSB on the same "
        f"input (most: {furthest.layer}, {furthest.lsb:.0f} LSB), "
        + (f"{more} more that round are hidden in the file, " if more else "")
        + "so rounding errors accumulate or the kernels differ",
        clean=True,
        shares={each.node: each.likely_share for each in run.differences},
    )


BIAS_LSB = 0.1
"""Rounding to the other side goes both ways; a wrong rounding mode or offset goes one way."""


@dataclass(frozen=True)
class LayerDifference:
    """One layer's values against the reference's on the same input: the largest difference, the
    share that differs and the mean difference, over `count` values. `ties` is the share of them
    that differ and that kernels may round to either side: those in the middle between two steps, as
    averages of two or four values often are, and those so near that rounding twice takes them
    there (`_twice_rounded`)."""

    node: str
    layer: str
    lsb: float
    share: float
    bias: float
    count: int
    ties: float = 0.0

    @property
    def likely_share(self) -> float:
        """The share that may differ on other samples, and in kernels that hide their tensors: at
        least 3 / n, the upper end at 95 % where none of n values did (the rule of three)."""
        return max(self.share, min(1.0, 3 / self.count))

    @property
    def is_biased(self) -> bool:
        """Whether the mean is further from 0 than chance and ties explain."""
        chance: float = 4 * (self.share / self.count) ** 0.5
        return abs(self.bias) > max(BIAS_LSB, chance) + self.ties


class _Forced(fx.Interpreter):
    """Runs the graph, substituting the artifact's tensor for each one after comparing the two."""

    def __init__(self, graph: fx.GraphModule, matches: Matches) -> None:
        super().__init__(graph)
        self.matches = matches
        self.differences: list[LayerDifference] = []
        self.sizes: dict[fx.Node, int] = {}
        self.hidden: dict[fx.Node, Tensor] = {}
        self.joined: dict[fx.Node, tuple[Tensor, Tensor]] = {}

    def run(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return super().run(*args, **kwargs)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if _op(n).startswith("cat"):
            self._note_parts(n)
        if isinstance(result, Tensor):
            self.sizes[n] = result.numel()
        seen = self.matches.get(n)
        if seen is None:
            if quantizes_activation(n):
                self.hidden[n] = self.env[n.args[0]]  # type: ignore[index]
            return result
        scale, zero_point, low, high = (number(argument) for argument in n.args[1:5])
        values = (result.double() - zero_point) * scale
        readings = [reading for each in seen for reading in _laid_out(each.values, values)]
        if not readings:  # of the same sizes in another order
            return result
        found = min(readings, key=lambda each: float((each - values).abs().max()))
        exact, near = self._before_rounding(n)
        self.differences.append(_difference(n, (found - values) / scale, exact / scale, near))
        steps = torch.clamp(torch.round(found / scale) + zero_point, low, high)
        return steps.to(result.dtype).contiguous()  # as a reshape behind it may need

    def _before_rounding(self, n: fx.Node) -> tuple[Tensor, Tensor | float]:
        """The values before a quantize node rounds them, and how near to the middle between two
        steps they may be rounded to either side."""
        source: Any = n.args[0]
        if source in self.joined:
            return self.joined[source]
        values = self.env[source].double()
        near = max(_TIE, _twice_rounded(n, self._divisor(source)))
        if _op(source).startswith(_LEAKY):  # which divides what is below zero
            return values, torch.where(values < 0, near, _TIE)
        return values, near

    def _note_parts(self, n: fx.Node) -> None:
        """What a concatenation joins is on its grid already: keep the values that were put there,
        where the file does not show that."""
        parts: Any = n.args[0]
        rounded: list[Any] = [part.args[0] if reads_grid(part) else None for part in parts]
        if not any(each in self.hidden for each in rounded):
            return
        values = [
            (self.hidden[each] if each in self.hidden else self.env[part]).double()
            for part, each in zip(parts, rounded, strict=True)
        ]
        near = [
            torch.full_like(value, max(_TIE, _twice_rounded(each, 1)) if each in self.hidden else 0)
            for value, each in zip(values, rounded, strict=True)
        ]
        dim: Any = n.args[1] if len(n.args) > 1 else 0
        self.joined[n] = torch.cat(values, dim), torch.cat(near, dim)

    def _divisor(self, source: fx.Node) -> float:
        """What a kernel divides by: how many values each value of a mean is the mean of, for what
        is below zero in a leaky ReLU the inverse of its slope; 1 for everything else."""
        if _op(source).startswith(_LEAKY):
            slope = number(source.args[1]) if len(source.args) > 1 else 0.01
            return 1 / slope if slope > 0 else 1
        if not _op(source).startswith("mean"):
            return 1
        return self.sizes[source.all_input_nodes[0]] // max(1, self.sizes[source])


_LEAKY = "leaky_relu"

_TIE = 1e-3
"""How near to the middle between two steps a float32 value is that lies there."""


def _twice_rounded(node: fx.Node, count: float) -> float:
    """How far from the middle between two steps a value may lie that rounding twice takes there.

    TFLite's kernels multiply a sum of integers by m = scale_in / scale_out / count as
    m 2^s / 2^s with m 2^s in [0.5, 1): the product is rounded, and its division by 2^s is rounded
    again (gemmlowp, doc/quantization.md). So 2^-(s + 1); 0 where the source is neither such a mean,
    a leaky ReLU nor requantized, or there is nothing to divide by.
    """
    source: Any = node.args[0]
    whole = source.args[0] if _op(source).startswith(("mean", _LEAKY)) else source
    if not (isinstance(whole, fx.Node) and reads_grid(whole)):
        return 0.0
    if not is_number(whole.args[1]):
        return 0.0
    factor = number(whole.args[1]) / number(node.args[1]) / count
    shift = -math.frexp(factor)[1]
    return 2.0 ** -(shift + 1) if shift > 0 else 0.0


def _difference(
    node: fx.Node, steps: Tensor, exact: Tensor, near: Tensor | float
) -> LayerDifference:
    """The difference in steps, where `exact` are the reference's values before they are rounded;
    ties are those within `near` of the middle between two steps."""
    ties = ((exact - exact.floor() - 0.5).abs() < near) & (steps.abs() > 0.5)
    return LayerDifference(
        node=node.name,
        layer=_layer(node),
        lsb=float(steps.abs().max()),
        share=float((steps.abs() > 0.5).double().mean()),
        bias=float(steps.mean()),
        count=steps.numel(),
        ties=float(ties.double().mean()),
    )


def _laid_out(found: np.ndarray, like: Tensor) -> list[Tensor]:
    """The artifact's tensor in the reference's layout, moving last channels to the front if needed:
    every reading that the sizes allow, of which the closest is the right one."""
    tensor = torch.from_numpy(found).double()
    readings = [tensor, *(_channels_first(tensor)), *_transposed(tensor, like)]
    return [one.reshape(like.shape) for one in readings if _fits(one, like)]


def _transposed(tensor: Tensor, like: Tensor) -> list[Tensor]:
    """The tensor with its last dimensions exchanged, where that gives the reference's: a product
    may read a matrix as it is that the reference transposes first."""
    if like.dim() < 2:
        return []
    exchanged = like.transpose(-1, -2).shape
    sizes = [size for size in tensor.shape if size > 1]
    if sizes != [size for size in exchanged if size > 1]:
        return []
    return [tensor.reshape(exchanged).transpose(-1, -2)]


def _channels_first(tensor: Tensor) -> list[Tensor]:
    return [tensor.movedim(-1, 1)] if tensor.dim() > 2 else []


def _fits(tensor: Tensor, like: Tensor) -> bool:
    if tensor.dim() == like.dim():
        return tensor.shape == like.shape
    return tensor.numel() == like.numel()


def _layer(node: fx.Node) -> str:
    """The module that computes the quantized value, and its operation."""
    source: Any = node.args[0]
    responsible = source
    while isinstance(source, fx.Node) and not reads_grid(source):
        if source.op == "call_function" and _op(source).startswith(_WEIGHTED):
            responsible = source
            break
        source = next(iter(source.all_input_nodes), None)
    if responsible.op == "placeholder":
        return "quantization of the input"
    name = layer_of(responsible) if module_paths(responsible) else _weight_name(responsible)
    return f"{name} ({_op(responsible).split('.')[0]})"


def _op(node: fx.Node) -> str:
    """An operator's name; empty for a constant, whatever it is called, and for an input."""
    return str(node.target).removeprefix("aten.") if node.op == "call_function" else ""


def _weight_name(node: fx.Node) -> str:
    """The constant read by a layer without a recorded module, or the node's own name."""
    for source in node.all_input_nodes[1:]:
        stored = source
        while stored.op == "call_function" and stored.all_input_nodes:
            if not str(stored.target).startswith("quantized_decomposed."):
                break
            stored = stored.all_input_nodes[0]
        if stored.op == "get_attr":
            return str(stored.target)
    return node.name
