"""Default search spaces, one file each: the stages that are tried if a recipe leaves them open."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.errors import InputError
from edgekd.registry import SPACES

Stages = list[dict[str, Any]]


@dataclass(frozen=True)
class Facts:
    """What a space may depend on: the share of the network's MACs by kind of layer
    ("convolution", "linear", "matmul"), whether it has attention, the task, the types that are
    fast on every target, whether a target runs int8 only, and whether the model is a finished
    file."""

    shares: Mapping[str, float]
    attention: bool
    task: str
    fast_dtypes: tuple[str, ...]
    int8_only: bool
    finished_file: str = ""


class Space(ABC):
    """A family's space. It is a recipe's `stages`, with ranges where a search is to choose."""

    @abstractmethod
    def suits(self, facts: Facts) -> float:
        """How much of the network it can shrink, 0 to 1; the space with the most is taken."""

    @abstractmethod
    def stages(self, facts: Facts) -> Stages:
        """The stages' tables with their ranges."""


def space_for(facts: Facts, name: str = "", where: str = "--space") -> tuple[str, Space]:
    """The named space, or the one that suits the network best; the first by name among equals."""
    if name:
        return name, SPACES.get(name, where).make()
    made = [(name, SPACES.get(name).make()) for name in SPACES.names()]
    best = max(made, key=lambda one: one[1].suits(facts))
    if best[1].suits(facts) <= 0:
        kinds = ", ".join(f"{share:.0%} {kind}" for kind, share in facts.shares.items()) or "none"
        raise InputError(
            f"no default space suits this network (multiply-accumulates: {kinds})",
            where="stages",
            allowed=", ".join(name for name, _ in made),
            hint="write stages with ranges into the recipe, or name a space with --space",
        )
    return best


EPOCHS = 5


def recovery(facts: Facts, epochs: int = EPOCHS) -> dict[str, Any]:
    """How a network recovers after a change: with the teacher's logits where the task is to
    classify, otherwise with the loss that the task itself names."""
    learning: dict[str, Any] = {"epochs": epochs}
    if facts.task != "classification":
        return learning
    temperature = {"from": 1.0, "to": 8.0, "log": True}
    loss = {"name": "kl", "weight": {"from": 0.3, "to": 1.0}, "temperature": temperature}
    return {**learning, "losses": [loss]}


def optional(stage: dict[str, Any]) -> dict[str, Any]:
    """A stage that may be left out."""
    return {"one_of": [stage, {}]}


def narrowing(facts: Facts) -> Sequence[dict[str, Any]]:
    """The last stage: int8 with or without training, and half or single precision where every
    target is fast with it."""
    trained = recovery(facts, 2)
    choices: list[dict[str, Any]] = [
        {"kind": "quantize", "dtype": "int8", "method": "calibrate"},
        {"kind": "quantize", "dtype": "int8", "method": "qat", "learning_rate": 1e-4, **trained},
    ]
    if not facts.int8_only and "fp16" in facts.fast_dtypes:
        choices.append({"kind": "quantize", "dtype": "fp16"})
    if not facts.int8_only and "fp32" in facts.fast_dtypes:
        choices.append({})
    return [{"one_of": choices}]
