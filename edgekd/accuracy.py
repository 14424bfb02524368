"""Accuracy of the deployed file itself, over a whole test set."""

import numpy as np

from edgekd.artifact import Artifact
from edgekd.data.samples import Samples
from edgekd.devices import Device, Options
from edgekd.errors import ToolError
from edgekd.measurement import Kind, Measurement

DRAWS = 1000


def accuracy_measurement(correct: np.ndarray, device: str, kind: Kind = "measured") -> Measurement:
    """The share of samples (N,) that a model gets right, with its bootstrap interval.

    Resampling N right-or-wrong results draws from a binomial distribution, so that is drawn from.
    """
    count, right = len(correct), int(correct.sum())
    drawn = np.random.default_rng(0).binomial(count, right / count, DRAWS) / count
    return _share("accuracy", right / count, drawn, count, device, kind)


def drop_measurement(
    original: np.ndarray, correct: np.ndarray, device: str, kind: Kind = "measured"
) -> Measurement:
    """`accuracy_drop`: how many percentage points fewer samples are right than the original's.

    Below 0 the model is better. The interval resamples the pairs: samples that both get right or
    both get wrong don't widen it.
    """
    count = len(correct)
    lost, won = int((original & ~correct).sum()), int((correct & ~original).sum())
    shares = np.array([lost, won, count - lost - won]) / count
    drawn = np.random.default_rng(0).multinomial(count, shares, DRAWS)
    points = 100.0 * (drawn[:, 0] - drawn[:, 1]) / count
    return _share("accuracy_drop", 100.0 * (lost - won) / count, points, count, device, kind)


def correct_of(outputs: np.ndarray, labels: np.ndarray, place: str) -> np.ndarray:
    """Which samples (N,) the logits (N, C) get right. Raises `ToolError` for logits that are not
    finite or not one row a label: a runtime that gives those has failed."""
    if outputs.ndim != 2 or len(outputs) != len(labels):
        shape = tuple(outputs.shape)
        raise ToolError(f"outputs of shape {shape} for {len(labels)} labels", where=place)
    if not np.isfinite(outputs).all():
        raise ToolError("the outputs have values that are not finite", where=place)
    return np.asarray(outputs.argmax(1) == labels)


def evaluate_artifact(
    device: Device, artifact: Artifact, samples: Samples, options: Options
) -> tuple[Measurement, np.ndarray]:
    """Run a file over all samples on a device: its accuracy and its outputs (N, C) in float32."""
    outputs = device.infer(artifact, samples.x.numpy(), options)
    correct = correct_of(outputs, samples.y.numpy(), str(artifact.path))
    return accuracy_measurement(correct, device.name, device.kind), outputs


def _share(
    metric: str, value: float, drawn: np.ndarray, count: int, device: str, kind: Kind
) -> Measurement:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Measurement(
        metric=metric,
        value=value,
        kind=kind,
        device=device,
        ci=(float(low), float(high)),
        protocol=f"top-1 over {count} samples",
    )
