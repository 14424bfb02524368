"""Networks as other people write them, by their forward and their layers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

relu = torch.relu


class Network(nn.Module):
    """Layers by name, and a forward that uses them."""

    def __init__(self, forward: Callable[..., Tensor], layers: dict[str, Any]) -> None:
        super().__init__()
        self.use = forward
        for name, layer in layers.items():
            if isinstance(layer, Tensor) and not isinstance(layer, nn.Parameter):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self, x)


@dataclass(frozen=True)
class Foreign:
    """A network by its forward and its layers, for samples of that shape."""

    use: Callable[..., Tensor]
    make: Callable[[], dict[str, Any]]
    shape: tuple[int, ...] = (3, 8, 8)
    prepared: Callable[[nn.Module], None] = lambda net: None

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        module = Network(self.use, self.make())
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.3)
        self.prepared(module)
        with torch.no_grad():
            for _ in range(20):
                module.train()(self.samples(32))
        return module.eval()

    def samples(self, count: int) -> Tensor:
        return torch.randn(count, *self.shape, generator=torch.Generator().manual_seed(1))


def conv(inputs: int, outputs: int, kernel: int = 3, **keys: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **keys)


def mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def end(net: Any, x: Tensor) -> Tensor:
    return net.o(mean(relu(x)))


def stack(**middle: Callable[[], Any]) -> Callable[[], dict[str, Any]]:
    """A first convolution `a` to 8 channels, the layers given, and `o` from 8 features to 5."""
    return lambda: {
        "a": conv(3, 8),
        **{name: make() for name, make in middle.items()},
        "o": nn.Linear(8, 5),
    }
