"""Reconstruction block by block: weights are rounded up or down, whichever makes the outputs of
their block more exact.

Li et al. 2021 (BRECQ, arXiv:2102.05426), section 3.2, with AdaRound's relaxation (Nagel et al.
2020, equations 21 to 24): within a block, such as a residual one, layers make up for each other.
Inputs are those that the quantized layers before really give, targets those of the float network.
"""

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quant.adaptive_rounding import SoftRounding
from edgekd.quant.channel_scaling import weight_of
from edgekd.quant.coded_weights import CodedWeight, put_codes
from edgekd.quant.graph_blocks import Block
from edgekd.quant.rewrite import DEQUANTIZE, QUANTIZE, is_weight

_BATCH = 32


def reround_block(
    floating: fx.GraphModule,
    quantized: fx.GraphModule,
    block: Block,
    coded: dict[str, CodedWeight],
    values: tuple[Tensor, Tensor],
    steps: int,
) -> float:
    """Change the integers of a block's layers (`coded`, by name) in `quantized`; `values` are the
    block's inputs there and its outputs in `floating`, both (N, ...). Returns the error over that
    of the nearest integers; if it is not smaller those stay."""
    x, y = values
    named = {node.name: node for node in floating.graph.nodes}
    soft = {
        name: SoftRounding(weight_of(floating, named[name]).flatten(1).float(), each)
        for name, each in coded.items()
    }
    run = _BlockRun(quantized, block, {coded[name].node: each for name, each in soft.items()})
    with torch.no_grad():
        for name, each in coded.items():
            put_codes(quantized, each, each.nearest(soft[name].weight))
        before = run.error(x, y, None)
    optimizer = torch.optim.Adam([each.variable for each in soft.values()], lr=SoftRounding.rate)
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for step in range(steps):
            rows = torch.randperm(len(x), generator=generator)[:_BATCH]
            optimizer.zero_grad()
            shares = {each: each.share() for each in soft.values()}
            loss = run.error(x[rows], y[rows], shares) / before.clamp_min(1e-30)
            for rounding, share in shares.items():
                loss = loss + rounding.penalty(share, step, steps) / len(soft)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        for name, each in coded.items():
            put_codes(quantized, each, soft[name].codes())
        after = run.error(x, y, None)
        if not bool(after < before):
            for name, each in coded.items():
                put_codes(quantized, each, each.nearest(soft[name].weight))
            return 1.0
    return float(after / before)


class _BlockRun:
    """Runs one block of a quantized graph, with gradients to the weights' shares."""

    def __init__(
        self, graph: fx.GraphModule, block: Block, soft: dict[fx.Node, SoftRounding]
    ) -> None:
        self.graph, self.block, self.soft = graph, block, soft
        named = {node.name: node for node in graph.graph.nodes}
        self.entry, self.end = named[block.entry], named[block.end]
        inside, waiting = {self.end}, [self.end]
        while waiting:
            for source in waiting.pop().all_input_nodes:
                if source not in inside and source is not self.entry:
                    inside.add(source)
                    waiting.append(source)
        self.nodes = [node for node in graph.graph.nodes if node in inside]

    def error(self, x: Tensor, y: Tensor, shares: dict[SoftRounding, Tensor] | None) -> Tensor:
        """The mean squared error of the block's outputs; with the integers, or with `shares`."""
        run = _Soft(self.graph, self.soft, shares)
        run.env[self.entry] = x
        for node in self.nodes:
            run.env[node] = run.run_node(node)
        found: Tensor = run.env[self.end]
        return (found - y).square().mean()


class _Soft(fx.Interpreter):
    """Passes gradients straight through the activations' rounding, none where they are clipped."""

    def __init__(
        self,
        graph: fx.GraphModule,
        soft: dict[fx.Node, SoftRounding],
        shares: dict[SoftRounding, Tensor] | None,
    ) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.soft, self.shares = soft, shares

    def run_node(self, n: fx.Node) -> Any:
        source: Any = n.args[0] if n.args else None
        if self.shares is not None and isinstance(source, fx.Node) and source in self.soft:
            rounding = self.soft[source]
            shape = self.env[source].shape
            return rounding.value(self.shares[rounding]).reshape(shape)
        if n.target in QUANTIZE and not is_weight(n):
            return _straight(self.env[source], n)
        if n.target in DEQUANTIZE and isinstance(source, fx.Node) and source.target in QUANTIZE:
            return self.env[source]
        return super().run_node(n)


def _straight(x: Tensor, node: fx.Node) -> Tensor:
    arguments: tuple[Any, ...] = node.args
    _, step, zero, low, high, *_ = arguments
    inside = x.clamp((low - zero) * step, (high - zero) * step)
    rounded = ((x / step).round() + zero).clamp(low, high)
    result: Tensor = inside + ((rounded - zero) * step - inside).detach()
    return result
