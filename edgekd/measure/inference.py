"""A deployed file run over samples: a device gets streamed ones a part at a time."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekd.data.inputs import Held
from edgekd.data.samples import Samples
from edgekd.devices import Device
from edgekd.values.artifact import Artifact
from edgekd.values.tree import Tree, leaves

TOGETHER = 256
"""Streamed samples that go to the device at a time."""


def infer_samples(
    device: Device, artifact: Artifact, samples: Samples, options: Mapping[str, Any]
) -> tuple[np.ndarray, ...]:
    """Every output (N, ...) of the file. What is in memory goes to the device at once, what is
    streamed a part at a time."""
    size = max(len(samples), 1) if isinstance(samples.inputs, Held) else TOGETHER
    parts = [
        device.infer(artifact, arrays_of(x), dict(options)) for x in samples.inputs.chunks(size)
    ]
    return tuple(
        part[0] if len(part) == 1 else np.concatenate(part) for part in zip(*parts, strict=True)
    )


def arrays_of(x: Tree) -> list[np.ndarray]:
    """A tree of inputs as a file takes them: one array for each leaf, in order."""
    return [tensor.numpy() for tensor in leaves(x)]
