"""Accuracy of the deployed file itself over a whole test set: the mean of its task's score."""

import numpy as np
import torch

from edgekd.data.samples import Samples
from edgekd.data.tasks import Task
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.devices import Device, Options
from edgekd.errors import ToolError
from edgekd.measure.outputs import main_output
from edgekd.measure.resampling import DRAWS, interval, means
from edgekd.values.artifact import Artifact
from edgekd.values.measurement import Kind, Measurement
from edgekd.values.tree import leaves


def accuracy_measurement(
    scores: np.ndarray, device: str, kind: Kind = "measured", metric: str = "top-1"
) -> Measurement:
    """The mean score (N,) of a model with its bootstrap interval; `metric` is the name of the
    mean."""
    value = float(scores.mean())
    return _share("accuracy", value, means(scores), len(scores), device, kind, metric)


def drop_measurement(
    original: np.ndarray,
    scores: np.ndarray,
    device: str,
    kind: Kind = "measured",
    metric: str = "top-1",
) -> Measurement:
    """`accuracy_drop`: by how many percentage points the mean score is below the original's.

    Below 0 the model is better. The interval resamples pairs, so samples that both models get right
    or both get wrong don't widen it.
    """
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


def scores_of(
    outputs: np.ndarray, y: np.ndarray, place: str, task: Task = CLASSIFICATION
) -> np.ndarray:
    """Each sample's score (N,), from 0 to 1, for outputs (N, ...) and targets (N, ...).

    Raises `ToolError` for outputs that are not finite or don't fit the task: the runtime that
    returned them has failed.
    """
    found = torch.from_numpy(np.ascontiguousarray(outputs))
    targets = torch.from_numpy(np.ascontiguousarray(y))
    if len(outputs) != len(y):
        shape = tuple(outputs.shape)
        raise ToolError(f"outputs of shape {shape} for {len(y)} samples", where=place)
    if not np.isfinite(outputs).all():
        raise ToolError("the outputs contain NaN or infinity", where=place)
    try:
        scores = task.score(found, targets)
    except (RuntimeError, IndexError, ValueError) as error:
        raise ToolError(
            f"outputs of shape {tuple(outputs.shape)} do not fit {task.name}: {error}",
            where=place,
        ) from error
    return scores.double().numpy()


def evaluate_artifact(
    device: Device, artifact: Artifact, samples: Samples, options: Options
) -> tuple[Measurement, np.ndarray]:
    """Run a file over all samples on a device; returns its accuracy and its main output
    (N, ...)."""
    found = device.infer(artifact, [x.numpy() for x in leaves(samples.x)], options)
    outputs = found[main_output([info.name for info in artifact.outputs])]
    task = samples.task
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
