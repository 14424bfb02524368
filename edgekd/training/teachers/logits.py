"""Recorded logits as a teacher: a file with the outputs for each training sample, in order."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekd.data.npz import read_arrays
from edgekd.data.samples import Data, Samples
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.errors import InputError, nearest
from edgekd.store import read_errors
from edgekd.values.tree import Tree, chunks, leaves

PARTS = ("train", "validation", "test")
BATCH = 256


def open_logits(path: Path, data: Data, where: str) -> Callable[[Tensor], Tensor]:
    """A predictor of recorded logits, found by the samples' content: any order and split works.

    An .npy (or an .npz's `train`) has a row for each training sample of the source, before any
    were held back; an .npz may have `validation` and `test` too. Half precision is fine.
    """
    if data.augmentation.active:
        raise InputError(
            "recorded logits belong to unchanged samples, but the data is augmented",
            where=where,
            hint="set data.flip = false and data.shift = 0, or give the network itself",
        )
    recorded = _read(path)
    rows: dict[bytes, Tensor] = {}
    trained = data.training_rows or len(data.train)
    parts = {"train": [data.train], "validation": [data.validation], "test": [data.test]}
    if data.held_back:
        parts["train"].append(parts["validation"].pop())
    counts = {"train": trained, "validation": len(data.validation), "test": len(data.test)}
    for part, values in recorded.items():
        if data.held_back and part == "validation":
            raise InputError(
                "recorded for 'validation', which is held back from 'train' here", where=str(path)
            )
        _check(values, counts[part], data, f"{path}: {part}")
        for samples in parts[part]:
            _note(rows, samples, torch.from_numpy(values.astype(np.float32)))
    return lambda x: _looked_up(rows, x, path)


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".npz":
        arrays = read_arrays(path)
        if set(arrays) == {"logits"}:
            return {"train": arrays["logits"]}
        for name in arrays:
            if name not in PARTS:
                raise InputError(
                    f"unknown array '{name}'",
                    where=str(path),
                    allowed=", ".join(PARTS),
                    hint=nearest(name, PARTS),
                )
        if "train" not in arrays:
            raise InputError("array 'train' is missing", where=str(path))
        return arrays
    try:
        with read_errors(path, "an .npy or .npz file"):
            array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        message = "it contains objects" if "pickle" in str(error).lower() else str(error)
        raise InputError(f"not a complete .npy file: {message}", where=str(path)) from None
    return {"train": array}


def _check(values: Any, count: int, data: Data, where: str) -> None:
    plain = data.task == CLASSIFICATION
    unlike = values.ndim != 2 or values.shape[1] != data.classes if plain else not values.ndim
    if values.dtype.kind != "f" or unlike:
        wanted = f"({count}, {data.classes})" if plain else f"({count}, ...)"
        raise InputError(
            f"{values.dtype} of shape {values.shape}",
            where=where,
            allowed=f"floating point of shape {wanted}",
        )
    if len(values) != count:
        raise InputError(f"{len(values)} rows", where=where, allowed=f"{count}, one per sample")
    if not np.isfinite(values).all():
        raise InputError("NaN or infinity", where=where)


def _note(rows: dict[bytes, Tensor], samples: Samples, values: Tensor) -> None:
    row = iter(samples.rows.tolist())
    for batch, _ in samples.as_shown.batches(BATCH):
        for x in chunks(batch, 1):
            rows.setdefault(_digest(x), values[next(row)])


def _looked_up(rows: Mapping[bytes, Tensor], x: Tensor, path: Path) -> Tensor:
    recorded = [rows.get(_digest(sample)) for sample in chunks(x, 1)]
    absent = sum(values is None for values in recorded)
    if absent:
        raise InputError(
            f"{absent} of {len(x)} samples have no recorded logits",
            where=str(path),
            allowed="samples of the recorded parts, unchanged",
            hint="an .npz with 'train', 'validation' and 'test' can hold all parts",
        )
    return torch.stack([values for values in recorded if values is not None])


def _digest(x: Tree) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for leaf in leaves(x):
        digest.update(leaf.contiguous().numpy().tobytes())
    return digest.digest()
