"""Tiny networks and samples that the tests of every scheme share, and a table for each scheme."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from contexts import context
from torch import Tensor, nn

from edgekd.data.samples import Augmentation, Data, Samples
from edgekd.models.distilled_transformer import distilled_transformer
from edgekd.models.resnet import resnet8
from edgekd.stages.distill.schemes import Scheme, scheme_of
from edgekd.training.context import Context
from edgekd.training.teaching import Teaching

torch.set_num_threads(1)

CLASSES = 4


@dataclass
class Network:
    """A teacher with layers, which nobody froze beforehand."""

    module: nn.Module | None
    name: str = "big"
    key: str = "k1"
    weight: float = 1.0

    def logits(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.module(x)


@dataclass
class Box:
    """A black box that favours the label hidden in the input."""

    name: str = "box"
    key: str = "k2"
    weight: float = 1.0
    module: None = None

    def logits(self, x: Tensor) -> Tensor:
        return 4 * torch.eye(CLASSES)[x.flatten(1)[:, :CLASSES].argmax(1)]


def samples(count: int, seed: int) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 8, 8, generator=generator)
    return Samples(x, x.flatten(1)[:, :CLASSES].argmax(1))


def data(augmentation: Augmentation | None = None, count: int = 48) -> Data:
    parts = (samples(count, 0), samples(24, 1), samples(24, 2))
    return Data("hidden", *parts, CLASSES, augmentation or Augmentation())


def network(seed: int = 0, width: int = 4, classes: int = CLASSES) -> nn.Module:
    torch.manual_seed(seed)
    return resnet8(channels=1, classes=classes, widths=(width, width, 2 * width)).eval()


def token_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return distilled_transformer(
        size=8, channels=1, classes=CLASSES, patch=4, width=8, depth=1, heads=2
    ).eval()


KL: dict[str, Any] = {"name": "kl", "temperature": 2.0}
ASSISTANT = {
    "factory": "edgekd.models.resnet:resnet8",
    "arguments": {"channels": 1, "classes": CLASSES, "widths": [4, 8, 8]},
}
TASKS = [[0, 1], [2, 3]]

# A table that works for each scheme, and what of the teaching it can't do with.
TABLES: dict[str, dict[str, Any]] = {
    "offline": {},
    "multi-teacher": {"fusion": "attention", "width": 4},
    "ensemble": {"members": 2},
    "specialists": {"specialists": 2, "epochs": 1},
    "mutual": {"peers": 1, "with_teacher": True},
    "on-the-fly": {"branches": 2},
    "born-again": {"generations": 1},
    "own-teacher": {},
    "last-epoch": {},
    "progressive": {"assistants": [ASSISTANT], "dense": True, "drop": 0.5},
    "black-box": {"answers": "labels"},
    "data-free": {"objective": "zskt", "samples": 48, "student_steps": 2, "width": 4, "latent": 8},
    "deep-inversion": {"images": 16, "chunk": 8, "iterations": 4, "competition": 1.0},
    "lwf": {"tasks": TASKS},
    "dark-experience-replay": {"tasks": TASKS, "memory": 8},
    "federated": {"clients": 2, "rounds": 2, "public_share": 0.25},
    "distillation-token": {"targets": "hard"},
    "elastic": {"widths": (0.5, 0.75)},
}
WITHOUT_LOSSES = ("black-box", "distillation-token", "dark-experience-replay")
WITHOUT_LABEL_WEIGHT = ("last-epoch", "dark-experience-replay")


def keys_for(name: str, **keys: Any) -> dict[str, Any]:
    """A short teaching that the scheme accepts."""
    table: dict[str, Any] = {"epochs": 2, "batch_size": 16, "learning_rate": 0.01}
    table["losses"] = () if name in WITHOUT_LOSSES else (KL,)
    if name not in WITHOUT_LABEL_WEIGHT:
        table["label_weight"] = 0.5
    return {**table, **keys}


def teachers_for(name: str) -> list[Network | Box]:
    first = Network(network(1, width=8))
    return [first, Box(weight=2.0)] if name == "multi-teacher" else [first]


def student_for(name: str, seed: int = 0) -> nn.Module:
    return token_network(seed) if name == "distillation-token" else network(seed)


def situation(name: str, work: Path, **changes: Any) -> Context:
    """A sound situation for a scheme; `teaching` changes keys of the teaching."""
    keys = keys_for(name, **changes.pop("teaching", {}))
    facts: dict[str, Any] = {"data": data(), "teachers": teachers_for(name), "work": work}
    return context(Teaching(**keys), **{**facts, **changes})


def scheme(name: str, **keys: Any) -> Scheme:
    return scheme_of({"name": name, **{**TABLES[name], **keys}}, "scheme")


def hooks_of(module: nn.Module) -> list[str]:
    """The layers with any hook on them."""
    return [
        name
        for name, part in module.named_modules()
        if part._forward_hooks or part._forward_pre_hooks or part._backward_hooks
    ]
