"""Networks with constants in every place of an operation: numbers, buffers of every shape that
broadcasts, on either side, and tensors that forward makes itself."""

from collections.abc import Callable
from typing import Any

import torch
from foreign import Foreign, conv, end, mean, stack
from torch import Tensor, nn
from torch.nn import functional as F

SHAPES: dict[str, tuple[int, ...]] = {
    "each channel": (1, 8, 1, 1),
    "each channel without a batch": (8, 1, 1),
    "each row": (8, 1),
    "each column": (8,),
    "a map": (8, 8),
    "every value": (1, 8, 8, 8),
    "one number": (),
    "one value": (1,),
}

OPERATIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "x + c": lambda net, x: x + net.c,
    "c - x": lambda net, x: net.c - x,
    "c * x": lambda net, x: net.c * x,
    "x / c": lambda net, x: x / (net.c + 1.5),
    "c / x": lambda net, x: net.c / (x.sigmoid() + 0.5),
    "max(c, x)": lambda net, x: torch.maximum(net.c, x),
}


def between(use: Callable[[Any, Tensor], Tensor], **layers: Callable[[], Any]) -> Foreign:
    """A function of 8 feature maps between two convolutions."""
    whole = stack(b=lambda: conv(8, 8), **layers)
    return Foreign(lambda net, x: net.o(mean(net.b(use(net, net.a(x))))), whole)


def values(*shape: int) -> Callable[[], Tensor]:
    """A buffer from -1 to 1, every value its own."""
    return lambda: torch.linspace(-1, 1, max(1, torch.Size(shape).numel())).reshape(shape) + 0.1


def joined(net: Any, x: Tensor) -> Tensor:
    return F.conv2d(torch.cat([x, net.c.expand(x.shape[0], -1, -1, -1)], 1), net.w)


def normalized(use: Callable[[Any, Tensor], Tensor]) -> Foreign:
    """Statistics of the input as buffers."""
    return Foreign(
        lambda net, x: end(net, net.a(use(net, x))),
        stack(
            mean=lambda: torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1),
            std=lambda: torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1),
        ),
    )


CHANNELS, MATRIX = values(1, 8, 1, 1), values(8, 8)

OPERANDS: dict[str, Foreign] = {
    "1 - x": between(lambda net, x: 1 - x),
    "2 / x": between(lambda net, x: 2 / (x.sigmoid() + 0.5)),
    "x / 3": between(lambda net, x: x / 3),
    "x squared": between(lambda net, x: x**2),
    "a power of x": between(lambda net, x: 2 ** x.clamp(-2, 2)),
    "zero times x": between(lambda net, x: x + 0 * x),
    "minus x": between(lambda net, x: -x),
    "a large number": between(lambda net, x: x + 100.0),
    "a small number": between(lambda net, x: x * 1e-4 + 1.0),
    "a minimum": between(lambda net, x: torch.minimum(x, torch.tensor(0.5))),
    "a choice": between(lambda net, x: torch.where(x > 0, x, torch.tensor(-0.1))),
    "a factor": between(lambda net, x: torch.add(net.c, x, alpha=0.5), c=CHANNELS),
    "a reversed factor": between(lambda net, x: torch.rsub(x, net.c, alpha=2), c=CHANNELS),
    "made in forward": between(lambda net, x: x + torch.linspace(-1, 1, 8)),
    "ones like x": between(lambda net, x: torch.ones_like(x) - x),
    "made of a size": between(lambda net, x: x + torch.arange(x.shape[-1]) / x.shape[-1]),
    "joined": between(
        joined,
        c=values(1, 2, 8, 8),
        w=lambda: nn.Parameter(torch.randn(8, 10, 1, 1)),
    ),
    "two of them": between(lambda net, x: x * (net.c + net.d), c=CHANNELS, d=values(8)),
    "lerp": between(lambda net, x: torch.lerp(x, net.c.expand_as(x), 0.3), c=CHANNELS),
    "addcmul": between(lambda net, x: torch.addcmul(net.c, x, x, value=0.5), c=CHANNELS),
    "a matrix on the right": between(lambda net, x: x @ net.m, m=MATRIX),
    "a matrix on the left": between(lambda net, x: net.m @ x, m=MATRIX),
    "an einsum": between(lambda net, x: torch.einsum("bchw,cd->bdhw", x, net.m), m=MATRIX),
    "a condition": between(lambda net, x: x * (x > net.c), c=CHANNELS),
    "statistics": normalized(lambda net, x: (x - net.mean) / net.std),
    "reversed statistics": normalized(lambda net, x: (net.mean - x) * net.std),
    **{
        f"{sign}, {where}": between(use, c=values(*shape))
        for where, shape in SHAPES.items()
        for sign, use in OPERATIONS.items()
    },
    "a bilinear layer": Foreign(
        lambda n, x: n.o(torch.relu(n.b(x[:, :4], x[:, 4:]))),
        lambda: {"b": nn.Bilinear(4, 4, 6), "o": nn.Linear(6, 3)},
        (8,),
    ),
}
