"""Whether a network's loss has a gradient with respect to its inputs."""

import torch
from torch import nn

from edgekd.data.samples import Samples

NO_GRADIENT = "the network's loss has no gradient with respect to its inputs"


def has_gradient(network: nn.Module, samples: Samples) -> bool:
    """Whether the task's loss on a few samples depends on their inputs at all."""
    few = samples.first(8)
    x = few.x.clone().requires_grad_()
    loss = samples.task.label_loss(network(x), few.y)
    if not loss.requires_grad:
        return False
    (slope,) = torch.autograd.grad(loss, x, allow_unused=True)
    return slope is not None and bool((slope != 0).any())
