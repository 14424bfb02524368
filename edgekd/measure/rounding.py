"""How far rounding alone moves a quantized graph's outputs.

Kernels round where the reference rounds, but not always to the same side: a share of the values
that each layer puts on its grid lies one step away. What such steps do to the outputs depends on
the network, so it is measured: the graph runs with random steps of one, at the share of each
layer's values that differed in the file on the same input (`divergence_of`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from edgekd.measure.matching import quantizes_activation
from edgekd.values.tree import Tree, leaves

DRAWS = 8
"""Runs with other random steps."""

FACTOR_BITS = 15
"""Of the factor by which kernels of 16-bit activations scale 64-bit sums."""

LEAST_SHARE = 1e-3
"""The share of steps where none was seen in the few values of one sample."""


@dataclass(frozen=True)
class Spread:
    """What random steps do to one output: the `largest` difference of `values`, the `mean` one, and
    the share of samples whose largest value was another (`changed`)."""

    largest: float
    mean: float
    changed: float
    values: int


def spread_of(
    graph: fx.GraphModule, shares: Mapping[str, float], inputs: Tree, index: int
) -> Spread:
    """Run a quantized graph with random steps. `shares` are those of each quantize node's values,
    by the node's name; nodes that are not named get the mean share. `index` is the output's
    position among the graph's leaves."""
    mean = sum(shares.values()) / len(shares) if shares else 0.0
    with torch.no_grad():
        exact = _output(graph(inputs), index)
        moved = [
            _output(_Shaken(graph, shares, mean, seed).run(inputs), index) for seed in range(DRAWS)
        ]
    differences = torch.stack([(each - exact).abs() for each in moved])
    changed = [
        float((_top(each) != _top(exact)).double().mean()) for each in moved if exact.dim() > 1
    ]
    return Spread(
        largest=float(differences.max()),
        mean=float(differences.mean()),
        changed=max(changed, default=0.0),
        values=differences.numel(),
    )


def is_rounding(
    spread: Spread, reference: np.ndarray, outputs: np.ndarray, step: float = 0.0
) -> bool:
    """Whether outputs (N, ...) differ from the reference's no more than rounding explains.

    The largest of many values grows as sqrt(2 ln n) (of a normal distribution, Gumbel 1958), so
    that of the file may be larger than that of the few values that were simulated by that ratio;
    the mean difference may be twice the simulated one. As many decisions may change as changed
    there, and three standard deviations more. `step` is what one output may differ besides: of a
    fine grid one step, because file and reference are each rounded to it.
    """
    difference = np.abs(np.asarray(outputs, np.float64) - np.asarray(reference, np.float64))
    seen, asked = max(spread.values, 3), max(difference.size, 3)
    growth = max(1.0, math.sqrt(math.log(asked) / math.log(seen)))
    if difference.max() > growth * spread.largest + step or difference.mean() > 2 * spread.mean:
        return False
    if difference.ndim < 2:
        return True
    flips, samples = _flips(np.asarray(reference), np.asarray(outputs)), len(difference)
    expected = spread.changed
    deviation = math.sqrt(expected * (1 - expected) / samples)
    return flips <= expected + 3 * deviation + 1 / samples


def _flips(reference: np.ndarray, outputs: np.ndarray) -> float:
    mine, theirs = (array.reshape(len(array), -1).argmax(1) for array in (reference, outputs))
    return float((mine != theirs).mean())


def _top(values: Tensor) -> Tensor:
    return values.flatten(1).argmax(1)


def _output(outputs: Tree, index: int) -> Tensor:
    found: Tensor = leaves(outputs)[index]
    return found.double()


class _Shaken(fx.Interpreter):
    """Runs a graph with random steps of one in what is put on a grid."""

    def __init__(
        self, graph: fx.GraphModule, shares: Mapping[str, float], mean: float, seed: int
    ) -> None:
        super().__init__(graph)
        self.shares, self.mean = shares, mean
        self.generator = torch.Generator().manual_seed(seed)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if not quantizes_activation(n):
            return result
        share = max(LEAST_SHARE, self.shares.get(n.name, self.mean))
        drawn = torch.rand(result.shape, generator=self.generator)
        step = (drawn < share / 2).to(torch.int32) - (drawn > 1 - share / 2).to(torch.int32)
        low, high = (int(each) for each in n.args[3:5])  # type: ignore[arg-type]
        moved = result.to(torch.int32) + step
        if result.dtype == torch.int16:
            moved += self._factor_error(result)
        return moved.clamp(low, high).to(result.dtype)

    def _factor_error(self, result: Tensor) -> Tensor:
        """What a rounded factor, drawn for the whole layer, adds to its values."""
        drawn = float(torch.rand((), generator=self.generator)) * 2 - 1
        error = result.double() * drawn * 2.0 ** -(FACTOR_BITS + 1)
        return error.round().to(torch.int32)
