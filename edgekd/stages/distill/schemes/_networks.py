"""Networks made from others: reinitialized, turned into a teacher, or temporarily frozen."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgekd.data.seeds import seeded
from edgekd.errors import EdgekdError
from edgekd.network.evaluation import evaluating
from edgekd.training.checkpoint import sha256_of_state
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.teachers import Teacher
from edgekd.training.teachers.module import ModuleTeacher
from edgekd.training.teachers.outputs import Outputs
from edgekd.values.tree import Tree, leaves


def fresh(network: nn.Module, seed: int, *names: object) -> nn.Module:
    """A copy with the same structure, reinitialized from a seed.

    Layers draw their weights as they do when they are created. A parameter that no layer can reset
    (a position embedding, a class token) keeps its values in another order.
    """
    made = copy.deepcopy(network)
    made.requires_grad_(True)
    with seeded(seed, *names):
        for part in made.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for value in part._parameters.values():
                if value is not None:
                    mixed = torch.randperm(value.numel())
                    value.data = value.data.flatten()[mixed].view_as(value)
    return made


def as_teacher(network: nn.Module, name: str, weight: float = 1.0) -> Teacher:
    """A frozen copy of a network as a teacher, known by its weights."""
    frozen = copy.deepcopy(network).requires_grad_(False).eval()
    frozen.zero_grad(set_to_none=True)
    return ModuleTeacher(name, sha256_of_state(frozen), weight, frozen, Outputs())


def copy_faults(
    student: nn.Module, context: Context, name: str, others: Sequence[Teacher] = ()
) -> list[EdgekdError]:
    """Why a copy of the student, called `name`, and the `others` can't teach the student."""
    return check_teaching(student, context.with_teachers([as_teacher(student, name), *others]))


def learn_labels(network: nn.Module, context: Context) -> nn.Module:
    """Train a network in place from the labels alone: one phase of a scheme."""
    weights = context.teaching.sample_weights
    alone = context.with_teachers(()).with_teaching(
        losses=(),
        label_weight=1.0,
        label_schedule=None,
        calibrate_teachers=False,
        sample_weights="equal" if weights == "disagreement" else weights,
    )
    return teach(network, alone)


@contextmanager
def frozen(teacher: Teacher) -> Iterator[nn.Module]:
    """A teacher's network that passes gradients on without keeping any; restored afterwards."""
    network = teacher.module
    assert network is not None
    before = [(value, value.requires_grad) for value in network.parameters()]
    network.requires_grad_(False)
    try:
        with evaluating(network):
            yield network
    finally:
        network.to("cpu")
        for value, required in before:
            value.requires_grad_(required)


def differentiable(teacher: Teacher, network: nn.Module, x: Tree) -> Tensor:
    """A frozen teacher's logits (B, classes), with a gradient towards `x`."""
    outputs = teacher.outputs if isinstance(teacher, ModuleTeacher) else Outputs()
    logits: Tensor = outputs.logits(network.to(leaves(x)[0].device)(x))
    return logits
