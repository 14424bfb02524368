"""`method = "auto"`: quantizes as cheaply as the accuracy allows. It starts with plain calibration,
measures, and adds one method after the other until the budget holds. What helps is kept for the
attempts that follow; what doesn't is dropped again.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch.fx import GraphModule

from edgekd.errors import EdgekdError
from edgekd.network.evaluation import evaluate, predict
from edgekd.quant.equalization import pairs_of
from edgekd.quant.faults import target_faults
from edgekd.quant.mixed import Mixed
from edgekd.quant.output_error import relative_error
from edgekd.quant.smoothing import linear_groups
from edgekd.stages._calibration_set import calibration_of
from edgekd.stages._post_training import PostTrainingStage
from edgekd.training.context import Context
from edgekd.values.candidate import Candidate
from edgekd.values.tree import rows

_SAMPLES = 64
"""The calibration samples on which outputs are compared with those of the float network."""

Changes = Mapping[str, Any]
Make = Callable[[PostTrainingStage], Candidate]


@dataclass(frozen=True)
class Attempt:
    """What was tried, and what it lost: `drop` in points of the score on the validation samples,
    `error` of the outputs relative to the float network's."""

    name: str
    candidate: Candidate
    drop: float
    error: float

    def beats(self, other: "Attempt | None") -> bool:
        """Whether it loses less, or as much with a smaller error of the outputs."""
        return other is None or (self.drop, self.error) < (other.drop, other.error)

    def __str__(self) -> str:
        return f"{self.name}: {self.drop:.2f} points lost, output error {self.error:.2g}"


def automatic(
    stage: PostTrainingStage, graph: GraphModule, make: Make, candidate: Candidate, context: Context
) -> Candidate:
    """The first candidate that `make` makes within the drop, or the best that there is. `graph` is
    the float graph; the notes say what each attempt lost."""
    limit = stage.accuracy_drop or 0.0
    score = evaluate(candidate.module, context.data.validation)
    samples = rows(calibration_of(context), slice(0, _SAMPLES))
    expected = predict(candidate.module, samples)
    best: Attempt | None = None
    keys: dict[str, Any] = {"method": "calibrate", "accuracy_drop": None, "last_resort": None}
    lines: list[str] = []
    failure: EdgekdError | None = None
    narrow_alone = bool(target_faults(stage.dtype, True, context.target, ""))
    for name, changes in _ladder(stage, graph, limit, narrow_alone):
        context.progress(f"auto: {name}", len(lines), len(lines) + 1)
        try:
            tried = make(stage.model_copy(update={**keys, **changes}))
        except EdgekdError as error:
            failure = failure or error
            lines.append(f"auto {len(lines) + 1}. {name}: {error.message}")
            continue
        drop = (score - evaluate(tried.module, context.data.validation)) * 100
        attempt = Attempt(name, tried, drop, relative_error(expected, tried.module, samples))
        kept = attempt.beats(best)
        lines.append(f"auto {len(lines) + 1}. {attempt}" + ("" if kept else ", dropped again"))
        if kept:
            best = attempt
            keys |= changes
        if best is not None and best.drop <= limit + 1e-9:
            break
    if best is None:
        assert failure is not None
        raise failure
    return _reported(best, limit, lines)


def _ladder(
    stage: PostTrainingStage, graph: GraphModule, limit: float, narrow_alone: bool
) -> Iterator[tuple[str, Changes]]:
    """The attempts from the cheapest on: each one's name and the keys that it changes. If
    `narrow_alone` the target runs nothing after an operator in float."""
    if stage.dtype == "int8":
        yield "calibration", {}
        yield "ranges by squared error", {"ranges": "mse"}
        yield "ranges by percentile", {"ranges": "percentile"}
        if pairs_of(graph):
            yield "equalization", {"equalize": True}
        if linear_groups(graph) and not narrow_alone:
            yield "SmoothQuant", {"smooth_quant": True}
    else:
        yield "calibration", {}
        yield "GPTQ", {"rounding": "gptq"}
        if linear_groups(graph):
            yield "AWQ", {"awq": True}
    yield "AdaRound", {"rounding": "adaround"}
    yield "reconstruction of blocks", {"rounding": "blocks"}
    if not stage.strict and not narrow_alone:
        yield "mixed precision", {"mixed": Mixed(accuracy_drop=limit)}
    if stage.last_resort is not None:
        trained = {"method": stage.last_resort, "mixed": None, "rounding": "nearest"}
        yield f"training ({stage.last_resort})", trained


def _reported(best: Attempt, limit: float, lines: list[str]) -> Candidate:
    line = best.candidate.lineage[-1]
    holds = "within" if best.drop <= limit + 1e-9 else "more than"
    line += f"; auto chose {best.name}: {best.drop:.2f} points lost, {holds} the {limit:g} allowed"
    lineage = (*best.candidate.lineage[:-1], line)
    return replace(best.candidate, lineage=lineage, notes=(*best.candidate.notes, *lines))
