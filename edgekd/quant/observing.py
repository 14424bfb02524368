"""Sets the ranges of a prepared graph's fake quantizers from samples, which pass through it in
batches without being rounded."""

from collections.abc import Iterator
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
from edgekd.quant.ranges import Levels, RangeRule, range_of
from edgekd.quant.value_statistics import ValueStatistics
from edgekd.values.tree import Tree, leaves, mapped, rows


def set_ranges(graph: fx.GraphModule, samples: Tree, rule: RangeRule) -> None:
    """Give every activation's fake quantizer, but not those of fixed grids, the range that `rule`
    finds on `samples` (N, ...); weights get theirs from their values."""
    with torch.no_grad():
        collector = _Collector(graph, rule.needs_histograms)
        for batch in batches(samples):
            collector.run(mapped(torch.clone, batch))
        for fake, values in collector.by_quantizer():
            seen = [each for each in values if each.low <= each.high]
            low, high = range_of(seen, rule, _levels(fake)) if seen else (0.0, 0.0)
            set_range(fake, torch.tensor(low), torch.tensor(high))
        graph.eval()
        graph(rows(samples, slice(0, 1)))  # weights follow what they are


def set_range(fake: FakeQuantize, low: Tensor, high: Tensor) -> None:
    """Give a fake quantizer's observer these ends, and itself the grid that follows."""
    observer = fake.activation_post_process
    observer.min_val, observer.max_val = low.detach().clone(), high.detach().clone()
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


class _Collector(fx.Interpreter):
    """Runs a prepared graph in float and records each value that goes onto a grid."""

    def __init__(self, graph: fx.GraphModule, histograms: bool) -> None:
        super().__init__(graph)
        self.samples = 1
        self.fakes: dict[str, FakeQuantize] = {}
        self.statistics: dict[str, ValueStatistics] = {}
        for node in graph.graph.nodes:
            part = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
            if isinstance(part, FakeQuantize):
                self.fakes[node.name] = part
                if _is_ranged(part) and not self._is_only_moved(node):
                    self.statistics[node.name] = ValueStatistics(histograms)

    def _is_only_moved(self, node: fx.Node) -> bool:
        """Whether a value is a part of one that the same quantizer sees anyway."""
        source: Any = node.args[0]
        if source.target not in ops.SHARED - PADS or not isinstance(source.args[0], fx.Node):
            return False
        return self.fakes.get(source.args[0].name) is self.fakes[node.name]

    def run(self, *arguments: Any, **keywords: Any) -> Any:
        """Run one batch."""
        self.samples = len(leaves(arguments)[0])
        return super().run(*arguments, **keywords)

    def run_node(self, n: fx.Node) -> Any:
        if n.name not in self.fakes:
            return super().run_node(n)
        source: Any = n.args[0]
        value = self.env[source]
        if n.name in self.statistics:
            self.statistics[n.name].add(value, self.samples)
        return value

    def by_quantizer(self) -> Iterator[tuple[FakeQuantize, list[ValueStatistics]]]:
        """Each fake quantizer with what it saw; several values may share one."""
        found: dict[int, tuple[FakeQuantize, list[ValueStatistics]]] = {}
        for name, statistics in self.statistics.items():
            fake = self.fakes[name]
            found.setdefault(id(fake), (fake, []))[1].append(statistics)
        return iter(found.values())


def _is_ranged(fake: FakeQuantize) -> bool:
    fixed = isinstance(fake.activation_post_process, FixedObserver)
    return isinstance(fake, ActivationFakeQuantize) and not fixed
