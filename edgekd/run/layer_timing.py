"""Times the layers of a candidate on the target's device, for stages that choose by time."""

import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from edgekd.backends import Backend
from edgekd.devices import Device
from edgekd.errors import EdgekdError
from edgekd.measure.layer_times import LayerTimes, kind_of_operator, layer_times
from edgekd.network.cost import layer_costs
from edgekd.registry import BACKENDS
from edgekd.run.plan.planned import Plan
from edgekd.run.proof.place import options_for, place_for
from edgekd.values.candidate import Candidate
from edgekd.values.layer_timer import LayerTimer, Timed
from edgekd.values.target import Target

LEAST_NAMED = 0.8
"""The share of the multiply-accumulates that a profile has to name the layers of."""


def layer_timer(plan: Plan, target: Target) -> LayerTimer:
    """A timer for candidates of one target, by the first of its backends whose files can be
    compiled and profiled here."""

    def timed(candidate: Candidate) -> Timed | None:
        place = place_for(plan, target)
        if place.reason:  # another kind of machine
            return None
        for name, options in target.backends.items():
            backend: Any = BACKENDS.get(name).make()
            if not isinstance(backend, Backend) or backend.missing():
                continue
            try:
                found = time_with(backend, candidate, target, options, place.device)
            except EdgekdError:  # the run's own compilation says why
                continue
            if found is not None:
                return found
        return None

    return timed


def time_with(
    backend: Backend, candidate: Candidate, target: Target, options: dict[str, Any], device: Device
) -> Timed | None:
    """The times of a candidate's layers in the file that a backend makes of it; None where the
    device can't run it, or where the file doesn't name its layers."""
    with tempfile.TemporaryDirectory(prefix="edgekd-timing-") as folder:
        (artifact, *_) = backend.compile(candidate, target, options, Path(folder))
        if device.can_run(artifact):
            return None
        profiled = device.profile(artifact, options_for(target, artifact), quick=True)
        times = layer_times(profiled, artifact, None, device.kind)
    layers = by_layer(times, candidate)
    return Timed(layers, times.unit, f"{artifact.runtime} on {device.name}") if layers else None


def by_layer(times: LayerTimes, candidate: Candidate) -> dict[str, float]:
    """The cost of each layer with weights, by the candidate's names; those that the file does not
    name by their order. Empty where that leaves too many out."""
    costs = [cost for cost in layer_costs(candidate.module, candidate.example) if cost.parameters]
    names = {_flat(cost.name): cost.name for cost in costs}
    found: defaultdict[str, float] = defaultdict(float)
    unnamed = []
    for row in times.rows:
        name = names.get(_flat(row.layer))
        if name is not None:
            found[name] += row.value
        elif kind_of_operator(row.operator) in ("conv", "product"):
            unnamed.append(row)
    left = [cost.name for cost in costs if cost.name not in found]
    if len(left) == len(unnamed):  # runtimes name fused operators after the last of them
        found |= {name: row.value for name, row in zip(left, unnamed, strict=True)}
    named = sum(cost.macs for cost in costs if cost.name in found)
    return dict(found) if named >= LEAST_NAMED * sum(cost.macs for cost in costs) else {}


def _flat(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name)
