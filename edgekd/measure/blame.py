"""Whose fault a failed parity is: the file's, or that of the device that ran it."""

from typing import Any

import numpy as np

from edgekd.devices import Device
from edgekd.devices.opening import open_device
from edgekd.errors import EdgekdError
from edgekd.measure.parity import Parity
from edgekd.values.artifact import Artifact

MUCH_NEARER = 0.1
"""Of a float file, whose steps are not known: this share of the device's distance."""


def blame(
    device: Device, artifact: Artifact, options: dict[str, Any], inputs: np.ndarray, parity: Parity
) -> Parity:
    """A parity that failed on a device, with the device named if this machine's own runtime agrees
    with the reference on the worst of the samples; unchanged where this machine can't tell."""
    if parity.verdict == "pass" or device.name == "host" or parity.worst_reference is None:
        return parity
    worst = inputs[parity.worst_sample : parity.worst_sample + 1]
    host = open_device("host")
    try:
        if host.can_run(artifact):
            return parity
        here = float(host.infer(artifact, worst, options).reshape(-1)[parity.worst_output])
    except EdgekdError:
        return parity
    finally:
        host.close()
    found = parity.worst_value
    distance = abs(here - parity.worst_reference)
    if parity.scale is not None:
        near = distance <= parity.tolerance * parity.scale * 1.01
    else:
        near = found is None or distance <= MUCH_NEARER * abs(found - parity.worst_reference)
    if not near:
        return parity
    version = device.hello().runtimes.get(artifact.runtime, artifact.runtime)
    told = (
        f"{device.name} alone: its {version} gives {_shown(found)} where the reference has "
        f"{parity.worst_reference:.6g}; the same file gives {here:.6g} on this machine"
    )
    return parity.model_copy(update={"first_difference": told})


def _shown(value: float | None) -> str:
    return "no finite number" if value is None else f"{value:.6g}"
