"""A network run as it is: in eval mode, without gradient, and left in the mode that it was in."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.data.samples import Samples


def predict(module: nn.Module, x: Tensor, batch: int = 256) -> Tensor:
    """(N, ...) -> outputs (N, ...) on the CPU, in eval mode, without gradient.

    The module gets copies: a `forward` that works in place must not change the samples.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with evaluating(module), torch.no_grad():
        parts = (part.to(device, copy=True) for part in torch.split(x, batch))
        return torch.cat([module(part).float().cpu() for part in parts])


def evaluate(module: nn.Module, samples: Samples, batch: int = 256) -> float:
    """The mean of the task's score: the share of samples whose largest logit is at the label."""
    return float(samples.task.score(predict(module, samples.x, batch), samples.y).mean())


def protect_inputs(module: nn.Module) -> None:
    """From now on hand the module copies of its inputs, which it may change in place.

    Samples are read again and again, by teacher and student alike.
    """
    module.register_forward_pre_hook(_copied)


def _copied(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.clone() if isinstance(each, Tensor) else each for each in inputs)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; outside, each layer is in the mode that it was in."""
    exported = getattr(module, "_exported_training", None)  # set by torchao's train() and eval()
    modes = [(part, part.training) for part in module.modules()]
    with suppress(NotImplementedError):  # an exported graph that has only one mode
        module.eval()
    try:
        yield
    finally:
        if exported:
            module.train()
        elif exported is None:
            for part, mode in modes:
                part.training = mode
