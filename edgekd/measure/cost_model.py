"""Predicts what a file costs on a device, in microseconds or instructions, from what the operators
of other files cost there.

Each group of operators has non-negative weights of the facts about an operator, fitted by least
squares of relative errors to what was measured: either those of a roofline (Williams et al. 2009),
or those of a kernel's loops, which tell instruction counts nearly exactly. Between the shapes that
were measured, what the weights leave over is interpolated, or corrected by a forest of trees. The
sum over a file's operators becomes a whole inference by what the files themselves took. Which of
the models is used, and how far it errs, are decided by files that were left out.

The forest is that of nn-Meter (Zhang et al., MobiSys 2021, https://doi.org/10.1145/3458864.3467882)
with weighted facts below it, so that it goes on beyond the sizes that were measured.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from edgekd.errors import InputError
from edgekd.measure.cost_facts import (
    Group,
    groups_of,
    loop_facts,
    nearest_group,
    roofline_facts,
    shape_of,
    wider_groups,
)
from edgekd.measure.cost_rest import Rest, forest_rest, interpolated_rest
from edgekd.measure.operator_costs import MeasuredFile, Operator, Unit

LEAST_FILES = 8
"""How many files a table needs before it predicts another."""

FOLDS = 5

SMALL = {"us": 1.0, "instructions": 100.0}
"""Errors are relative to an operator's cost plus this."""

NEAR = 0.05
"""Errors beyond this share count by their size instead of their square."""

LEAST_SHARE = 0.1
"""The least share of its operators' costs, as they were recorded, that a file can take."""

LEAST_ROWS = 6
"""Operators of a group, of different shapes, that a fit of its own needs."""

Facts = Callable[[Operator], np.ndarray]


@dataclass(frozen=True)
class CostModel:
    """Predicts costs in `unit`. `name` says how, `weights` are those of each group's facts, `rest`
    corrects an operator's cost by a factor, and `whole` makes an inference of the operators' sum.
    `errors` are the relative errors of files that were left out in turn."""

    name: str
    unit: Unit
    facts: Facts
    weights: Mapping[Group, np.ndarray]
    rest: Rest | None = None
    whole: np.ndarray | None = None
    errors: tuple[float, ...] = ()

    @property
    def median_error(self) -> float:
        """The median of the errors' sizes on files that were left out."""
        return statistics.median(map(abs, self.errors))

    @property
    def usual_error(self) -> float:
        """The size of error that nine of ten files that were left out stayed within."""
        return float(np.quantile(np.abs(self.errors), 0.9))

    def costs(self, operators: Sequence[Operator]) -> np.ndarray:
        """(operators,): the cost of each operator."""
        groups = groups_of(operators)
        bases = np.array(
            [
                self.facts(operator) @ self.weights[nearest_group(group, self.weights)]
                for operator, group in zip(operators, groups, strict=True)
            ]
        )
        heavy = [place for place, operator in enumerate(operators) if operator.macs]
        if self.rest is not None and heavy:
            kinds = [groups[place] for place in heavy]
            shapes = np.array([shape_of(operators[place]) for place in heavy])
            small = SMALL[self.unit]
            corrected = (bases[heavy] + small) * np.exp(self.rest(kinds, shapes)) - small
            bases[heavy] = np.maximum(corrected, 0.0)
        return bases

    def predict(self, operators: Sequence[Operator]) -> float:
        """The cost of one inference of a file with these operators."""
        costs = self.costs(operators)
        total = float(costs.sum())
        if self.whole is None:
            return total
        return max(float(_sums(costs) @ self.whole), LEAST_SHARE * total)


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
    tried = [(fit, _errors_left_out(fit, files)) for fit in FITS]
    fit, errors = min(tried, key=lambda pair: round(_typical(pair[1]), 3))
    return replace(fit(files), errors=tuple(errors))


def _typical(errors: Sequence[float]) -> float:
    """What models are compared by: the mean of the errors' sizes, none counted beyond 100 %."""
    return statistics.fmean(min(1.0, abs(error)) for error in errors)


def _errors_left_out(
    fit: Callable[[Sequence[MeasuredFile]], CostModel], files: Sequence[MeasuredFile]
) -> list[float]:
    """The relative error on each file of a model that has not seen its fold."""
    errors = []
    for fold in range(FOLDS):
        model = fit([file for place, file in enumerate(files) if place % FOLDS != fold])
        left_out = files[fold::FOLDS]
        errors += [model.predict(file.operators) / file.whole - 1.0 for file in left_out]
    return errors


def _fit(
    name: str,
    facts: Facts,
    learn: Callable[[Sequence[Group], np.ndarray, np.ndarray], Rest] | None,
    files: Sequence[MeasuredFile],
) -> CostModel:
    """Weights for each group, what they leave over of operators with products, and what makes a
    whole inference of the sum over operators."""
    unit = files[0].unit
    model = CostModel(name, unit, facts, _weights(files, facts))
    if learn is not None:
        model = replace(model, rest=_rest(model, files, learn))
    if unit == "instructions":  # they are exact, and an inference is their sum
        return model
    rows = np.array([_sums(model.costs(file.operators)) for file in files])
    whole = np.array([file.whole for file in files])
    return replace(model, whole=_robustly(rows / whole[:, None]))


FITS: tuple[Callable[[Sequence[MeasuredFile]], CostModel], ...] = (
    partial(_fit, "roofline", roofline_facts, None),
    partial(_fit, "loops", loop_facts, None),
    partial(_fit, "roofline and forest", roofline_facts, forest_rest),
    partial(_fit, "loops, interpolated", loop_facts, interpolated_rest),
)


def _rest(
    model: CostModel,
    files: Sequence[MeasuredFile],
    learn: Callable[[Sequence[Group], np.ndarray, np.ndarray], Rest],
) -> Rest | None:
    """What the weights leave over of operators with products, on a logarithmic scale."""
    groups, shapes, ratios = [], [], []
    small = SMALL[model.unit]
    for file in files:
        own = groups_of(file.operators)
        for operator, group, value, cost in zip(
            file.operators, own, model.costs(file.operators), file.costs, strict=True
        ):
            if operator.macs and cost:
                groups.append(group)
                shapes.append(shape_of(operator))
                ratios.append(math.log((cost + small) / (value + small)))
    return learn(groups, np.array(shapes), np.array(ratios)) if groups else None


def _weights(files: Sequence[MeasuredFile], facts: Facts) -> dict[Group, np.ndarray]:
    rows: dict[Group, list[tuple[np.ndarray, float]]] = defaultdict(list)
    for file in files:
        own = groups_of(file.operators)
        for operator, group, cost in zip(file.operators, own, file.costs, strict=True):
            row = (facts(operator), cost)
            for wider in wider_groups(group):
                rows[wider].append(row)
    small = SMALL[files[0].unit]
    return {
        group: _fitted(
            np.array([row for row, _ in own]), np.array([cost for _, cost in own]), small
        )
        for group, own in rows.items()
        if not group or len({row.tobytes() for row, _ in own}) >= LEAST_ROWS
    }


def _fitted(rows: np.ndarray, values: np.ndarray, small: float) -> np.ndarray:
    """Weights (F,) >= 0 that give the values (N,) of rows (N, F) with the least squares of relative
    errors."""
    from scipy.optimize import nnls

    scales = np.maximum(np.abs(rows).max(axis=0), 1e-12)
    relative = 1.0 / (values + small)
    weights, _ = nnls(
        rows / scales * relative[:, None], values * relative, maxiter=30 * len(rows.T)
    )
    fitted: np.ndarray = weights / scales
    return fitted


def _robustly(rows: np.ndarray) -> np.ndarray:
    """Coefficients (F,) that give 1 of rows (N, F); one that was disturbed hardly counts."""
    from scipy.optimize import least_squares

    start, *_ = np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)
    solved = least_squares(lambda x: rows @ x - 1.0, start, loss="soft_l1", f_scale=NEAR)
    coefficients: np.ndarray = solved.x
    return coefficients


def _sums(costs: np.ndarray) -> np.ndarray:
    """What a whole inference is made of: all operators' costs, and how many have any, since
    recording them takes time too."""
    return np.array([costs.sum(), float((costs > SMALL["us"] / 10).sum())])
