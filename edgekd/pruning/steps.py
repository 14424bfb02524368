"""Finished steps on disk, so that a pruning that was killed goes on with the same result."""

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path

from torch import nn

from edgekd.checkpoint import read_tensors, sha256_of_state, write_tensors
from edgekd.storage import load_module, save_module
from edgekd.store import folder_beside

Make = Callable[[], nn.Module]


def step_folder(work: Path, module: nn.Module, *facts: object) -> Path:
    """The folder for steps that start from this module and these facts, and from no others."""
    text = repr((sha256_of_state(module), *facts))
    return work / hashlib.sha256(text.encode()).hexdigest()[:16]


def shares(schedule: str, steps: int) -> list[float]:
    """The share of the whole amount that is gone after each step; the last is 1.

    "one-shot" has one step, "iterative" equal ones, and "cubic" follows 1 - (1 - t)^3
    (Zhu & Gupta 2017, arXiv:1710.01878, eq. 1): most goes early, while there is time to recover.
    """
    if schedule == "one-shot":
        return [1.0]
    line = [number / steps for number in range(1, steps + 1)]
    return line if schedule == "iterative" else [1 - (1 - t) ** 3 for t in line]


def split_epochs(epochs: int, steps: int) -> list[int]:
    """The recovery epochs of each step; what does not divide goes to the last."""
    each = epochs // steps
    return [*[each] * (steps - 1), epochs - each * (steps - 1)]


def kept_structure(folder: Path, before: nn.Module, make: Make) -> nn.Module:
    """What `make` gives, read back from `folder` where it was made before."""
    if folder.is_dir():
        return load_module(copy.deepcopy(before), folder)
    made = make()
    with folder_beside(folder) as beside:
        save_module(made, beside)
    return made


def kept_weights(file: Path, before: nn.Module, make: Make) -> nn.Module:
    """The same where only the weights change: one safetensors file."""
    found = read_tensors(file)
    if found is not None:
        module = copy.deepcopy(before)
        module.load_state_dict(found[0])
        return module
    made = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(file, made.state_dict(), {})
    return made
