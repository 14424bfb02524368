"""What a file contains: operators, types, sizes, and where operators would run."""

from pathlib import Path

from edgekd.values.artifact import OpPlacement, TensorInfo
from edgekd.values.tables import Value


class Inspection(Value):
    """What one file contains.

    `parameter_bytes` counts constants wherever the format keeps them. `activation_bytes` is the
    peak of live tensors, always an estimate; `reasons` says why a number is None. `placements` say
    where the target's accelerator would run each operator, and are empty without one. `notes` name
    what the user should know: float islands, transposes, what does not fit.
    """

    path: Path
    format: str
    file_bytes: int
    ops: dict[str, int]
    dtypes: dict[str, int]
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    parameter_bytes: int | None = None
    activation_bytes: int | None = None
    placements: tuple[OpPlacement, ...] = ()
    notes: tuple[str, ...] = ()
    reasons: dict[str, str] = {}
    facts: dict[str, float | str] = {}


class Forecast(Value):
    """What a follower says about a file that it would start from: where its accelerator would run
    each operator, facts about the file, notes for the user, and the peak of activations if it knows
    its own."""

    placements: tuple[OpPlacement, ...] = ()
    facts: dict[str, float | str] = {}
    notes: tuple[str, ...] = ()
    activation_bytes: int | None = None
