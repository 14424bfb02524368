"""Throughput: samples per second of several copies of a model, with the interval over windows."""

import numpy as np

from edgekd.devices import Streamed
from edgekd.measure.resampling import interval, means
from edgekd.values.measurement import Kind, Measurement, unavailable

METRIC = "samples_per_second"


def throughput_measurement(
    streamed: Streamed, streams: int, device: str, kind: Kind, quick: bool
) -> Measurement:
    """The mean over all windows, with its bootstrap interval at 95 % over them."""
    rates = streamed.samples_per_run * np.asarray(streamed.runs_per_second)
    windows, length = len(rates), streamed.window_s
    protocol = (
        f"{'quick' if quick else 'full'}: {windows} windows of {length:.3g} s, batch "
        f"{streamed.samples_per_run}, {streams} processes"
    )
    conditions = streamed.conditions
    if streamed.invalid:
        return unavailable(
            METRIC, streamed.invalid, device=device, protocol=protocol, conditions=conditions
        )
    return Measurement(
        metric=METRIC,
        value=float(rates.mean()),
        kind=kind,
        device=device,
        ci=interval(means(rates)),
        protocol=protocol,
        conditions=conditions,
        samples=tuple(map(float, rates)),
    )
