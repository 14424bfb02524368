"""Inference: a network in eval mode, without gradients, its mode restored afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.data.samples import Samples


def predict(module: nn.Module, x: Tensor, batch: int = 256) -> Tensor:
    """Outputs (N, ...) for inputs (N, ...), on the CPU, in eval mode, without gradients. The module
    gets copies: a `forward` that works in place must not change the samples.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with evaluating(module), torch.no_grad():
        parts = (part.to(device, copy=True) for part in torch.split(x, batch))
        return torch.cat([module(part).float().cpu() for part in parts])


def evaluate(module: nn.Module, samples: Samples, batch: int = 256) -> float:
    """The mean of the task's score; for classification, top-1 accuracy."""
    return float(samples.task.score(predict(module, samples.x, batch), samples.y).mean())


def protect_inputs(module: nn.Module) -> None:
    """Make the module receive copies of its inputs, which it may change in place, because samples
    are read repeatedly by both teacher and student.
    """
    module.register_forward_pre_hook(_copied)


def _copied(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.clone() if isinstance(each, Tensor) else each for each in inputs)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A context in eval mode; each layer's own mode is restored afterwards."""
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
