"""Predicts a file's latency from the times of other files' operators on the same device.

Each kind of operator has a roofline: a constant, and a time for each multiply-accumulate and each
byte that it moves or holds, fitted to what was measured by non-negative least squares of relative
errors. A forest of trees may correct it for each operator by its shape. The sum over a file's
operators becomes a whole inference by what the files themselves took. Which of the two models is
used, and how far it errs, are decided by files that were left out.

The forest is that of nn-Meter (Zhang et al., MobiSys 2021, https://doi.org/10.1145/3458864.3467882)
with a roofline (Williams et al. 2009) below it, so that it goes on beyond the sizes that were
measured.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekd.errors import InputError
from edgekd.measure.operator_costs import MeasuredFile, Operator

LEAST_FILES = 8
"""How many files a table needs before it predicts another."""

FOLDS = 5

SMALL_US = 1.0
"""Errors are relative to an operator's time plus this."""

NEAR = 0.05
"""Errors beyond this share count by their size instead of their square."""

LEAST_SHARE = 0.1
"""The least share of its operators' times, as they were recorded, that a file can take."""

LEAST_ROWS = 6
"""Operators of a kind that a fit of its own needs."""

Group = tuple[str, ...]
"""What fits share: an operator's kind, and for one without products what stands before it, since a
runtime fuses an activation into a convolution."""


@dataclass(frozen=True)
class CostModel:
    """Predicts latencies in microseconds. `name` says how, `errors` are the relative errors of
    files that were left out in turn."""

    name: str
    rooflines: Mapping[Group, np.ndarray]
    forest: Any
    whole: np.ndarray
    errors: tuple[float, ...] = ()

    @property
    def median_error(self) -> float:
        """The median of the errors' sizes on files that were left out."""
        return statistics.median(map(abs, self.errors))

    def operators_us(self, operators: Sequence[Operator]) -> np.ndarray:
        """(operators,): the time of each operator."""
        groups = _groups(operators)
        bases = np.array(
            [
                _facts(operator) @ self.rooflines[_nearest(group, self.rooflines)]
                for operator, group in zip(operators, groups, strict=True)
            ]
        )
        if self.forest is None:
            return bases
        heavy = np.array([operator.macs > 0 for operator in operators])
        if heavy.any():
            shapes = np.array([_shape(operator) for operator in operators if operator.macs])
            bases[heavy] = (bases[heavy] + SMALL_US) * np.exp(self.forest.predict(shapes))
            bases[heavy] = np.maximum(bases[heavy] - SMALL_US, 0.0)
        return bases

    def predict(self, operators: Sequence[Operator]) -> float:
        """The latency of a file with these operators."""
        us = self.operators_us(operators)
        return max(float(_sums(us) @ self.whole), LEAST_SHARE * float(us.sum()))


def fit_cost_model(files: Sequence[MeasuredFile]) -> CostModel:
    """The model that errs least on files that were left out of it.

    Raises `InputError` if there are fewer than `LEAST_FILES`.
    """
    if len(files) < LEAST_FILES:
        raise InputError(
            f"{len(files)} files were measured by operator here, too few to predict another",
            where="cost model",
            allowed=f"at least {LEAST_FILES}",
            hint="measure more with 'edgekd bench FILE... --per-layer'",
        )
    fits: tuple[Callable[[Sequence[MeasuredFile]], CostModel], ...] = (_roofline, _with_forest)
    tried = [(fit, _errors_left_out(fit, files)) for fit in fits]
    fit, errors = min(tried, key=lambda pair: round(statistics.median(map(abs, pair[1])), 3))
    made = fit(files)
    return CostModel(made.name, made.rooflines, made.forest, made.whole, tuple(errors))


def _errors_left_out(
    fit: Callable[[Sequence[MeasuredFile]], CostModel], files: Sequence[MeasuredFile]
) -> list[float]:
    """The relative error on each file of a model that has not seen its fold."""
    errors = []
    for fold in range(FOLDS):
        model = fit([file for place, file in enumerate(files) if place % FOLDS != fold])
        left_out = files[fold::FOLDS]
        errors += [model.predict(file.operators) / file.whole_us - 1.0 for file in left_out]
    return errors


def _roofline(files: Sequence[MeasuredFile]) -> CostModel:
    rooflines = _rooflines(files)
    return _completed(CostModel("roofline", rooflines, None, np.ones(2)), files)


def _with_forest(files: Sequence[MeasuredFile]) -> CostModel:
    """A roofline for each kind, and a forest for what it leaves of operators with products."""
    from sklearn.ensemble import ExtraTreesRegressor

    rooflines = _rooflines(files)
    base = CostModel("", rooflines, None, np.ones(2))
    shapes, ratios = [], []
    for file in files:
        predicted = base.operators_us(file.operators)
        for operator, value, us in zip(file.operators, predicted, file.us, strict=True):
            if operator.macs and us:
                shapes.append(_shape(operator))
                ratios.append(math.log((us + SMALL_US) / (value + SMALL_US)))
    if not shapes:
        return _roofline(files)
    forest = ExtraTreesRegressor(200, min_samples_leaf=2, random_state=0)
    forest.fit(np.array(shapes), np.array(ratios))
    return _completed(CostModel("roofline and forest", rooflines, forest, np.ones(2)), files)


def _completed(model: CostModel, files: Sequence[MeasuredFile]) -> CostModel:
    """The model with what makes a whole inference of the sum over operators."""
    rows = np.array([_sums(model.operators_us(file.operators)) for file in files])
    whole = np.array([file.whole_us for file in files])
    return CostModel(model.name, model.rooflines, model.forest, _robustly(rows / whole[:, None]))


def _robustly(rows: np.ndarray) -> np.ndarray:
    """Coefficients (F,) that give 1 of rows (N, F); one that was disturbed hardly counts."""
    from scipy.optimize import least_squares

    start, *_ = np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)
    solved = least_squares(lambda x: rows @ x - 1.0, start, loss="soft_l1", f_scale=NEAR)
    coefficients: np.ndarray = solved.x
    return coefficients


def _sums(us: np.ndarray) -> np.ndarray:
    """What a whole inference is made of: all operators' times, and how many take any, since
    recording them takes time too."""
    return np.array([us.sum(), float((us > SMALL_US / 10).sum())])


def _rooflines(files: Sequence[MeasuredFile]) -> dict[Group, np.ndarray]:
    rows: dict[Group, list[tuple[np.ndarray, float]]] = defaultdict(list)
    for file in files:
        for operator, group, us in zip(
            file.operators, _groups(file.operators), file.us, strict=True
        ):
            for shared in {group, group[:1], ()}:
                rows[shared].append((_facts(operator), us))
    return {
        group: _fitted(np.array([facts for facts, _ in own]), np.array([us for _, us in own]))
        for group, own in rows.items()
        if len(own) >= LEAST_ROWS or not group
    }


def _fitted(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Coefficients (F,) >= 0 that give the values (N,) of rows (N, F) with the least squares of
    relative errors."""
    from scipy.optimize import nnls

    scales = np.maximum(np.abs(rows).max(axis=0), 1e-12)
    weights = 1.0 / (values + SMALL_US)
    coefficients, _ = nnls(rows / scales * weights[:, None], values * weights)
    fitted: np.ndarray = coefficients / scales
    return fitted


def _groups(operators: Sequence[Operator]) -> list[Group]:
    before = ["", *(operator.kind for operator in operators)]
    return [_group(operator, last) for operator, last in zip(operators, before, strict=False)]


def _group(operator: Operator, before: str) -> Group:
    if not operator.macs:
        return (operator.kind, before)
    if operator.groups > 1:
        return (operator.kind, "depthwise" if operator.channels == 1 else "grouped")
    return (operator.kind, f"kernel {operator.kernel}")


def _nearest(group: Group, known: Mapping[Group, Any]) -> Group:
    """The group itself, or else its kind, or else all operators."""
    return next(shared for shared in (group, group[:1], ()) if shared in known)


def _facts(operator: Operator) -> np.ndarray:
    moved = operator.read + operator.written
    return np.array([1.0, operator.macs, moved, operator.constant], dtype=float)


def _shape(operator: Operator) -> list[float]:
    """What the forest sees of an operator: sizes on a logarithmic scale, and what is left over of
    the vectors' widths."""
    sizes = (
        operator.macs, operator.read, operator.written, operator.constant, operator.kernel,
        operator.groups, operator.channels, operator.filters, operator.positions,
        operator.macs / max(1, operator.read + operator.written + operator.constant),
    )  # fmt: skip
    rest = (operator.channels % 16, operator.filters % 16)
    return [*(math.log2(1 + size) for size in sizes), *map(float, rest)]
