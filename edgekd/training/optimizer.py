"""The optimizer, its learning rate, and the devices for training."""

import math
import os
from typing import Any

import torch
from torch import nn

from edgekd.errors import InputError
from edgekd.training.sharding import is_divided
from edgekd.training.teaching import Training


def rate_share(step: int, total: int, warmup: float, schedule: str) -> float:
    """The share of the learning rate in step `step` of `total`, counted from 0."""
    rising = math.ceil(warmup * total)
    if step < rising:
        return (step + 1) / rising
    gone = (step - rising) / max(1, total - rising)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * gone))
    return 1 - gone if schedule == "linear" else 1.0


def make_fabric(precision: str) -> Any:
    """Lightning Fabric on this process's devices; `torchrun` sets how many processes there are."""
    from lightning_fabric import Fabric

    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    fabric = Fabric(
        devices=local,
        num_nodes=max(1, world // local),
        strategy="ddp" if world > 1 else "auto",
        precision=precision,
    )
    fabric.launch()
    return fabric


def make_optimizer(
    module: nn.Module, training: Training, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW or SGD over every parameter that requires a gradient."""
    parameters = [value for value in module.parameters() if value.requires_grad]
    if not parameters:
        raise InputError("nothing to train: no parameter requires a gradient", where="training")
    groups = [
        {
            "params": [
                p for p in parameters if (p.ndim > 1) == decays and is_divided(p) == divided
            ],
            "weight_decay": training.weight_decay if decays else 0.0,
        }
        for divided in (False, True)  # PyTorch steps with one kind of tensors at a time
        for decays in (True, False)
    ]
    groups = [group for group in groups if group["params"]]
    fused = device.type in ("cpu", "cuda")
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=training.learning_rate, fused=fused)
    return torch.optim.SGD(
        groups,
        lr=training.learning_rate,
        momentum=training.momentum,
        nesterov=training.momentum > 0,
        fused=fused,
    )
