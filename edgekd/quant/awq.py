"""AWQ: weights of inputs that matter get a finer grid, by scaling them up and the inputs down.

Lin et al. 2023 (arXiv:2306.00978), equation 4: s = mean|x|^a, where a from 0 to 1 is the one with
the least error of the layers' outputs. The inverse goes into what writes x, a norm or another
linear layer; where that is not possible x is divided in an operator of its own.
"""

import torch
from torch import Tensor, fx

from edgekd.quant.batches import at_once
from edgekd.quant.channel_scaling import scale_inputs, weight_of
from edgekd.quant.narrow import group_size, grouped, rounded
from edgekd.quant.smoothing import divide, insert_division, linear_groups
from edgekd.quant.watching import watch
from edgekd.values.tree import Tree

_TRIALS = 20


def scale_salient(graph: fx.GraphModule, samples: Tree, group: int, limit: int) -> str:
    """Scale the linear layers of a float graph in place, for weights with one scale per `group` and
    codes up to `limit`; a note says what it gained."""
    groups = linear_groups(graph)
    found = _chosen(graph, groups, samples, group, limit)
    scaled, added, shares = 0, 0, []
    for source, layers in groups.items():
        factor, share = found[source.name]
        shares.append(share)
        if share >= 1.0:
            continue
        if not divide(graph, source, factor, layers):
            insert_division(graph, source, factor, layers)
            added += 1
        for layer in layers:
            scale_inputs(graph, layer, factor)
        scaled += 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    if not shares:
        return "AWQ: there is no linear layer with a weight of its own"
    mean = 1 - sum(shares) / len(shares)
    extra = f", {added} of them divided by an operator of its own" if added else ""
    return f"AWQ: {scaled} of {len(shares)} inputs scaled{extra}, {mean:.0%} less error on average"


def _chosen(
    graph: fx.GraphModule,
    groups: dict[fx.Node, list[fx.Node]],
    samples: Tree,
    group: int,
    limit: int,
) -> dict[str, tuple[Tensor, float]]:
    """The best factor (i,) for each input, and its error over that without one."""
    found: dict[str, tuple[Tensor, float]] = {}

    def see(source: fx.Node, value: Tensor) -> None:
        weights = [weight_of(graph, layer) for layer in groups[source]]
        found[source.name] = best_factor(value.flatten(0, -2), weights, group, limit)

    watch(graph, [at_once(samples)], groups, see)
    return found


def best_factor(x: Tensor, weights: list[Tensor], group: int, limit: int) -> tuple[Tensor, float]:
    """The factor (i,) by which the weights (o, i) of inputs (n, i) are multiplied, and the error of
    the outputs over that without a factor."""
    size, inputs = x.abs().mean(0).clamp_min(1e-8), x.t() @ x
    best, least, plain = torch.ones_like(size), float("inf"), 1.0
    for trial in range(_TRIALS):
        factor = size.pow(trial / _TRIALS)
        factor = factor / (factor.max() * factor.min()).sqrt()
        error = sum(_error(weight, factor, inputs, group, limit) for weight in weights)
        plain = max(error, 1e-30) if trial == 0 else plain
        if error < least:
            best, least = factor, error
    return best, least / plain


def _error(weight: Tensor, factor: Tensor, inputs: Tensor, group: int, limit: int) -> float:
    wide = weight * factor
    codes, scales = rounded(grouped(wide, group_size(wide.shape[1], group)), limit)
    change = (codes * scales).view_as(wide) / factor - weight
    return float(((change @ inputs) * change).sum())
