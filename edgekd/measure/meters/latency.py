"""Latency: from raw samples to quantiles with intervals, and the ratio of two interleaved runs.

A quantile is the smallest sample that at least that share of the samples does not exceed. Intervals
are 95 % percentile bootstrap intervals with whole windows as blocks (Kunsch 1989), because
neighbouring samples on a machine depend on each other; the seed is fixed.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from edgekd.devices import Samples
from edgekd.values.measurement import Kind, Measurement, unavailable

LEAST_RUNS_FOR_P99 = 662
"""With fewer runs, the 99th percentile would rest on a handful of samples."""

DRAWS = 1000
KEPT = 1 << 15
"""For longer runs, intervals are computed from this many samples, evenly spaced in rank
per window."""

STRETCH_MS = 5.0
"""Runs are compared by stretches that take at least this long."""

UNDISTURBED = 0.1
"""The share of windows assumed to contain a stretch in which nothing else slowed the runs."""

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def latency_measurements(samples: Samples, device: str, kind: Kind) -> list[Measurement]:
    """p50, p90, p99, min, max, MAD and cold start in ms; each `unavailable` if the run is invalid.

    End-to-end samples give `end_to_end_ms_*` instead of `latency_ms_*`, so that a budget on the
    model's latency is never held against them.
    """
    stem = "latency_ms" if samples.scope == "model" else "end_to_end_ms"
    protocol, conditions = protocol_text(samples), samples.conditions
    missing = partial(unavailable, device=device, protocol=protocol, conditions=conditions)
    found = partial(Measurement, kind=kind, device=device, protocol=protocol, conditions=conditions)
    reason = samples.invalid or ("" if samples.windows_ms else "no samples were taken")
    if reason:
        names = [f"{stem}_{name}" for name in (*QUANTILES, "min", "max", "mad")]
        return [missing(name, reason) for name in (*names, "cold_start_ms")]
    everything = np.concatenate([np.asarray(window) for window in samples.windows_ms])
    values, intervals = quantiles(samples.windows_ms, list(QUANTILES.values()))
    rows = [
        found(metric=f"{stem}_{name}", value=value, ci=interval)
        for name, value, interval in zip(QUANTILES, values, intervals, strict=True)
    ]
    rows[0] = rows[0].model_copy(update={"samples": _for_a_plot(everything)})
    if len(everything) < LEAST_RUNS_FOR_P99:
        why = f"needs {LEAST_RUNS_FOR_P99} runs, there were {len(everything)}"
        rows[2] = missing(rows[2].metric, why)
    spread = np.median(np.abs(everything - np.median(everything)))
    for name, extreme in (("min", everything.min()), ("max", everything.max()), ("mad", spread)):
        rows.append(found(metric=f"{stem}_{name}", value=float(extreme)))
    if samples.cold_ms is None:
        return [*rows, missing("cold_start_ms", "not measured")]
    return [*rows, found(metric="cold_start_ms", value=samples.cold_ms)]


def ratio(a: Samples, b: Samples, device: str, kind: Kind) -> Measurement:
    """The latency of `a` divided by that of `b`, from two runs interleaved A B A B.

    Compares the fastest stretches of the runs, equally long on both sides. Other work on the
    machine only ever adds time (Chen and Revels 2016, arXiv:1608.04295), so medians also measure
    that work, and short runs escape it more easily than long ones. The 10th percentile of the
    windows' fastest stretches is used, so that a single window does not decide. The interval
    resamples rounds.
    """
    protocol = protocol_text(a)
    rounds = min(len(a.windows_ms), len(b.windows_ms))
    reason = a.invalid or b.invalid or ("" if rounds else "no samples were taken")
    if reason:
        return unavailable("latency_ratio", reason, device=device, protocol=protocol)
    stretch_ms = max(stretch_of(a), stretch_of(b))
    x, y = (fastest(each, stretch_ms)[:rounds] for each in (a, b))
    drawn = np.random.default_rng(0).integers(rounds, size=(DRAWS, rounds))
    ratios = undisturbed(x[drawn]) / undisturbed(y[drawn])
    low, high = np.quantile(ratios, [0.025, 0.975])
    value = float(undisturbed(x) / undisturbed(y))
    return Measurement(
        metric="latency_ratio",
        value=value,
        kind=kind,
        device=device,
        ci=(min(float(low), value), max(float(high), value)) if rounds > 1 else None,
        protocol=protocol,
        conditions=a.conditions,
    )


def stretch_of(samples: Samples) -> float:
    """How long a stretch has to be, in ms: the median run, but at least `STRETCH_MS`."""
    return max(STRETCH_MS, float(np.median(np.concatenate(samples.windows_ms))))


def fastest(samples: Samples, stretch_ms: float) -> np.ndarray:
    """(windows,): the fastest stretch of consecutive runs in each window, in ms per run.

    A stretch has as many runs as take `stretch_ms` at the median, or all runs of a shorter window.
    """
    found = []
    for window, runs in zip(samples.windows_ms, samples.runs, strict=True):
        kept_for = runs / len(window)  # a very fast model keeps only some of its runs
        count = round(stretch_ms / float(np.median(window)) / kept_for)
        count = min(max(count, 1), len(window))
        sums = np.cumsum([0.0, *window])
        found.append(float((sums[count:] - sums[:-count]).min()) / count)
    return np.array(found)


def undisturbed(fastest: np.ndarray) -> np.ndarray:
    """(..., windows) -> (...): the 10th percentile of the windows' fastest stretches."""
    found: np.ndarray = np.quantile(fastest, UNDISTURBED, axis=-1, method="inverted_cdf")
    return found


def quantiles(
    windows: Sequence[Sequence[float]], shares: Sequence[float], seed: int = 0
) -> tuple[list[float], list[tuple[float, float] | None]]:
    """The quantiles of all samples, each with its interval, which is None for a single window."""
    everything = np.concatenate([np.asarray(window) for window in windows])
    values = [float(v) for v in np.quantile(everything, shares, method="inverted_cdf")]
    if len(windows) < 2:
        return values, [None] * len(values)
    most = max(KEPT // len(windows), 32)
    kept = [_evenly(np.sort(np.asarray(window)), most) for window in windows]
    stand_for = np.array([len(w) / len(k) for w, k in zip(windows, kept, strict=True)])
    pooled = np.concatenate(kept)
    order = np.argsort(pooled, kind="stable")
    pooled = pooled[order]
    window_of = np.repeat(np.arange(len(kept)), [len(k) for k in kept])[order]
    generator = np.random.default_rng(seed)
    drawn = np.empty((DRAWS, len(shares)))
    for draw in range(DRAWS):
        chosen = generator.integers(len(kept), size=len(kept))
        weights = (np.bincount(chosen, minlength=len(kept)) * stand_for)[window_of]
        below = np.cumsum(weights)
        # The tolerance keeps rounding errors from missing a share that is met exactly.
        drawn[draw] = pooled[np.searchsorted(below, np.asarray(shares) * below[-1] * (1 - 1e-12))]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return values, [
        (float(min(lo, value)), float(max(hi, value)))
        for value, lo, hi in zip(values, low, high, strict=True)
    ]


def protocol_text(samples: Samples) -> str:
    """How the samples were taken, as text."""
    runs = sum(samples.runs)
    timed_s = sum(map(sum, samples.windows_ms)) / 1000
    seconds = sum(end - start for start, end in samples.spans_s) or timed_s
    return (
        f"{'quick' if samples.quick else 'full'}: {runs} runs in "
        f"{len(samples.windows_ms)} windows, {seconds:.1f} s, {samples.scope}"
    )


def _evenly(values: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the samples, each from the middle of an equal share."""
    if len(values) <= most:
        return values
    chosen: np.ndarray = values[((np.arange(most) + 0.5) * len(values) / most).astype(int)]
    return chosen


def _for_a_plot(everything: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in _evenly(everything, 1000))
