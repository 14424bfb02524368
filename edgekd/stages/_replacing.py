"""Shared by the stages that replace layers: their checks, and finished steps stored on disk."""

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from edgekd.errors import EdgekdError, InputError
from edgekd.network.open_attention import with_open_attention
from edgekd.network.plain_weights import has_computed_weights, with_plain_weights
from edgekd.network.storage import load_module, save_module
from edgekd.network.taps import layer_names, no_such_layer
from edgekd.store import folder_beside
from edgekd.training.checkpoint import read_tensors, sha256_of_state, write_tensors
from edgekd.values.candidate import Candidate

Make = Callable[[], nn.Module]


def ignore_faults(module: nn.Module, ignore: Sequence[str], where: str) -> list[EdgekdError]:
    """Names in `ignore` that are not layers."""
    known = layer_names(module)
    return [no_such_layer(name, known, f"{where}.ignore") for name in ignore if name not in known]


GIVE_FACTORY = "give the model as factory and weights"


def float_faults(module: nn.Module, form: str, what: str, where: str) -> list[EdgekdError]:
    """A fault for a quantized candidate or an exported program, whose layers can't be replaced."""
    if form != "float":
        hint = "put this stage before the quantize stage"
        return [InputError(f"a quantized model can't be {what}", where=where, hint=hint)]
    if isinstance(module, torch.fx.GraphModule):
        return [
            InputError(
                f"an exported program can't be {what}: its layers and shapes are fixed",
                where=where,
                hint=f"{GIVE_FACTORY}; granularity = 'weights' works on both",
            )
        ]
    return []


def plain(candidate: Candidate) -> Candidate:
    """The candidate with plain parameters instead of weights computed by `forward`."""
    module = candidate.module
    if isinstance(module, torch.fx.GraphModule) or not has_computed_weights(module):
        return candidate
    return replace(candidate, source=with_plain_weights(module))


def opened(candidate: Candidate) -> Candidate:
    """The candidate with the projections of PyTorch's own attention apart, where they can be."""
    module = candidate.module
    changed = module if isinstance(module, torch.fx.GraphModule) else with_open_attention(module)
    return candidate if changed is module else replace(candidate, source=changed)


def step_folder(work: Path, module: nn.Module, *facts: object) -> Path:
    """The folder for steps that start from exactly this module and these facts."""
    text = repr((sha256_of_state(module), *facts))
    return work / hashlib.sha256(text.encode()).hexdigest()[:16]


def kept_structure(folder: Path, before: nn.Module, make: Make) -> nn.Module:
    """The result of `make`, loaded from `folder` if it was made before."""
    if folder.is_dir():
        return load_module(copy.deepcopy(before), folder)
    made = make()
    with folder_beside(folder) as beside:
        save_module(made, beside)
    return made


def kept_weights(file: Path, before: nn.Module, make: Make) -> nn.Module:
    """The same if only the weights change: one safetensors file."""
    stored = read_tensors(file)
    if stored is not None:
        module = copy.deepcopy(before)
        module.load_state_dict(stored[0])
        return module
    made = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(file, made.state_dict(), {})
    return made
