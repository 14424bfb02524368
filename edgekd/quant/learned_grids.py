"""Full int8 with learned grids: LSQ's steps, or PACT's bounds for the activations. A learned grid
replaces torchao's fake quantizer in the prepared graph, and restores it with the learned range
after training, so that the graph is converted as usual.
"""

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torchao.quantization.pt2e.fake_quantize import FakeQuantize

from edgekd.quant.clipping import clipped, rounded_between
from edgekd.quant.learned_step import Step, learned_step
from edgekd.quant.observing import set_range
from edgekd.quant.quantizer import ActivationFakeQuantize, FixedObserver

Learned = Literal["lsq", "pact"]


class _Grid(nn.Module):
    """Replaces a fake quantizer, which it keeps; `settle` gives it the learned range."""

    def __init__(self, fake: FakeQuantize) -> None:
        super().__init__()
        self.fake = fake
        observer = fake.activation_post_process
        self.low, self.high = int(observer.quant_min), int(observer.quant_max)

    def settle(self) -> FakeQuantize:
        self.fake.disable_observer()
        set_range(self.fake, *self.range())
        return self.fake

    @abstractmethod
    def range(self) -> tuple[Tensor, Tensor]:
        """The range that the observer would need for the learned grid."""


class LearnedGrid(_Grid):
    """LSQ with a fixed zero point; for weights, one step per channel."""

    def __init__(self, fake: FakeQuantize, rank: int = 0) -> None:
        super().__init__(fake)
        scale, zero_point = fake.calculate_qparams()
        self.zero = int(zero_point.reshape(-1)[0])
        self.weight = not isinstance(fake, ActivationFakeQuantize)
        self.step = Step(scale.detach().float().reshape(-1, *[1] * (rank - 1) if rank else []))

    def forward(self, x: Tensor) -> Tensor:
        shared = None if self.weight else x[0].numel()
        step = self.step()
        step = step if step.numel() > 1 else step.reshape(())
        return learned_step(x, step, self.low - self.zero, self.high - self.zero, shared)

    def range(self) -> tuple[Tensor, Tensor]:
        step = self.step().detach().reshape(-1)
        step = step if step.numel() > 1 else step.reshape(())
        if self.fake.qscheme in (torch.per_tensor_symmetric, torch.per_channel_symmetric):
            most = step * (self.high - self.low) / 2
            return -most, most
        return step * (self.low - self.zero), step * (self.high - self.zero)


class LearnedEnds(_Grid):
    """PACT: learned bounds; symmetric ones stay symmetric, and a bound at 0 stays at 0."""

    def __init__(self, fake: FakeQuantize) -> None:
        super().__init__(fake)
        observer = fake.activation_post_process
        low, high = observer.min_val.clamp(max=0.0), observer.max_val.clamp(min=0.0)
        self.symmetric = fake.qscheme is torch.per_tensor_symmetric
        if self.symmetric:
            high = torch.maximum(-low, high)
            low = -high
        self.upper = Step(high.detach().reshape(()).clamp_min(1e-6))
        self.lower = None if self.symmetric or not bool(low < 0) else Step(low.detach().reshape(()))

    def ends(self) -> tuple[Tensor, Tensor]:
        """The lower and the upper bound."""
        high = self.upper()
        if self.symmetric:
            return -high, high
        return (torch.zeros_like(high) if self.lower is None else self.lower()), high

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.ends()
        return rounded_between(clipped(x, low, high), low, high, self.high - self.low)

    def range(self) -> tuple[Tensor, Tensor]:
        return self.ends()


def learn_grids(graph: fx.GraphModule, method: Learned) -> None:
    """Replace the fake quantizers of a prepared graph, whose ranges are set, by learned grids.
    `lsq` learns the grids of weights and activations, `pact` those of activations only.
    """
    made: dict[int, nn.Module] = {}
    with torch.no_grad():
        for name, fake, rank in _fakes(graph):
            activation = isinstance(fake, ActivationFakeQuantize)
            if not activation and method == "pact":
                continue
            if id(fake) not in made:
                made[id(fake)] = LearnedEnds(fake) if method == "pact" else LearnedGrid(fake, rank)
            graph.set_submodule(name, made[id(fake)])


def _fakes(graph: fx.GraphModule) -> list[tuple[str, FakeQuantize, int]]:
    """Each fake quantizer by name, with the number of dimensions if it quantizes a weight."""
    fakes = []
    for node in graph.graph.nodes:
        if node.op != "call_module":
            continue
        fake = graph.get_submodule(node.target)
        if isinstance(fake, FakeQuantize) and not _is_fixed(fake):
            activation = isinstance(fake, ActivationFakeQuantize)
            value: Any = node.args[0].meta.get("val")
            fakes.append((str(node.target), fake, 0 if activation else value.dim()))
    return fakes


def _is_fixed(fake: FakeQuantize) -> bool:
    return isinstance(fake.activation_post_process, FixedObserver)


def settle_grids(graph: fx.GraphModule) -> None:
    """Restore the fake quantizers, each with its learned grid."""
    with torch.no_grad():
        for node in graph.graph.nodes:
            if node.op == "call_module":
                grid = graph.get_submodule(node.target)
                if isinstance(grid, _Grid):
                    graph.set_submodule(node.target, grid.settle())
