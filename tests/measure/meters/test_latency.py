"""Latency measurements from samples worked out by hand."""

from dataclasses import replace

import pytest

from edgekd.devices import Samples
from edgekd.measure.meters.latency import (
    LEAST_RUNS_FOR_P99,
    fastest,
    latency_measurements,
    protocol_text,
    quantiles,
    ratio,
    stretch_of,
)


def samples(*windows: tuple[float, ...], **more: object) -> Samples:
    values = {"cold_ms": 12.5, "peak_memory_bytes": None, "conditions": {"threads": "1"}, **more}
    return Samples(windows_ms=windows, **values)  # type: ignore[arg-type]


def by_name(taken: Samples) -> dict[str, object]:
    return {one.metric: one for one in latency_measurements(taken, "host", "measured")}


def test_quantiles_extremes_and_deviation_are_those_worked_out_by_hand() -> None:
    # Sorted 1 2 3 4 5 6 7 8 9 30: the fifth and the ninth of ten; median for the MAD is 5.5.
    found = by_name(samples((5.0, 1.0, 30.0, 2.0, 8.0), (9.0, 3.0, 7.0, 4.0, 6.0)))
    values = {name: one.value for name, one in found.items()}  # type: ignore[attr-defined]
    assert values == {
        "latency_ms_p50": 5.0,
        "latency_ms_p90": 9.0,
        "latency_ms_p99": None,
        "latency_ms_min": 1.0,
        "latency_ms_max": 30.0,
        "latency_ms_mad": 2.5,
        "cold_start_ms": 12.5,
    }


def test_runs_that_are_counted_and_not_told_are_in_the_protocol() -> None:
    taken = samples((1.0, 3.0), (2.0, 2.0), counts=(2000, 4000), spans_s=((1.0, 6.0), (6.0, 13.0)))
    assert protocol_text(taken) == "full: 6000 runs in 2 windows, 12.0 s, model"


def test_p99_needs_enough_runs() -> None:
    few = by_name(samples((1.0,) * 331, (1.0,) * 330))["latency_ms_p99"]
    assert few.kind == "unavailable"  # type: ignore[attr-defined]
    assert few.reason == "needs 662 runs, there were 661"  # type: ignore[attr-defined]
    enough = by_name(samples((1.0,) * 331, (1.0,) * (LEAST_RUNS_FOR_P99 - 331)))["latency_ms_p99"]
    assert enough.value == 1.0  # type: ignore[attr-defined]


def test_a_throttled_run_has_no_value_and_says_why() -> None:
    rows = latency_measurements(samples((1.0,), invalid="it throttled"), "host", "measured")
    assert len(rows) == 7
    assert {(row.value, row.kind, row.reason) for row in rows} == {
        (None, "unavailable", "it throttled")
    }


def test_end_to_end_samples_never_pass_for_the_models_latency() -> None:
    rows = latency_measurements(samples((1.0, 2.0), scope="end-to-end"), "host", "measured")
    assert [row.metric for row in rows[:2]] == ["end_to_end_ms_p50", "end_to_end_ms_p90"]


def test_a_quick_run_is_stamped() -> None:
    row = latency_measurements(samples((1.0, 2.0), (3.0,), quick=True), "host", "measured")[0]
    assert row.protocol == "quick: 3 runs in 2 windows, 0.0 s, model"
    assert row.conditions == {"threads": "1"}


def test_the_interval_resamples_whole_windows() -> None:
    # Two windows without spread inside: a draw has only ones (1/4), only threes (1/4), or both
    # (1/2, median 1 by nearest rank), so both ends of the interval are reached.
    values, intervals = quantiles([(1.0,) * 50, (3.0,) * 50], [0.5])
    assert values == [1.0]
    assert intervals == [(1.0, 3.0)]
    # Single samples as blocks of their own would have given a narrower one.
    assert quantiles([(1.0,) * 50, (1.0,) * 50], [0.5])[1] == [(1.0, 1.0)]
    assert quantiles([(1.0, 3.0)], [0.5]) == ([1.0], [None])


def test_windows_of_unequal_length_keep_their_weight_when_thinned() -> None:
    long = tuple(float(n) for n in range(100_000))
    values, intervals = quantiles([long, (0.0,) * 10], [0.5])
    assert values == [49_994.0]  # the 50,005th of 100,010, ten of them zeros beside range's own
    assert intervals[0] is not None
    assert intervals[0][0] <= 49_994.0 <= intervals[0][1]


def test_intervals_repeat_exactly() -> None:
    windows = [tuple(float((7 * i * j) % 11) for i in range(1, 9)) for j in range(1, 7)]
    assert quantiles(windows, [0.5, 0.9]) == quantiles(windows, [0.5, 0.9])


def test_the_ratio_is_that_of_the_tenth_percentiles_over_the_windows() -> None:
    """Of ten windows the fastest, of eleven the second: not what a single window had."""
    a = samples((5.0,), *((6.0 + n,) for n in range(9)))
    b = samples(*((10.0 + n,) for n in range(9)), (8.0,))
    found = ratio(a, b, "host", "measured")
    assert (found.metric, found.value) == ("latency_ratio", 5.0 / 8.0)
    a, b = samples(*a.windows_ms, (7.0,)), samples(*b.windows_ms, (12.0,))
    found = ratio(a, b, "host", "measured")
    assert found.value == 6.0 / 10.0
    assert found.ci is not None
    assert found.ci[0] < 0.6 < found.ci[1]


def test_the_ratio_of_rounds_that_all_agree_is_certain() -> None:
    found = ratio(samples((9.0,), (9.0,)), samples((6.0,), (6.0,)), "host", "measured")
    assert (found.value, found.ci) == (1.5, (1.5, 1.5))
    assert ratio(samples((9.0,)), samples((6.0,)), "host", "measured").ci is None


@pytest.mark.parametrize("busy", [0.0, 0.3, 0.5, 0.7])
def test_the_ratio_is_that_of_a_machine_that_does_nothing_else(busy: float) -> None:
    """However much of the time something else slows it, and each file differently."""

    def windows(undisturbed: float, slowed: float) -> tuple[tuple[float, ...], ...]:
        slow = round(busy * 100)
        return ((slowed,) * slow + (undisturbed,) * (100 - slow),) * 5

    found = ratio(samples(*windows(8.0, 10.0)), samples(*windows(5.0, 9.0)), "host", "measured")
    assert found.value == pytest.approx(1.6)


def test_a_short_run_has_no_better_chance_of_an_undisturbed_moment_than_a_long_one() -> None:
    """10 ms at full speed and 20 ms at half of it, in turns: a run of 20 ms takes 30, and so do 20
    runs of 1 ms, of which each on its own would find its moment."""
    long = samples((30.0,) * 4)
    short = samples(((1.0,) * 10 + (2.0,) * 10) * 4)
    assert fastest(short, 30.0)[0] == pytest.approx(1.5, rel=0.04)
    found = ratio(long, short, "host", "measured")
    assert found.value == pytest.approx(20.0, rel=0.04)


def test_stretches_are_as_long_as_the_runs_that_they_stand_for() -> None:
    """5 ms of runs of 1 ms are five, in the middle; of every second run kept, two; of a window of
    three, all."""
    window = (3.0, 1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0)
    assert fastest(samples(window), 5.0) == [1.2]
    assert fastest(replace(samples(window), counts=(16,)), 5.0) == [1.0]
    assert fastest(samples((4.0, 1.0, 1.0)), 5.0) == [2.0]
    assert fastest(samples((9.0, 8.0)), 5.0) == [8.0]
    assert stretch_of(samples(window)) == 5.0
    assert stretch_of(samples((9.0, 8.0, 10.0))) == 9.0


def test_a_ratio_with_an_invalid_run_is_unavailable() -> None:
    found = ratio(samples((1.0,)), samples((1.0,), invalid="it throttled"), "host", "measured")
    assert (found.value, found.kind, found.reason) == (None, "unavailable", "it throttled")


@pytest.mark.parametrize("cold", [None, 3.0])
def test_a_cold_start_that_was_not_taken_is_not_zero(cold: float | None) -> None:
    found = by_name(samples((1.0,), cold_ms=cold))["cold_start_ms"]
    assert found.value == cold  # type: ignore[attr-defined]
    assert bool(found.reason) == (cold is None)  # type: ignore[attr-defined]
