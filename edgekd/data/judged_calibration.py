"""Whether calibration samples can stand for what the network will see: how many there are, how many
classes, and how far their values are from those of the training samples."""

from dataclasses import dataclass

from torch import Tensor

from edgekd.errors import EdgekdError, InputError
from edgekd.values.tree import Tree, count, named_leaves

FEWEST = 32
"""Fewer samples than these are thin: the extremes of another sample lie beyond theirs."""

FAR = 0.5
"""Means that differ by more of the training samples' deviations are worth a warning."""

FOREIGN = 5.0
"""Samples this far away are of other data, or prepared in another way."""

_SPREAD = 2.0
COMPARED = 512
"""Training samples that are compared with, from the first on."""


@dataclass(frozen=True)
class Judgement:
    """What is wrong with calibration samples: `faults` refuse them, `warnings` don't."""

    faults: tuple[EdgekdError, ...] = ()
    warnings: tuple[str, ...] = ()


def judge(samples: Tree, training: Tree, classes: int | None, of: int) -> Judgement:
    """Judge calibration samples (N, ...) beside some training samples. `classes` is how many of the
    task's `of` classes they have, None if nobody knows."""
    number = count(samples)
    faults: list[EdgekdError] = []
    warnings: list[str] = []
    if number == 1:
        text = "one sample can't show the ranges of activations"
        faults.append(InputError(text, where="calibration", hint="calibration.samples = 256"))
    elif number < FEWEST:
        warnings.append(f"calibration: {number} samples are few; {FEWEST} or more show rare values")
    warnings += _class_warnings(classes, of, number)
    known = named_leaves(training)
    for name, leaf in named_leaves(samples).items():
        if leaf.is_floating_point() and number > 1:
            found = _leaf_judgement(name, leaf, known[name])
            faults += found.faults
            warnings += found.warnings
    return Judgement(tuple(faults), tuple(warnings))


def _class_warnings(classes: int | None, of: int, number: int) -> list[str]:
    if classes is None or of < 2 or number < 2:
        return []
    if classes == 1:
        return [f"calibration: all {number} samples are of one class of {of}"]
    if 2 * classes < min(of, number):
        return [f"calibration: the samples are of {classes} of {of} classes"]
    return []


def _leaf_judgement(name: str, leaf: Tensor, training: Tensor) -> Judgement:
    where = "calibration" if name == "input" else f"calibration: {name}"
    if not bool(leaf.isfinite().all()):
        row = int((~leaf.flatten(1).isfinite().all(1)).nonzero()[0])
        text = f"sample {row} has NaN or infinite values"
        return Judgement((InputError(text, where=where, hint="see data.preprocess"),))
    if leaf.numel() == 0:
        return Judgement()
    training = training[:COMPARED].double()
    varies = float(training.max()) > float(training.min())
    if varies and bool((leaf == leaf.flatten()[0]).all()):
        text = f"every value is {float(leaf.flatten()[0]):g}, so every range would be a point"
        return Judgement((InputError(text, where=where, hint="take real samples"),))
    differ = bool((training != training[:1]).any())
    if differ and bool((leaf == leaf[:1]).all()):
        text = f"all {len(leaf)} samples are equal"
        return Judgement((InputError(text, where=where, hint="take different samples"),))
    return _distance(where, leaf.double(), training) if varies else Judgement()


def _distance(where: str, leaf: Tensor, training: Tensor) -> Judgement:
    """Compare mean and deviation with those of training samples."""
    mean, deviation = float(leaf.mean()), float(leaf.std())
    usual, spread = float(training.mean()), float(training.std())
    distance, wider = abs(mean - usual) / spread, deviation / spread
    values = (
        f"mean {mean:.3g} and deviation {deviation:.3g}, where those of training samples are "
        f"{usual:.3g} and {spread:.3g}"
    )
    if distance > FOREIGN or wider > FOREIGN or wider < 1.0 / FOREIGN / FOREIGN:
        hint = "prepare them like the training samples: data.preprocess"
        text = f"the samples are of other data, or prepared in another way: {values}"
        return Judgement((InputError(text, where=where, hint=hint),))
    if distance > FAR or wider > _SPREAD or wider < 1.0 / _SPREAD:
        return Judgement((), (f"{where}: the samples have {values}",))
    return Judgement()


def distinct(groups: Tensor) -> int:
    """How many different groups there are."""
    return len(set(groups.tolist()))
