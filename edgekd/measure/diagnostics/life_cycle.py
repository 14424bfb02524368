"""When compression has paid for its own training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.measure.diagnostics import Costs, Line, OfCosts, Plot, Unit
from edgekd.registry import DIAGNOSTICS
from edgekd.values.measurement import Kind, Measurement

JOULES_PER_KWH = 3.6e6
ORDER: tuple[Kind, ...] = ("measured", "simulated", "estimated", "unavailable")


@DIAGNOSTICS.register(paper="https://arxiv.org/abs/1906.02243")
@dataclass(frozen=True)
class LifeCycle(OfCosts):
    """The number of inferences after which the energy saved on the device equals that of training.

    inferences = training / (teacher's energy - student's energy), per file; both energies have to
    be measured on the target. The training's energy is `training_joules`, as metered by the user,
    or `training_watts` times the seconds of computation, which is an estimate. Carbon is energy at
    `grams_per_kwh` of the user's grid. Values that are not given are left out, never guessed.
    """

    training_joules: float | None = None
    training_watts: float | None = None
    grams_per_kwh: float | None = None

    def __post_init__(self) -> None:
        for name in ("training_joules", "training_watts", "grams_per_kwh"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be above 0, found {value}")

    def kind(self, costs: Costs) -> Kind:
        """The kind of the weakest number that goes in."""
        kinds = [energy_of(rows)[1] for rows in (costs.baseline, *costs.artifacts.values())]
        if self.training_joules is None:
            kinds.append("estimated" if self.training_watts is not None else "unavailable")
        return max(kinds, key=ORDER.index)

    def look(self, costs: Costs) -> tuple[list[Line], Plot | None]:
        spent = self._training(costs)
        before, _ = energy_of(costs.baseline)
        lines = [_line("energy of training", spent, "joules", NO_TRAINING)]
        if spent is not None and self.grams_per_kwh is not None:
            grams = spent / JOULES_PER_KWH * self.grams_per_kwh
            lines.append(_line("carbon of training", grams, "grams", ""))
        for name, rows in costs.artifacts.items():
            after, _ = energy_of(rows)
            count, reason = paid_after(spent, before, after)
            lines.append(_line(f"{name}: pays off after", count, "inferences", reason))
        return lines, None

    def _training(self, costs: Costs) -> float | None:
        if self.training_joules is not None:
            return self.training_joules
        if self.training_watts is None:
            return None
        return self.training_watts * costs.training_seconds


NO_TRAINING = "give training_joules as metered, or training_watts for an estimate"


def _line(name: str, value: float | None, unit: Unit, reason: str) -> Line:
    return Line(name=name, student=value, unit=unit, reason=reason if value is None else "")


def energy_of(rows: Sequence[Measurement]) -> tuple[float | None, Kind]:
    """Millijoules of one inference and their kind, from the first measurement that has a value."""
    for one in rows:
        if one.metric == "energy_mj" and one.value is not None:
            return one.value, one.kind
    return None, "unavailable"


def paid_after(
    training_joules: float | None, before_mj: float | None, after_mj: float | None
) -> tuple[float | None, str]:
    """The inferences, rounded up, after which the energy saved equals that of training, or why
    there is no such number."""
    if training_joules is None:
        return None, "the training's energy is unknown"
    if before_mj is None or after_mj is None:
        whose = "teacher's" if before_mj is None else "file's"
        return None, f"the energy of the {whose} inferences was not measured"
    if after_mj >= before_mj:
        return None, "inferences save no energy, so training never pays off"
    return float(math.ceil(1000 * training_joules / (before_mj - after_mj))), ""
