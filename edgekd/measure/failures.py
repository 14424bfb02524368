"""Whether a failed parity check is due to the file or to the device that ran it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekd.devices import Device
from edgekd.devices.opening import open_device
from edgekd.errors import EdgekdError
from edgekd.measure.parity import Parity
from edgekd.values.artifact import Artifact

MUCH_NEARER = 0.1
"""The tolerance for a float file, whose step is unknown, as a share of the device's difference."""


def attribute_failure(
    device: Device, artifact: Artifact, options: dict[str, Any], worst: Sequence[np.ndarray],
    parity: Parity, output: int = 0,
) -> Parity:  # fmt: skip
    """Attribute a parity failure to the device if this machine's runtime agrees with the reference.

    Only the `worst` sample (1, ...) is compared, in the output at that position. The parity is
    returned with the device named, or unchanged if the failure is the file's or this machine can't
    tell.
    """
    if parity.verdict == "pass" or device.name == "host" or parity.worst_reference is None:
        return parity
    host = open_device("host")
    try:
        if host.can_run(artifact):
            return parity
        outputs = host.infer(artifact, worst, options)
        here = float(outputs[output].reshape(-1)[parity.worst_output])
    except EdgekdError:
        return parity
    finally:
        host.close()
    there = parity.worst_value
    distance = abs(here - parity.worst_reference)
    if parity.scale is not None:
        near = distance <= parity.tolerance * parity.scale * 1.01
    else:
        near = there is None or distance <= MUCH_NEARER * abs(there - parity.worst_reference)
    if not near:
        return parity
    version = device.hello().runtimes.get(artifact.runtime, artifact.runtime)
    finding = (
        f"only on {device.name}: its {version} gives {_shown(there)} where the reference has "
        f"{parity.worst_reference:.6g}; the same file gives {here:.6g} on this machine"
    )
    return parity.model_copy(update={"first_difference": finding})


def _shown(value: float | None) -> str:
    return "a value that is not finite" if value is None else f"{value:.6g}"
