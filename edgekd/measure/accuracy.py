"""Accuracy of the deployed file itself over a whole test set: the mean of its task's score."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgekd.data.samples import Samples
from edgekd.data.tasks import Pooled, Task
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.devices import Device, Options
from edgekd.errors import ToolError
from edgekd.measure.inference import infer_samples
from edgekd.measure.outputs import tree_of_outputs
from edgekd.measure.resampling import DRAWS, interval, means
from edgekd.values.artifact import Artifact
from edgekd.values.measurement import Kind, Measurement
from edgekd.values.tree import Tree, leaves, mapped

WHOLE_DRAWS = 200
"""Draws of the bootstrap for a metric that is computed over all samples each time."""


class NotFinite(ToolError):
    """Outputs that are NaN or infinite: the arithmetic of the file's precision overflows."""


@dataclass(frozen=True, eq=False)
class WholeScore:
    """A metric over all `count` samples, and its values `drawn` (WHOLE_DRAWS,) over samples drawn
    with replacement, the same ones for every model."""

    value: float
    count: int
    drawn: np.ndarray


Scores = np.ndarray | WholeScore
"""(N,) the score of each sample, or one for all."""


def accuracy_measurement(
    scores: Scores, device: str, kind: Kind = "measured", metric: str = "top-1"
) -> Measurement:
    """The mean score (N,) of a model with its bootstrap interval; `metric` is the name of the
    mean."""
    if isinstance(scores, WholeScore):
        return _share("accuracy", scores.value, scores.drawn, scores.count, device, kind, metric)
    value = float(scores.mean())
    return _share("accuracy", value, means(scores), len(scores), device, kind, metric)


def drop_measurement(
    original: Scores,
    scores: Scores,
    device: str,
    kind: Kind = "measured",
    metric: str = "top-1",
) -> Measurement:
    """`accuracy_drop`: by how many percentage points the mean score is below the original's.

    Below 0 the model is better. The interval resamples pairs, so samples that both models get right
    or both get wrong don't widen it.
    """
    if isinstance(scores, WholeScore) and isinstance(original, WholeScore):
        fall, falls = original.value - scores.value, original.drawn - scores.drawn
        facts = (100.0 * fall, 100.0 * falls, scores.count)
        return _share("accuracy_drop", *facts, device, kind, metric)
    assert isinstance(scores, np.ndarray)
    assert isinstance(original, np.ndarray)
    count = len(scores)
    change = original.astype(np.float64) - scores.astype(np.float64)
    if not _whole(change):
        value, drawn = 100.0 * float(change.mean()), 100.0 * means(change)
        return _share("accuracy_drop", value, drawn, count, device, kind, metric)
    lost, won = int((change == 1).sum()), int((change == -1).sum())
    shares = np.array([lost, won, count - lost - won]) / count
    counts = np.random.default_rng(0).multinomial(count, shares, DRAWS)
    points = 100.0 * (counts[:, 0] - counts[:, 1]) / count
    return _share(
        "accuracy_drop", 100.0 * (lost - won) / count, points, count, device, kind, metric
    )


def scores_of(outputs: Any, y: np.ndarray, place: str, task: Task = CLASSIFICATION) -> Scores:
    """Each sample's score (N,), from 0 to 1, for outputs (N, ...) and targets (N, ...); or one for
    all of them, if the task's metric is not a mean over samples.

    Raises `ToolError` for outputs that are not finite or don't fit the task: the runtime that
    returned them has failed.
    """
    found = mapped(lambda part: torch.as_tensor(np.ascontiguousarray(part)), outputs)
    targets = torch.from_numpy(np.ascontiguousarray(y))
    shapes = ", ".join(str(tuple(part.shape)) for part in leaves(found))
    if any(len(part) != len(y) for part in leaves(found)):
        raise ToolError(f"outputs of shape {shapes} for {len(y)} samples", where=place)
    if not all(bool(part.isfinite().all()) for part in leaves(found)):
        raise NotFinite("the outputs contain NaN or infinity", where=place)
    try:
        scores = task.judged(found, targets).double()
        return scores.numpy() if scores.dim() else _resampled(task, found, targets, float(scores))
    except (RuntimeError, IndexError, ValueError) as error:
        raise ToolError(
            f"outputs of shape {shapes} do not fit {task.name}: {error}", where=place
        ) from error


def _resampled(task: Task, outputs: Tree, y: torch.Tensor, value: float) -> WholeScore:
    """The metric over all samples, and over draws of as many with replacement."""
    random = np.random.default_rng(0)
    draws = [torch.from_numpy(random.integers(0, len(y), len(y))) for _ in range(WHOLE_DRAWS)]
    return WholeScore(value, len(y), np.array(task.redrawn(outputs, y, draws)))


def evaluate_artifact(
    device: Device, artifact: Artifact, samples: Samples, options: Options
) -> tuple[Measurement, Any]:
    """Run a file over all samples on a device; returns its accuracy and its main output
    (N, ...)."""
    found = infer_samples(device, artifact, samples, options)
    task = samples.task
    outputs = task.main(tree_of_outputs(artifact, found, ()))
    outputs = mapped(lambda part: part.numpy(), outputs)
    scores = scores_of(outputs, samples.y.numpy(), str(artifact.path), task)
    return accuracy_measurement(scores, device.name, device.kind, task.metric), outputs


def mean_measurement(
    metric: str, values: np.ndarray, device: str, kind: Kind, protocol: str
) -> Measurement:
    """The mean of any values (N,) with its bootstrap interval."""
    return Measurement(
        metric=metric,
        value=float(values.mean()),
        kind=kind,
        device=device,
        ci=interval(means(values)),
        protocol=protocol,
    )


def pooled_measurement(
    metric: str, pooled: Pooled, device: str, kind: Kind, protocol: str
) -> Measurement:
    """A metric over samples together, with its bootstrap interval over the samples."""
    random, count = np.random.default_rng(0), len(pooled.parts)
    draws = [torch.from_numpy(random.integers(0, count, count)) for _ in range(WHOLE_DRAWS)]
    drawn = np.array([pooled.of(pooled.parts[draw].sum(0)) for draw in draws])
    value = pooled.of(pooled.parts.sum(0))
    return Measurement(
        metric=metric, value=value, kind=kind, device=device, ci=interval(drawn), protocol=protocol
    )


def _whole(values: np.ndarray) -> bool:
    """Whether every value is a whole number, so that each sample is either right or wrong."""
    return values.dtype == bool or bool((values == np.round(values)).all())


def _share(
    name: str,
    value: float,
    drawn: np.ndarray,
    count: int,
    device: str,
    kind: Kind,
    metric: str,
) -> Measurement:
    return Measurement(
        metric=name,
        value=value,
        kind=kind,
        device=device,
        ci=interval(drawn),
        protocol=f"{metric} over {count} samples",
    )
