"""Networks in which channels are moved, joined, divided or counted on their way between layers."""

from collections.abc import Callable
from typing import Any

import torch
from foreign import Foreign, conv, mean, relu
from torch import Tensor, nn
from torch.nn import functional as F


def moved(
    use: Callable[[Any, Tensor], Tensor], width: int = 8, **layers: Callable[[], Any]
) -> Foreign:
    """A function of 8 feature maps before a convolution of `width` channels."""
    return Foreign(
        lambda net, x: net.o(mean(relu(net.b(use(net, relu(net.a(x))))))),
        lambda: {
            "a": conv(3, 8),
            "b": conv(width, 8),
            **{name: make() for name, make in layers.items()},
            "o": nn.Linear(8, 5),
        },
    )


def linear(size: int) -> Callable[[], nn.Linear]:
    return lambda: nn.Linear(size, size)


def windows(net: Any, x: Tensor) -> Tensor:
    """Swin's windows of 4x4, and back."""
    x = x.view(-1, 8, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 8)
    x = net.l(x).view(-1, 2, 2, 4, 4, 8)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, 8, 8, 8)


def patches(net: Any, x: Tensor) -> Tensor:
    x = net.l(F.unfold(x, 2, stride=2).transpose(1, 2)).transpose(1, 2)
    return F.fold(x, (8, 8), 2, stride=2)


def sequence(net: Any, x: Tensor) -> Tensor:
    return net.l(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (8, 8))


def spatial_attention(net: Any, x: Tensor) -> Tensor:
    maps = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
    return x * net.l(maps).sigmoid()


def efficient_attention(net: Any, x: Tensor) -> Tensor:
    return x * net.l(x.mean((2, 3)).unsqueeze(1)).sigmoid().view(-1, 8, 1, 1)


def dense_block(net: Any, x: Tensor) -> Tensor:
    first = relu(net.a(x))
    second = torch.cat([first, relu(net.b(first))], 1)
    return net.o(mean(relu(net.c(torch.cat([first, second], 1)))))


def pairs(net: Any, x: Tensor) -> Tensor:
    """Bilinear pooling (Lin et al. 2015)."""
    y = relu(net.a(x))
    return net.o(torch.einsum("bchw,bdhw->bcd", y, y).flatten(1) / 64)


def to_space(net: Any, x: Tensor) -> Tensor:
    return x.view(-1, 2, 2, 2, 8, 8).permute(0, 3, 4, 1, 5, 2).reshape(-1, 2, 16, 16)


def to_depth(net: Any, x: Tensor) -> Tensor:
    return x.view(-1, 8, 4, 2, 4, 2).permute(0, 3, 5, 1, 2, 4).reshape(-1, 32, 4, 4)


PICKED = [7, 0, 1, 1, 2, 5, 4, 3]

MOVED: dict[str, Foreign] = {
    "pixels shuffled and back": moved(lambda net, x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2)),
    "to space by hand": moved(to_space, 2),
    "to depth by hand": moved(to_depth, 32),
    "rolled": moved(lambda net, x: x.roll(3, 1)),
    "flipped": moved(lambda net, x: x.flip((1, 3))),
    "gather": moved(
        lambda net, x: x.gather(1, torch.arange(7, -1, -1).view(1, 8, 1, 1).expand_as(x))
    ),
    "index_select": moved(
        lambda net, x: x.index_select(1, net.i), i=lambda: torch.tensor(PICKED)
    ),
    "a list of places": moved(lambda net, x: x[:, PICKED]),
    "slices": moved(lambda net, x: torch.cat([x[:, 6:], x[:, :2], x[:, 2:6]], 1)),
    "strides": moved(lambda net, x: torch.cat([x[:, ::2], x[:, 1::2]], 1)),
    "two factors": moved(lambda net, x: x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)),
    "three factors": moved(
        lambda net, x: x.unflatten(1, (2, 2, 2)).permute(0, 3, 1, 2, 4, 5).flatten(1, 3)
    ),
    "interleaved": moved(lambda net, x: torch.stack([x, -x], 2).view(-1, 16, 8, 8), 16),
    "interleaved columns": moved(lambda net, x: torch.stack([x, -x], -1).view(-1, 8, 8, 16)),
    "expanded behind": moved(
        lambda net, x: x[:, :, None].expand(-1, -1, 2, -1, -1).reshape(-1, 16, 8, 8), 16
    ),
    "expanded before": moved(
        lambda net, x: x[:, None].expand(-1, 2, -1, -1, -1).flatten(1, 2), 16
    ),
    "repeat": moved(lambda net, x: x.repeat(1, 2, 1, 1), 16),
    "tile": moved(lambda net, x: x.tile(1, 2, 1, 1), 16),
    "repeat_interleave": moved(lambda net, x: x.repeat_interleave(2, 1), 16),
    "padded with channels": moved(lambda net, x: F.pad(x, (0, 0, 0, 0, 2, 1)), 11),
    "padded around": moved(lambda net, x: F.pad(x, (1, 1, 1, 1), mode="circular")),
    "joined with zeros": moved(lambda net, x: torch.cat([x, torch.zeros_like(x[:, :3])], 1), 11),
    "unequal parts": moved(
        lambda net, x: torch.cat([relu(part - 0.1) for part in x.split([2, 6], 1)][::-1], 1)
    ),
    "tensor_split": moved(lambda net, x: torch.cat(x.tensor_split(2, 1)[::-1], 1)),
    "unbind": moved(lambda net, x: torch.stack(x.unbind(1)[::-1], 1)),
    "movedim": moved(lambda net, x: net.l(x.movedim(1, -1)).movedim(-1, 1), l=linear(8)),
    "turned": moved(lambda net, x: x.transpose(2, 3).flip(2)),
    "channels as rows": moved(lambda net, x: x.permute(0, 2, 1, 3).reshape(-1, 8, 8, 8)),
    "a sequence of pixels": moved(sequence, l=linear(8)),
    "mixed pixels": moved(lambda net, x: net.l(x.flatten(2)).unflatten(2, (8, 8)), l=linear(64)),
    "mixed channels": moved(lambda net, x: net.l(x.transpose(1, 3)).transpose(1, 3), l=linear(8)),
    "windows": moved(windows, l=linear(8)),
    "patches": moved(patches, l=linear(32)),
    "maxout": moved(lambda net, x: x.unflatten(1, (4, 2)).amax(2), 4),
    "a mean of pairs": moved(lambda net, x: x.unflatten(1, (4, 2)).mean(2), 4),
    "a sum of groups": moved(lambda net, x: x.view(-1, 2, 4, 8, 8).sum(1), 4),
    "gated halves": moved(lambda net, x: x[:, :4] * x[:, 4:].sigmoid(), 4),
    "glu": moved(lambda net, x: F.glu(x, 1), 4),
    "both signs": moved(lambda net, x: relu(torch.cat([x, -x], 1)), 16),
    "softmax over channels": moved(lambda net, x: x.softmax(1)),
    "layer norm over channels": moved(
        lambda net, x: net.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n=lambda: nn.LayerNorm(8)
    ),
    "group norm": moved(lambda net, x: net.n(x), n=lambda: nn.GroupNorm(4, 8)),
    "local response": moved(lambda net, x: F.local_response_norm(x, 3)),
    "efficient attention": moved(
        efficient_attention, l=lambda: nn.Conv1d(1, 1, 3, padding=1)
    ),
    "spatial attention": moved(spatial_attention, l=lambda: conv(2, 1)),
    "channels as depth": moved(
        lambda net, x: net.l(x.unsqueeze(1)).squeeze(1), l=lambda: nn.Conv3d(1, 1, 3, padding=1)
    ),
    "cumsum": moved(lambda net, x: x.cumsum(1) / 8),
    "sorted": moved(lambda net, x: x.sort(1).values),
    "topk": moved(lambda net, x: x.topk(4, 1).values, 4),
    "prelu": moved(lambda net, x: net.p(x - 0.5), p=lambda: nn.PReLU(8)),
    "pairs": Foreign(pairs, lambda: {"a": conv(3, 8), "o": nn.Linear(64, 5)}),
    "a dense block": Foreign(
        dense_block,
        lambda: {"a": conv(3, 4), "b": conv(4, 4), "c": conv(12, 8), "o": nn.Linear(8, 5)},
    ),
}  # fmt: skip
