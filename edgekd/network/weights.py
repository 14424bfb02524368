"""Loads a checkpoint into a network: finds the state dict, fits its names, reports what differs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import EdgekdError, InputError, nearest, raise_all
from edgekd.network.checkpoints import read_checkpoint

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema")
PLAIN = ("state_dict", "model_state_dict", "model", "params", "net", "weights", "module")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "ema_model.")
"""What DataParallel, torch.compile, Lightning and others put before every name."""

DEPTH = 3
"""How deep wrappings and prefixes may be nested."""


def load_weights(module: nn.Module, path: Path) -> None:
    """Load every parameter and buffer of `module` from a checkpoint.

    A training checkpoint's state dict is looked for under the usual keys, averaged weights first;
    prefixes that wrappers add are stripped where that makes names fit. Where several fit, the
    module remembers which was taken, for `weights_notes`. Raises every fault at once: missing and
    foreign names with the nearest ones, shapes that differ, NaN and infinity.
    """
    content = read_checkpoint(path)
    found = list(_state_dicts(content))
    if not found:
        keys = list(content)[:8] if isinstance(content, Mapping) else type(content).__name__
        raise InputError(
            f"no state dict in it; it has {keys}",
            where=str(path),
            allowed=f"tensors by name, also under {', '.join((*AVERAGED, *PLAIN))}",
        )
    wanted = module.state_dict()
    variants = [(key, variant) for key, tensors in found for variant in _unprefixed(tensors)]
    ranked = [_fitting(variant, wanted) for _, variant in variants]
    key, tensors = variants[ranked.index(max(ranked))]
    tensors = _completed(tensors, module)
    raise_all(_faults(tensors, wanted, str(path)))
    module.load_state_dict(tensors)
    other = {name for (name, _), rank in zip(variants, ranked, strict=True) if rank == max(ranked)}
    left = ", ".join(f"'{name}'" for name in sorted(other - {key}))
    if left:
        note = f"{path.name}: the weights under '{key}' are used, not those under {left}"
        setattr(module, _NOTES, (note,))


def weights_notes(module: nn.Module) -> tuple[str, ...]:
    """What the user should know about the weights that were loaded into a module."""
    notes: tuple[str, ...] = vars(module).get(_NOTES, ())
    return notes


_NOTES = "_edgekd_weights_notes"


def _state_dicts(
    content: Any, place: str = "", depth: int = DEPTH
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping of names to tensors in a checkpoint, in order of preference, with the keys
    that it is under."""
    if not isinstance(content, Mapping) or not depth:
        return
    for key in AVERAGED:
        yield from _state_dicts(content.get(key), f"{place}.{key}".lstrip("."), depth - 1)
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if tensors:
        yield place, tensors
    for key in PLAIN:
        yield from _state_dicts(content.get(key), f"{place}.{key}".lstrip("."), depth - 1)


def _unprefixed(tensors: dict[str, Tensor], depth: int = DEPTH) -> Iterator[dict[str, Tensor]]:
    """The tensors under their own names, then under those without a wrapper's prefix. Names
    without it stay as they are, so that they are reported."""
    yield tensors
    for prefix in PREFIXES:
        if depth and any(name.startswith(prefix) for name in tensors):
            stripped = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
            yield from _unprefixed(stripped, depth - 1)


def _fitting(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[int, int]:
    """How many tensors fit in name and shape, and how many in name."""
    names = [name for name in tensors if name in wanted]
    return sum(tensors[name].shape == wanted[name].shape for name in names), len(names)


def _completed(tensors: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The tensors with what a checkpoint may leave out (other names of a tied tensor, the step
    counter of a batch norm), and without what it may carry besides (the counter of averaged
    weights, a constant buffer)."""
    wanted = module.state_dict()
    tensors = dict(tensors)
    for names in _tied(module):  # safetensors stores tensors that share memory once
        stored = [name for name in names if name in tensors]
        if stored:
            tensors |= {name: tensors[stored[0]] for name in names if name not in tensors}
    counters = [name for name in wanted if name.rpartition(".")[2] == "num_batches_tracked"]
    tensors |= {name: wanted[name] for name in counters if name not in tensors}
    constants = {name: buffer for name, buffer in module.named_buffers() if name not in wanted}
    for name, tensor in list(tensors.items()):
        same = name in constants and torch.equal(constants[name].to(tensor), tensor)
        if name not in wanted and (same or name == "n_averaged"):
            del tensors[name]
    return tensors


def _tied(module: nn.Module) -> list[list[str]]:
    """The names of each tensor that has several."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return [same for same in names.values() if len(same) > 1]


def _faults(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str
) -> list[EdgekdError]:
    faults: list[EdgekdError] = []
    missing = [name for name in wanted if name not in tensors]
    foreign = [name for name in tensors if name not in wanted]
    if missing:
        message = f"lacks {listed(missing)}, which the network has"
        faults.append(InputError(message, where=where))
    if foreign:
        hint = nearest(foreign[0], missing)
        message = f"has {listed(foreign)}, which the network lacks"
        faults.append(InputError(message, where=where, hint=hint))
    for name, tensor in tensors.items():
        if name in wanted and tensor.shape != wanted[name].shape:
            message = f"'{name}' has shape {tuple(tensor.shape)}"
            allowed = f"{tuple(wanted[name].shape)}"
            faults.append(InputError(message, where=where, allowed=allowed))
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            faults.append(InputError(f"NaN or infinity in '{name}'", where=where))
    return faults


def listed(names: list[str]) -> str:
    """The first four names in quotes, and how many more there are."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(f"'{name}'" for name in names[:4]) + more
