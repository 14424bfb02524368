"""Networks that a scheme makes of others: begun anew, turned into a teacher, or frozen a while."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from edgekd.data.views import stream
from edgekd.network.evaluation import evaluating
from edgekd.training.checkpoint import sha256_of_state
from edgekd.training.teachers import Teacher
from edgekd.training.teachers.module import ModuleTeacher
from edgekd.training.teachers.outputs import Outputs


@contextmanager
def drawing(seed: int, *names: object) -> Iterator[None]:
    """Random numbers of its own for each use, and the generator as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, *names))
        yield


def fresh(network: nn.Module, seed: int, *names: object) -> nn.Module:
    """A copy of the same structure, begun anew from a seed.

    Layers draw their weights as they do when they are made. A parameter that no layer can reset (a
    position embedding, a class token) keeps its values in another order.
    """
    made = copy.deepcopy(network)
    made.requires_grad_(True)
    with drawing(seed, *names):
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


@contextmanager
def answering(teachers: Sequence[Teacher]) -> Iterator[None]:
    """Every teacher with layers in eval mode inside, and as it was outside."""
    with ExitStack() as stack:
        for teacher in teachers:
            if teacher.module is not None:
                stack.enter_context(evaluating(teacher.module))
        yield


@contextmanager
def frozen(teacher: Teacher) -> Iterator[nn.Module]:
    """A teacher's network through which gradients pass without being kept; as it was afterwards."""
    network = teacher.module
    assert network is not None
    asked = [(value, value.requires_grad) for value in network.parameters()]
    network.requires_grad_(False)
    try:
        with evaluating(network):
            yield network
    finally:
        network.to("cpu")
        for value, wish in asked:
            value.requires_grad_(wish)


def differentiable(teacher: Teacher, network: nn.Module, x: Tensor) -> Tensor:
    """A frozen teacher's logits (B, classes), with a gradient towards `x`."""
    outputs = teacher.outputs if isinstance(teacher, ModuleTeacher) else Outputs()
    return outputs.logits(network.to(x.device)(x))
