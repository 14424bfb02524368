"""Small networks in which channels are re-ordered, divided or shared between two layers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGES = (2, 3, 8, 8)
relu = torch.relu


class Network(nn.Module):
    """Layers by name, and a forward that uses them."""

    def __init__(self, forward: Callable[..., Tensor], **layers: Any) -> None:
        super().__init__()
        self.use = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self, x)


def conv(inputs: int, outputs: int, **keys: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **keys)


def shuffled(x: Tensor, groups: int) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


def mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def halves(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    middle = y.shape[1] // 2
    return net.b(mean(y[:, :middle] + y[:, middle:]))


def c2f(net: Any, x: Tensor) -> Tensor:
    left, right = relu(net.a(x)).chunk(2, 1)
    return net.b(mean(torch.cat([left, right + relu(net.c(right))], 1)))


def shufflenet(net: Any, x: Tensor) -> Tensor:
    left, right = relu(net.a(x)).chunk(2, 1)
    return mean(net.b(shuffled(torch.cat([left, relu(net.c(right))], 1), 2)))


def option_a(net: Any, x: Tensor) -> Tensor:
    y = relu(net.a(x))
    return net.b(mean(F.pad(y, (0, 0, 0, 0, 4, 4)) + net.c(y)))


def fixed_slices(net: Any, x: Tensor) -> Tensor:
    y = relu(net.a(x))
    return net.b(mean(torch.cat([net.c(y[:, :8]), y[:, 8:]], 1)))


def excited(net: Any, x: Tensor) -> Tensor:
    y = relu(net.a(x))
    gate = torch.sigmoid(net.e(relu(net.d(y.mean((2, 3), keepdim=True)))))
    return net.b(mean(y * gate))


def written_in_place(net: Any, x: Tensor) -> Tensor:
    y = relu(net.a(x))
    y.mul_(2).add_(net.c(y).relu_())
    return net.b(mean(y))


def focus(net: Any, x: Tensor) -> Tensor:
    y = relu(net.a(x))
    parts = [y[..., ::2, ::2], y[..., 1::2, ::2], y[..., ::2, 1::2], y[..., 1::2, 1::2]]
    return mean(net.c(torch.cat(parts, 1)))


def attention(net: Any, x: Tensor) -> Tensor:
    query, key, value = (
        part(x).view(*x.shape[:2], -1, 4).transpose(1, 2) for part in (net.q, net.k, net.v)
    )
    mixed = F.scaled_dot_product_attention(query, key, value)
    return net.o(mixed.transpose(1, 2).flatten(2)).mean(1)


def wavenet(net: Any, x: Tensor) -> Tensor:
    return net.b(mean(torch.tanh(net.a(x)) * torch.sigmoid(net.c(x))))


LINEAR, HEAD = nn.Linear, {"b": lambda: nn.Linear(16, 10)}

# Name: the forward, its layers, and how many units each group has.
Case = tuple[Callable[..., Tensor], dict[str, Callable[[], Any]], dict[str, int]]
CASES: dict[str, Case] = {
    "flattened as (C, H, W)": (
        lambda net, x: net.b(relu(net.a(x)).flatten(1)),
        {"a": lambda: conv(3, 16), "b": lambda: LINEAR(1024, 10)},
        {"a": 16},
    ),
    "flattened as (H, W, C)": (
        lambda net, x: net.b(relu(net.a(x)).permute(0, 2, 3, 1).flatten(1)),
        {"a": lambda: conv(3, 16), "b": lambda: LINEAR(1024, 10)},
        {"a": 16},
    ),
    "flattened as (H, C, W)": (
        lambda net, x: net.b(relu(net.a(x)).permute(0, 2, 1, 3).reshape(x.shape[0], -1)),
        {"a": lambda: conv(3, 16), "b": lambda: LINEAR(1024, 10)},
        {"a": 16},
    ),
    "a sequence of columns": (
        lambda net, x: net.b(relu(net.a(x)).permute(0, 3, 1, 2).flatten(2)).mean(1),
        {"a": lambda: conv(3, 16), "b": lambda: LINEAR(128, 10)},
        {"a": 16},
    ),
    "a decoder": (
        lambda net, x: mean(net.b(relu(net.a(mean(x))).view(x.shape[0], -1, 4, 4))),
        {"a": lambda: LINEAR(3, 128), "b": lambda: nn.ConvTranspose2d(8, 10, 4, 2, 1)},
        {"a": 8},
    ),
    "chunks": (c2f, {"a": lambda: conv(3, 16), "c": lambda: conv(8, 8), **HEAD}, {"a": 8}),
    "computed halves": (
        halves, {"a": lambda: conv(3, 16), "b": lambda: LINEAR(8, 10)}, {"a": 8}
    ),
    "slices of fixed size": (
        fixed_slices, {"a": lambda: conv(3, 16), "c": lambda: conv(8, 8), **HEAD}, {"a": 8, "c": 8}
    ),
    "every second channel": (
        lambda net, x: net.b(mean(net.a(x)[:, ::2] * net.a(x)[:, 1::2])),
        {"a": lambda: conv(3, 16), "b": lambda: LINEAR(8, 10)},
        {"a": 8},
    ),
    "stacked side by side": (
        lambda net, x: net.b(mean(torch.stack([relu(net.a(x)), relu(net.c(x))], 1).flatten(1, 2))),
        {"a": lambda: conv(3, 8), "c": lambda: conv(3, 8), **HEAD},
        {"a": 8},
    ),
    "stacked in turns": (
        lambda net, x: net.b(mean(torch.stack([relu(net.a(x)), relu(net.c(x))], 2).flatten(1, 2))),
        {"a": lambda: conv(3, 8), "c": lambda: conv(3, 8), **HEAD},
        {"a": 8},
    ),
    "rolled in space": (
        lambda net, x: net.b(mean(torch.roll(relu(net.a(x)), 3, 2))),
        {"a": lambda: conv(3, 16), **HEAD},
        {"a": 16},
    ),
    "flipped": (
        lambda net, x: net.b(mean(relu(net.a(x)).flip(1))),
        {"a": lambda: conv(3, 16), **HEAD},
        {"a": 16},
    ),
    "pixels shuffled": (
        lambda net, x: mean(net.b(F.pixel_shuffle(relu(net.a(x)), 2))),
        {"a": lambda: conv(3, 16), "b": lambda: conv(4, 10)},
        {"a": 4},
    ),
    "pixels unshuffled": (
        lambda net, x: mean(net.b(F.pixel_unshuffle(relu(net.a(x)), 2))),
        {"a": lambda: conv(3, 16), "b": lambda: conv(64, 10)},
        {"a": 16},
    ),
    "channels shuffled": (
        lambda net, x: mean(net.b(shuffled(relu(net.a(x)), 4))),
        {"a": lambda: conv(3, 16), "b": lambda: conv(16, 10)},
        {"a": 4},
    ),
    "nn.ChannelShuffle": (
        lambda net, x: mean(net.b(F.channel_shuffle(relu(net.a(x)), 4))),
        {"a": lambda: conv(3, 16), "b": lambda: conv(16, 10, groups=2)},
        {"a": 2},
    ),
    "a ShuffleNet block": (
        shufflenet,
        {"a": lambda: conv(3, 16), "c": lambda: conv(8, 8), "b": lambda: conv(16, 10)},
        {"a": 8},
    ),
    "a shortcut padded with channels": (
        option_a, {"a": lambda: conv(3, 8), "c": lambda: conv(8, 16), **HEAD}, {"a": 8}
    ),
    "a concatenation of unequal parts": (
        lambda net, x: mean(net.b(torch.cat([relu(net.a(x)), x, relu(net.c(x))], 1))),
        {"a": lambda: conv(3, 6), "c": lambda: conv(3, 10), "b": lambda: conv(19, 10)},
        {"a": 6, "c": 10},
    ),
    "repeated": (
        lambda net, x: mean(net.b(relu(net.a(x)).repeat(1, 2, 1, 1))),
        {"a": lambda: conv(3, 8), "b": lambda: conv(16, 10)},
        {"a": 8},
    ),
    "repeated one by one": (
        lambda net, x: mean(net.b(relu(net.a(x)).repeat_interleave(2, 1))),
        {"a": lambda: conv(3, 8), "b": lambda: conv(16, 10)},
        {"a": 8},
    ),
    "pooled and viewed": (
        lambda net, x: net.b(F.adaptive_max_pool2d(relu(net.a(x)), 2).view(x.shape[0], -1)),
        {"a": lambda: conv(3, 16), "b": lambda: LINEAR(64, 10)},
        {"a": 16},
    ),
    "squeeze and excitation": (
        excited,
        {
            "a": lambda: conv(3, 16),
            "d": lambda: nn.Conv2d(16, 4, 1),
            "e": lambda: nn.Conv2d(4, 16, 1),
            **HEAD,
        },
        {"a": 16, "d": 4},
    ),
    "groups": (
        lambda net, x: mean(net.c(relu(net.b(relu(net.a(x)))))),
        {
            "a": lambda: conv(3, 16),
            "b": lambda: conv(16, 24, groups=4),
            "c": lambda: conv(24, 10),
        },
        {"a": 4, "b": 6},
    ),
    "a depthwise layer that doubles": (
        lambda net, x: mean(net.c(relu(net.b(relu(net.a(x)))))),
        {"a": lambda: conv(3, 8), "b": lambda: conv(8, 16, groups=8), "c": lambda: conv(16, 10)},
        {"a": 8},
    ),
    "groups of one output": (
        lambda net, x: mean(net.c(relu(net.b(relu(net.a(x)))))),
        {"a": lambda: conv(3, 16), "b": lambda: conv(16, 4, groups=4), "c": lambda: conv(4, 10)},
        {"a": 4},
    ),
    "a transposed layer with groups": (
        lambda net, x: mean(net.c(relu(net.b(relu(net.a(x)))))),
        {
            "a": lambda: conv(3, 16),
            "b": lambda: nn.ConvTranspose2d(16, 12, 2, 2, groups=2),
            "c": lambda: conv(12, 10),
        },
        {"a": 8, "b": 6},
    ),
    "a layer that runs twice": (
        lambda net, x: mean(net.c(relu(net.b(relu(net.b(relu(net.a(x)))))))),
        {"a": lambda: conv(3, 8), "b": lambda: conv(8, 8), "c": lambda: conv(8, 10)},
        {"a": 8},
    ),
    "a sequence that runs twice": (
        lambda net, x: mean(net.c(net.s(net.s(relu(net.a(x)))))),
        {
            "a": lambda: conv(3, 8),
            "s": lambda: nn.Sequential(
                conv(8, 12), nn.BatchNorm2d(12), nn.ReLU(), conv(12, 8)
            ),
            "c": lambda: conv(8, 10),
        },
        {"a": 8, "s.0": 12},
    ),
    "functional weights": (
        lambda net, x: mean(F.conv2d(relu(net.a(x)), net.w, net.v)),
        {
            "a": lambda: conv(3, 8),
            "w": lambda: nn.Parameter(torch.randn(10, 8, 1, 1)),
            "v": lambda: nn.Parameter(torch.randn(10)),
        },
        {"a": 8},
    ),
    "a weight used again, transposed": (
        lambda net, x: net.c(relu(F.linear(relu(net.a(net.z(mean(x)))), net.a.weight.t()))),
        {"z": lambda: LINEAR(3, 12), "a": lambda: LINEAR(12, 16), "c": lambda: LINEAR(12, 10)},
        {"z": 12, "a": 16},
    ),
    "gated linear units": (
        lambda net, x: net.b(mean(F.glu(net.a(x), 1))),
        {"a": lambda: conv(3, 16), "b": lambda: LINEAR(8, 10)},
        {"a": 8},
    ),
    "gates in pairs": (
        wavenet, {"a": lambda: conv(3, 16), "c": lambda: conv(3, 16), **HEAD}, {"a": 16}
    ),
    "a scale for each channel": (
        lambda net, x: net.b(mean(relu(net.a(x)) * net.g.view(1, -1, 1, 1))),
        {"a": lambda: conv(3, 16), "g": lambda: nn.Parameter(torch.randn(16)), **HEAD},
        {"a": 16},
    ),
    "a length of one": (
        lambda net, x: net.b(F.normalize(mean(relu(net.a(x))), dim=1)),
        {"a": lambda: conv(3, 16), **HEAD},
        {"a": 16},
    ),
    "in place": (
        written_in_place, {"a": lambda: conv(3, 16), "c": lambda: conv(16, 16), **HEAD}, {"a": 16}
    ),
    "YOLO's focus": (
        focus, {"a": lambda: conv(3, 8), "c": lambda: conv(32, 10)}, {"a": 8}
    ),
    "an einsum": (
        lambda net, x: torch.einsum("bchw,dc->bd", relu(net.a(x)), net.w) / 64,
        {"a": lambda: conv(3, 16), "w": lambda: nn.Parameter(torch.randn(10, 16))},
        {"a": 16},
    ),
}  # fmt: skip

# Name: the forward, its layers, the group that must stay, and a word of the reason.
Refusal = tuple[Callable[..., Tensor], dict[str, Callable[[], Any]], str, str]
REFUSED: dict[str, Refusal] = {
    "a view of fixed size": (
        lambda net, x: net.b(F.adaptive_avg_pool2d(relu(net.a(x)), 1).view(-1, 16)),
        {"a": lambda: conv(3, 16), **HEAD},
        "a",
        "does not run without",
    ),
    "parts of fixed size": (
        lambda net, x: net.b(mean(torch.cat(net.a(x).split([8, 8], 1)[::-1], 1))),
        {"a": lambda: conv(3, 16), **HEAD},
        "a",
        "split",
    ),
    "unequal parts": (
        lambda net, x: net.b(mean(torch.cat(net.a(x).split([12, 4], 1)[::-1], 1))),
        {"a": lambda: conv(3, 16), **HEAD},
        "a",
        "sizes of its own",
    ),
    "rolled": (
        lambda net, x: net.b(mean(torch.roll(relu(net.a(x)), 3, 1))),
        {"a": lambda: conv(3, 16), **HEAD},
        "a",
        "picked by number",
    ),
    "an index": (
        lambda net, x: net.b(mean(relu(net.a(x))[:, [3, 1, 0, 2]])),
        {"a": lambda: conv(3, 4), "b": lambda: LINEAR(4, 10)},
        "a",
        "picked by number",
    ),
    "unbound": (
        lambda net, x: net.b(mean(torch.stack(relu(net.a(x)).unbind(1)[::-1], 1))),
        {"a": lambda: conv(3, 4), "b": lambda: LINEAR(4, 10)},
        "a",
        "picked by number",
    ),
    "a softmax over channels": (
        lambda net, x: net.b(mean(net.a(x).softmax(1))),
        {"a": lambda: conv(3, 16), **HEAD},
        "a",
        "softmax runs over them",
    ),
    "a mean over channels": (
        lambda net, x: net.b(mean(net.a(x) * net.a(x).mean(1, keepdim=True))),
        {"a": lambda: conv(3, 16), **HEAD},
        "a",
        "mean is taken",
    ),
    "a constant for each channel": (
        lambda net, x: net.b(mean(net.a(x) * torch.linspace(0, 1, 16).view(1, -1, 1, 1).to(x))),
        {"a": lambda: conv(3, 16), **HEAD},
        "a",
        "constant or an input of a fixed size",
    ),
    "multi-head attention": (
        lambda net, x: net.b(net.m(*[net.a(mean(x)[:, None])] * 3, need_weights=False)[0][:, 0]),
        {
            "a": lambda: LINEAR(3, 16),
            "m": lambda: nn.MultiheadAttention(16, 2, batch_first=True),
            **HEAD,
        },
        "m",
        "fixes its width",
    ),
}


def network(forward: Callable[..., Tensor], layers: dict[str, Callable[[], Any]]) -> nn.Module:
    """A network with seeded weights, in eval mode."""
    torch.manual_seed(0)
    return Network(forward, **{name: make() for name, make in layers.items()}).eval()
