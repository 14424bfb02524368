"""Networks that change their values in place, whole or in parts, and what else reads them."""

from collections.abc import Callable
from typing import Any

import torch
from foreign import Foreign, conv, end, mean, relu, stack
from torch import Tensor
from torch.nn import functional as F


def half(x: Tensor) -> None:
    x[:, :4] = x[:, 4:].clone()


def strided(x: Tensor) -> None:
    x[:, ::2] *= 0.5


def last_column(x: Tensor) -> None:
    x[..., -1] = 0.0


def below_zero(x: Tensor) -> None:
    x[x < 0] = 0.0


def where_all_are_low(x: Tensor) -> None:
    x[x.amax((2, 3)) < 0.6] = -0.5


def a_window(x: Tensor) -> None:
    x[:, :, 2:5, 2:5] = torch.ones(3, 3)


CHANGES: dict[str, Callable[[Tensor], Any]] = {
    "half by half": half,
    "every second channel": strided,
    "the last column": last_column,
    "what is below zero": below_zero,
    "channels that are low": where_all_are_low,
    "a window": a_window,
    "one channel": lambda x: x[:, 1].add_(1.0),
    "a flat view": lambda x: x.view(x.shape[0], -1)[:, ::3].mul_(2),
    "a transposed view": lambda x: x.transpose(1, 2)[:, 0].zero_(),
    "channels last": lambda x: x.permute(0, 2, 3, 1)[..., 2:4].clamp_(0, 0.5),
    "swapped axes": lambda x: x.swapaxes(2, 3).add_(torch.arange(8.0) / 8),
    "index_fill_": lambda x: x.index_fill_(1, torch.tensor([1, 3]), 0.3),
    "index_add_": lambda x: x.index_add_(1, torch.tensor([0, 2]), x[:, 4:6].clone()),
    "index_copy_": lambda x: x.index_copy_(1, torch.tensor([0, 2]), x[:, 4:6].clone()),
    "copy_": lambda x: x.copy_(x.flip(1)),
    "addcmul_": lambda x: x.addcmul_(x.clone(), x.clone(), value=0.5),
    "lerp_": lambda x: x.lerp_(torch.zeros_like(x), 0.25),
    "less its mean": lambda x: x.sub_(x.mean((2, 3), keepdim=True)),
    "over its largest": lambda x: x.div_(x.abs().amax((1, 2, 3), keepdim=True)),
    "rounded": lambda x: x.round_(),
    "masked_fill_": lambda x: x.masked_fill_(torch.eye(8, dtype=torch.bool), 0.5),
    "narrow": lambda x: x.narrow(1, 2, 3).neg_(),
    "select": lambda x: x.select(1, 0).copy_(x.select(1, 5)),
    "the diagonal": lambda x: x.diagonal(dim1=2, dim2=3).fill_(0),
    "as_strided": lambda x: x.as_strided((x.shape[0], 8), (512, 64)).add_(1),
    "scatter_": lambda x: x.scatter_(
        1, torch.zeros(x.shape[0], 1, 8, 8, dtype=torch.long), 0.5
    ),
}  # fmt: skip


def changed(change: Callable[[Tensor], Any]) -> Foreign:
    """What one convolution gives is changed before the next one reads it."""

    def use(net: Any, x: Tensor) -> Tensor:
        y = net.a(x)
        change(y)
        return net.o(mean(net.b(y)))

    return Foreign(use, stack(b=lambda: conv(8, 8)))


def added(net: Any, x: Tensor) -> Tensor:
    y = z = net.a(x)
    z += net.b(relu(y))
    return end(net, y)


def read_before(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    z = net.b(y)
    y.relu_()
    return end(net, z + y)


def viewed_before(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    part = y[:, :4]
    y.mul_(2.0)
    return end(net, net.b(torch.cat([part, part], 1)))


def in_turns(net: Any, x: Tensor) -> Tensor:
    y, parts = net.a(x), []
    for number in range(4):
        parts.append(y[:, 2 * number : 2 * number + 2] * (number + 1))
        y[:, 2 * number] += 1
    return end(net, net.b(torch.cat(parts, 1)) + y)


def filled(net: Any, x: Tensor) -> Tensor:
    made, y = x.new_zeros(x.shape[0], 8, 8, 8), relu(net.a(x))
    made[:, :4] = y[:, 4:]
    made[:, 4:, 1:, :] = y[:, :4, :-1, :]
    return end(net, net.b(made))


def shifted(net: Any, x: Tensor) -> Tensor:
    """The temporal shift module (Lin et al. 2019), along the rows."""
    y = net.a(x)
    made = torch.zeros_like(y)
    made[:, :2, :-1] = y[:, :2, 1:]
    made[:, 2:4, 1:] = y[:, 2:4, :-1]
    made[:, 4:] = y[:, 4:]
    return end(net, net.b(made))


def input_read_again(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    x.mul_(0.5)
    return end(net, y + net.c(x))


IN_PLACE: dict[str, Foreign] = {
    **{name: changed(change) for name, change in CHANGES.items()},
    **{
        use.__name__: Foreign(use, stack(b=lambda: conv(8, 8)))
        for use in (added, read_before, viewed_before, in_turns, filled, shifted)
    },
    "input_read_again": Foreign(input_read_again, stack(c=lambda: conv(3, 8))),
}

REFUSED: dict[str, tuple[Foreign, str]] = {
    "a chunk": (
        changed(lambda x: x.chunk(2, 1)[0].mul_(x.chunk(2, 1)[1].sigmoid())),
        "is a view and is being modified inplace",
    ),
    "unbound": (
        changed(lambda x: [part.tanh_() for part in x.unbind(1)[:3]]),
        "is a view and is being modified inplace",
    ),
    "out=": (changed(lambda x: torch.add(x, 1.0, out=x)), "support automatic differentiation"),
    "F.normalize(out=)": (
        changed(lambda x: F.normalize(x, dim=1, out=x)),
        "support automatic differentiation",
    ),
    "data": (changed(lambda x: x.data[:, 0].zero_()), "torch.export can't trace this model"),
    "unfold": (
        changed(lambda x: x.unfold(2, 2, 2).mul_(0.5)),
        "the exported graph does not run on",
    ),
}
