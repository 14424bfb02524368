"""The samples that calibrate a quantizer: a committed set, or the first ones of each class."""

from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from edgekd.data.class_folders import ClassFiles
from edgekd.data.dataset import How, samples_from
from edgekd.data.images import SUFFIXES, read_image
from edgekd.data.judged_calibration import COMPARED, Judgement, distinct, judge
from edgekd.data.prepare import as_seen, preparing
from edgekd.data.probe import spread
from edgekd.data.samples import Data, Samples
from edgekd.data.split import balanced
from edgekd.data.tasks import NO_LABEL
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.errors import InputError, nearest
from edgekd.values.lookup import toml_files
from edgekd.values.preprocess import NO_STEPS, Preprocess
from edgekd.values.recipe import Calibration
from edgekd.values.tables import Value, parse, read_toml
from edgekd.values.tree import Tree, concatenated, described, rows, same_form


class CalibrationSet(Value):
    """A calibration/NAME.toml: samples by their rows in a data set's training part.

    The rows are counted before any sample is held back for validation, so they stay right for
    every recipe. `preprocessing` says how the samples were prepared, and `sha256` is the hash of
    the samples themselves (inputs and labels), so that other data under the same name is detected.
    """

    name: str
    data: str
    preprocessing: str
    sha256: str = ""
    ids: tuple[int, ...] = Field(min_length=1)


def calibration_samples(
    calibration: Calibration, data: Data, folder: Path = Path(), steps: Preprocess = NO_STEPS
) -> Tree:
    """Inputs (N, ...) to calibrate with: those of `calibration.set`, images of
    `calibration.folder` after the preprocessing's `steps`, or the first `samples`.

    Without a set they are balanced over classes and taken in order, so that every seed is
    calibrated alike. A `set` is a name (./calibration, then the package's) or a path in .toml from
    the recipe's `folder`. InputError for an unknown or faulty set, or one of another data set.
    """
    if calibration.folder is not None:
        return _images(calibration, data, folder, steps)
    if calibration.set is None:
        index = balanced(data.task.strata(data.train.y), calibration.samples)
        return data.train.take(index).x
    chosen, path = load_calibration(calibration.set, folder)
    if chosen.data != data.name:
        raise InputError(
            f"made for the data set '{chosen.data}', but the data is '{data.name}'",
            where=str(path),
            hint="remove calibration.set to use the first samples of each class",
        )
    samples = _rows(data, torch.tensor(chosen.ids), str(path))
    if chosen.sha256 and samples.sha256 != chosen.sha256:
        raise InputError(
            "its samples differ from those it was made with (SHA-256 mismatch)",
            where=str(path),
            hint=f"expected preprocessing: {chosen.preprocessing}",
        )
    return samples.x


def judged(calibration: Calibration, samples: Tree, data: Data, folder: Path = Path()) -> Judgement:
    """What is wrong with the recipe's calibration samples, which `calibration_samples` returned."""
    groups = data.task.strata(data.train.y)
    chosen: Tensor | None = None
    if calibration.set is not None:
        ids = torch.tensor(load_calibration(calibration.set, folder)[0].ids)
        chosen = data.task.strata(_rows(data, ids, "calibration.set").y)
    elif calibration.folder is None:
        chosen = groups[balanced(groups, calibration.samples)]
    classes = None if chosen is None else distinct(chosen)
    return judge(samples, data.train.first(COMPARED).x, classes, distinct(groups))


def _images(calibration: Calibration, data: Data, folder: Path, steps: Preprocess) -> Tree:
    """Up to `calibration.samples` of the images below a folder, evenly spread over their names."""
    assert calibration.folder is not None
    if calibration.set is not None:
        raise InputError("give 'set' or 'folder', not both", where="calibration")
    root = folder / calibration.folder
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        reason = "no images" if root.is_dir() else "no such folder"
        raise InputError(reason, where=str(root), allowed=", ".join(sorted(SUFFIXES)))
    chosen = tuple(files[row] for row in spread(len(files), calibration.samples))
    images = ClassFiles(root, chosen, (NO_LABEL,) * len(chosen), read_image)
    how = How(stream=False, prepare=preparing(steps, folder), seen=as_seen(steps))
    x = samples_from(images, "calibration.folder", CLASSIFICATION, how).x
    if not same_form(x, data.example):
        raise InputError(
            f"its images have shape {described(x)}",
            where="calibration.folder",
            allowed=f"{described(data.example)}, as the data's samples",
            hint="[data.preprocess] applies to both: set resize = [height, width] there",
        )
    return x


def load_calibration(name: str, folder: Path = Path()) -> tuple[CalibrationSet, Path]:
    """The set with that name, or in that file if `name` is a .toml path; and its path."""
    if name.endswith(".toml"):
        path = folder / name
    else:
        files = toml_files("calibration")
        if name not in files:
            raise InputError(
                f"unknown calibration set '{name}'",
                where="calibration.set",
                allowed=", ".join(sorted(files)) or "none found",
                hint=nearest(name, files),
            )
        path = files[name]
    chosen = parse(CalibrationSet, read_toml(path), str(path))
    if chosen.name != path.stem:
        raise InputError(
            f"the name '{chosen.name}' does not match the file name",
            where=str(path),
            allowed=path.stem,
        )
    repeated = len(chosen.ids) - len(set(chosen.ids))
    if repeated:
        raise InputError(f"{repeated} ids are repeated", where=str(path))
    return chosen, path


def _rows(data: Data, ids: Tensor, where: str) -> Samples:
    """The training samples in those rows, wherever the split put them."""
    parts = [data.train, data.validation] if data.held_back else [data.train]
    place = {
        row: (part, position) for part in parts for position, row in enumerate(part.rows.tolist())
    }
    absent = [row for row in ids.tolist() if row not in place]
    if absent:
        raise InputError(
            f"id {absent[0]} is not among the {len(place)} training samples",
            where=where,
            hint="data.limit may have left it out",
        )
    x, y, order = [], [], []
    for part in parts:
        mine = [at for at, row in enumerate(ids.tolist()) if place[row][0] is part]
        taken = part.take(torch.tensor([place[int(ids[at])][1] for at in mine], dtype=torch.int64))
        if mine:
            x.append(taken.x)
            y.append(taken.y)
            order += mine
    index = torch.tensor(order).argsort()
    return Samples(rows(concatenated(x), index), torch.cat(y)[index])
