"""Small inputs that every registered loss can read, by name and kind, for tests of all of them."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.registry import LOSSES
from edgekd.training.losses import DepthsLoss, FeatureLoss, Loss, OutputLoss, ResponseLoss

SAMPLES = 12
"""How many training samples a loss with a memory is told of."""

MAP, TOKENS, VECTOR = (3, 4, 4), (5, 8), (6,)
"""Shapes of one sample's features: a map, hidden states, a vector."""

FEATURES = {
    "graph": [(5, 4), (5, 5), (4,)],
    "minilm": [(2, 5, 5), TOKENS],
    "transformer": [TOKENS, TOKENS, (2, 5, 5)],
    "adversarial": [MAP, TOKENS],
}
OUTPUTS = {
    "ctc": (6, 4),
    "sequence": (6, 4),
    "own-samples": (6, 4),
    "segmentation-pixels": MAP,
    "segmentation-holistic": MAP,
    "keypoint": (2, 5, 5),
    "detection-distribution": (64, 5),
}
DETECTOR = (8, 4, 4)  # 5 + 3 classes on 4 x 4 cells

NEVER_ZERO = {
    "adversarial": "the discriminators' share stays",
    "crd": "the negatives' share stays",
    "cross-lingual": "it reads the student's network",
    "segmentation-holistic": "a critic has no least",
    "review": "the fused features differ from the student's own",
    "sequence": "the certainty of the student stays",
    "ttm": "zero at z_t / T",
    "wttm": "zero at z_t / T",
    "vid": "a likelihood",
    "detection-boxes": "zero only where the student beats the teacher",
}


class Parrot(nn.Module):
    """A network of tokens or vectors that is linear in its input: (B, L) or (B, D)."""

    def __init__(self, outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.outputs = outputs
        generator = torch.Generator().manual_seed(5)
        size = torch.Size(outputs).numel()
        self.weight = nn.Parameter(torch.randn(6, size, generator=generator) / 4)

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() @ self.weight.to(x.dtype).float()).view(-1, *self.outputs)


@dataclass
class Case:
    """One loss with what it compares; `both` gives its value for the two sides."""

    name: str
    loss: Loss
    student: list[Tensor]
    teacher: list[Tensor]
    labels: Tensor
    extra: dict[str, Any] = field(default_factory=dict)

    def value(self) -> Tensor:
        loss = self.loss
        if isinstance(loss, DepthsLoss):
            return loss(self.student, self.teacher, **self.extra)
        if isinstance(loss, FeatureLoss):
            return loss(self.student[0], self.teacher[0], **self.extra)
        return loss(self.student[0], self.teacher[0], self.labels, **self.extra)

    def equal(self) -> "Case":
        """The same with the teacher's side in the student's place, its own gradient to it."""
        mine = [side.detach().clone().requires_grad_() for side in self.teacher]
        extra = dict(self.extra)
        if "student_outputs" in extra:
            extra["student_outputs"] = extra["teacher_outputs"].clone()
        return replace(self, student=mine, extra=extra)


def shapes_of(name: str, loss: Loss) -> list[tuple[int, ...]]:
    """What one sample's features or outputs look like to that loss."""
    if name in FEATURES:
        return FEATURES[name]
    if isinstance(loss, ResponseLoss):
        return [(4,)]
    if isinstance(loss, OutputLoss):
        return [OUTPUTS.get(name, DETECTOR if name.startswith("detection") else VECTOR)]
    if name == "detection-features":
        return [MAP]
    return [MAP, (6, 2, 2)] if isinstance(loss, DepthsLoss) else [MAP]


def case(name: str, count: int = 4, dtype: torch.dtype = torch.float32, **keys: Any) -> Case:
    """A registered loss with its defaults, made ready for random inputs of `count` samples."""
    torch.manual_seed(7)
    loss: Loss = LOSSES.get(name).make(**keys)
    shapes = shapes_of(name, loss)
    inputs = torch.randint(0, 4, (count, 6)).to(dtype)
    if name == "segmentation-holistic":
        inputs = torch.rand(count, 1, 8, 8, dtype=dtype)
    targets = targets_of(name, count, shapes[0], dtype)
    ready(loss, shapes, tuple(targets.shape[1:]), tuple(inputs.shape[1:]))
    generator = torch.Generator().manual_seed(3)

    def draw() -> list[Tensor]:
        made = [torch.randn(count, *shape, generator=generator, dtype=dtype) for shape in shapes]
        return [v.softmax(3) if name in ("minilm", "transformer") and v.ndim == 4 else v
                for v in made]  # fmt: skip

    student, teacher = draw(), draw()
    for each in student:
        each.requires_grad_()
    outputs = shapes[0] if isinstance(loss, OutputLoss) else (4,)
    known: dict[str, Any] = {
        "targets": targets,
        "index": torch.arange(count),
        "inputs": inputs,
        "shown": torch.randn(count, 6, dtype=dtype),
        "student_network": Parrot(outputs),
        "teacher_network": Parrot(outputs),
        "student_outputs": torch.randn(count, 4, dtype=dtype),
        "teacher_outputs": torch.randn(count, 4, dtype=dtype),
    }
    loss.to(dtype)
    extra = {} if isinstance(loss, ResponseLoss) else {key: known[key] for key in loss.needs}
    return Case(name, loss, student, teacher, targets, extra)


def ready(loss: Loss, shapes: list, targets: tuple, inputs: tuple) -> None:
    """Make what the loss learns and remembers."""
    if isinstance(loss, DepthsLoss):
        loss.prepare(shapes, shapes)
    elif isinstance(loss, FeatureLoss):
        loss.prepare(shapes[0], shapes[0])
    elif isinstance(loss, OutputLoss):
        loss.prepare(shapes[0], targets, inputs)
    if not isinstance(loss, ResponseLoss):
        loss.remember(SAMPLES)


def targets_of(name: str, count: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Boxes for a detector, numbers for a regression, classes for everything else."""
    if name.startswith("detection"):
        boxes = torch.tensor([[1.0, 0.3, 0.4, 0.5, 0.6], [-1.0, 0.0, 0.0, 0.0, 0.0]], dtype=dtype)
        return boxes.expand(count, 2, 5)
    if name in ("regression", "cross-lingual"):
        return torch.zeros(count, *shape, dtype=dtype)
    return torch.arange(count) % 4
