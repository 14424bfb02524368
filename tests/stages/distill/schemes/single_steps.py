"""One plain gradient step of a scheme, and the same step worked out from outside."""

import torch
from classroom import CLASSES, samples, scheme, situation
from states import state
from torch import Tensor, nn

from edgekd.data.samples import Data
from edgekd.training.checkpoint import read_tensors
from edgekd.training.loop import CHECKPOINT

COUNT, RATE, TEMPERATURE = 16, 0.1, 2.0


def layers(seed: int = 0) -> nn.Module:
    """Two linear layers: no batch norm, so a step can be worked out from outside."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, CLASSES)).eval()


def whole_batch() -> Data:
    part = samples(COUNT, 0)
    return Data("hidden", part, part, part, CLASSES)


def one_step(name, tmp_path, student, teachers=(), epochs=1, phase="", **table):
    """One plain gradient step on all samples at once: the losses told, and the student after it."""
    keys = {
        "epochs": epochs,
        "batch_size": COUNT,
        "learning_rate": RATE,
        "optimizer": "sgd",
        "momentum": 0.0,
        "weight_decay": 0.0,
        "warmup": 0.0,
        "schedule": "constant",
        "keep": "last",
        **table.pop("teaching", {}),
    }
    at = situation(name, tmp_path, teaching=keys, data=whole_batch(), teachers=teachers, seed=3)
    made = scheme(name, **table)
    assert made.check(student, at) == []
    taught = made.teach(student, at).module
    found = read_tensors(tmp_path / phase / CHECKPOINT)
    return [epoch["loss"] for epoch in found[1]["history"]], state(taught)


def kl(student: Tensor, teacher: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """T^2 KL(teacher || student), spelled out."""
    p = torch.softmax(teacher.detach() / temperature, dim=1)
    q = torch.softmax(student / temperature, dim=1)
    return temperature**2 * (p * (p / q).log()).sum(1).mean()


def stepped(student: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The weights after one plain gradient step."""
    names, values = zip(*student.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, values)
    return {n: v - RATE * g for n, v, g in zip(names, values, gradients, strict=True)}


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return all(torch.allclose(found[key], expected[key], atol=1e-5) for key in expected)


X, Y = whole_batch().train.x, whole_batch().train.y
