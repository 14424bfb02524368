"""How long each layer of a candidate takes where it will run, for stages that choose by time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgekd.values.candidate import Candidate


@dataclass(frozen=True)
class Timed:
    """The cost of each layer in one inference: in `unit` (us, or instructions of an emulator), by
    the layer's name; `where` says by what it was measured, such as "litert on host"."""

    layers: Mapping[str, float]
    unit: str
    where: str


LayerTimer = Callable[[Candidate], Timed | None]
"""Compiles a candidate and profiles it; None where nothing measures it."""


def untimed(candidate: Candidate) -> Timed | None:
    """Nothing measures."""
    return None
