"""Inference: a network in eval mode, without gradients, its mode restored afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn

from edgekd.data.samples import Samples
from edgekd.values.tree import Tree, as_float, chunks, concatenated, moved


def predict(module: nn.Module, inputs: Samples | Tree, batch: int = 256) -> Tree:
    """Outputs (N, ...) for inputs (N, ...) or for samples, which are read a batch at a time: on the
    CPU, in float32 unless they are integers or truth values, in eval mode, without gradients. The
    module gets copies: a `forward` that works in place must not change the samples.
    """
    parts = inputs.inputs.chunks(batch) if isinstance(inputs, Samples) else chunks(inputs, batch)
    with evaluating(module), torch.no_grad():
        return concatenated([_run(module, part) for part in parts])


def evaluate(module: nn.Module, samples: Samples, batch: int = 256) -> float:
    """The mean of the task's score; for classification, top-1 accuracy."""
    scores: list[Tensor] = []
    if samples.task.judges_whole:
        outputs = samples.task.main(predict(module, samples, batch))
        return float(samples.task.judged(outputs, samples.y).mean())
    with evaluating(module), torch.no_grad():
        for x, y in samples.batches(batch):
            scores.append(samples.task.score(samples.task.main(_run(module, x)), y))
    return float(torch.cat(scores).mean())


def _run(module: nn.Module, x: Tree) -> Tree:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return moved(as_float(module(moved(x, device, copy=True))), "cpu")


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
