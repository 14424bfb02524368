"""Sets the ranges of a prepared graph's fake quantizers from samples, which pass through it in
batches without being rounded."""

from typing import Any

import torch
from torch import Tensor, fx
from torchao.quantization.pt2e.fake_quantize import FakeQuantize

from edgekd.quant import ops
from edgekd.quant.batches import batches
from edgekd.quant.constants import constant_of
from edgekd.quant.fixed_grids import PADS
from edgekd.quant.narrow import rounded
from edgekd.quant.quantizer import ActivationFakeQuantize, FixedObserver
from edgekd.quant.ranges import EXTREMES, Levels, RangeRule, range_of
from edgekd.quant.value_statistics import ValueStatistics
from edgekd.values.tree import Tree, leaves, mapped, rows

FEW_STEPS = 255
"""Those of eight bits."""


def set_ranges(
    graph: fx.GraphModule,
    samples: Tree,
    rule: RangeRule,
    known: dict[str, ValueStatistics] | None = None,
) -> None:
    """Give every activation's fake quantizer, but not those of fixed grids, the range that `rule`
    finds on `samples` (N, ...); weights get theirs from their values. `known` has statistics of
    values by name; what is missing there is collected, for every rule, and added."""
    with torch.no_grad():
        watched = _watched(graph)
        statistics = {} if known is None else known
        missing = {value for value, _ in watched if value not in statistics}
        if missing:
            histograms = rule.needs_histograms or known is not None
            statistics.update(_Collector(graph, missing, histograms).collect(samples))
        for fake, values in _by_quantizer(watched).items():
            seen = [statistics[each] for each in values if statistics[each].low < float("inf")]
            levels = _levels(fake)
            # Of 65,535 levels none is gained by clipping.
            own = EXTREMES if levels.steps > FEW_STEPS and rule.needs_histograms else rule
            low, high = range_of(seen, own, levels) if seen else (0.0, 0.0)
            set_range(fake, torch.tensor(low), torch.tensor(high))
        for fake in _fakes(graph).values():
            if isinstance(fake.activation_post_process, FixedObserver):
                _set_grid(fake)
        graph.eval()
        graph(rows(samples, slice(0, 1)))  # weights follow what they are


def set_range(fake: FakeQuantize, low: Tensor, high: Tensor) -> None:
    """Give a fake quantizer's observer these ends, and itself the grid that follows."""
    observer = fake.activation_post_process
    observer.min_val, observer.max_val = low.detach().clone(), high.detach().clone()
    _set_grid(fake)


def _set_grid(fake: FakeQuantize) -> None:
    """Give a fake quantizer the grid that follows from its observer."""
    scale, zero_point = fake.calculate_qparams()
    fake.scale.resize_(scale.shape).copy_(scale)
    fake.zero_point.resize_(zero_point.shape).copy_(zero_point)


def fit_weight_ranges(graph: fx.GraphModule) -> None:
    """Give every weight's fake quantizer the range with the least squared error, for each channel
    or for the tensor, and let it keep that range."""
    for node in graph.graph.nodes:
        fake = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(fake, FakeQuantize) or isinstance(fake, ActivationFakeQuantize):
            continue
        weight = constant_of(graph, node.args[0]).detach()
        limit = int(fake.activation_post_process.quant_max)
        groups = weight.reshape(len(weight) if fake.is_per_channel else 1, 1, -1)
        end = rounded(groups, limit, search=True)[1].flatten() * limit
        end = end if fake.is_per_channel else end.reshape(())
        set_range(fake, -end, end)
        fake.disable_observer()


def _levels(fake: FakeQuantize) -> Levels:
    observer = fake.activation_post_process
    steps = int(observer.quant_max) - int(observer.quant_min)
    return Levels(steps, fake.qscheme is torch.per_tensor_symmetric)


def _fakes(graph: fx.GraphModule) -> dict[fx.Node, FakeQuantize]:
    calls = [node for node in graph.graph.nodes if node.op == "call_module"]
    parts = {node: graph.get_submodule(str(node.target)) for node in calls}
    return {node: part for node, part in parts.items() if isinstance(part, FakeQuantize)}


def _watched(graph: fx.GraphModule) -> list[tuple[str, FakeQuantize]]:
    """The values that activations' fake quantizers round, without those that are only a part of
    another that the same quantizer rounds."""
    fakes = _fakes(graph)
    found = []
    for node, fake in fakes.items():
        source = _origin(node, fakes)
        whole = source.args[0] if source.target in ops.SHARED - PADS else None
        moved = isinstance(whole, fx.Node) and fakes.get(whole) is fake
        if _is_ranged(fake) and not moved:
            found.append((source.name, fake))
    return found


def _origin(node: fx.Node, fakes: dict[fx.Node, FakeQuantize]) -> fx.Node:
    """The value that a fake quantizer rounds, behind other fake quantizers."""
    source: Any = node
    while source in fakes:
        source = source.args[0]
    return source  # type: ignore[no-any-return]


def _by_quantizer(watched: list[tuple[str, FakeQuantize]]) -> dict[FakeQuantize, list[str]]:
    found: dict[FakeQuantize, list[str]] = {}
    for value, fake in watched:
        found.setdefault(fake, []).append(value)
    return found


class _Collector(fx.Interpreter):
    """Runs a prepared graph in float and records the values of these names."""

    def __init__(self, graph: fx.GraphModule, names: set[str], histograms: bool) -> None:
        super().__init__(graph)
        self.fakes = _fakes(graph)
        self.samples = 1
        self.statistics = {name: ValueStatistics(histograms) for name in sorted(names)}

    def collect(self, samples: Tree) -> dict[str, ValueStatistics]:
        for batch in batches(samples):
            self.samples = len(leaves(batch)[0])
            self.run(mapped(torch.clone, batch))
        return self.statistics

    def run_node(self, n: fx.Node) -> Any:
        if n in self.fakes:
            source: Any = n.args[0]
            return self.env[source]
        value = super().run_node(n)
        if n.name in self.statistics:
            self.statistics[n.name].add(value, self.samples)
        return value


def _is_ranged(fake: FakeQuantize) -> bool:
    fixed = isinstance(fake.activation_post_process, FixedObserver)
    return isinstance(fake, ActivationFakeQuantize) and not fixed
