import math

import pytest

from edgekd.errors import InputError
from edgekd.measure.budgets import (
    EXIT_CODES,
    KNOWN,
    budgets_of,
    check_accept,
    check_budgets,
    check_hard_limits,
    format_budget,
    judge,
    merge_budgets,
    parse_budget,
    run_verdict,
)
from edgekd.measure.parity import Histogram, Parity
from edgekd.values.measurement import Judgement, Kind, Measurement


def latency(
    value: float | None,
    ci: tuple[float, float] | None = None,
    kind: Kind = "measured",
    metric: str = "latency_ms_p90",
    reason: str = "",
) -> Measurement:
    return Measurement(metric=metric, value=value, kind=kind, device="host", ci=ci, reason=reason)


def only(budgets: dict[str, float], *measurements: Measurement, accept: tuple[Kind, ...] = ()):
    (judgement,) = judge(budgets, measurements, accept)
    return judgement


def test_a_latency_without_a_quantile_is_its_p90() -> None:
    (budget,) = budgets_of({"latency_ms": 5})
    assert (budget.metric, budget.limit, budget.measured_as) == (
        "latency_ms_p90",
        5.0,
        ("latency_ms_p90",),
    )


def test_a_budget_is_read_from_the_command_line() -> None:
    assert parse_budget("latency_ms=5") == ("latency_ms", 5.0)
    assert parse_budget(" size_kib = 1e3 ") == ("size_kib", 1000.0)


@pytest.mark.parametrize(
    ("text", "message", "allowed", "hint"),
    [
        ("latency_ms", "'latency_ms' is not a budget", "NAME=LIMIT: latency_ms=5", ""),
        ("latency_ms=5ms", "'5ms' is not a number", "the unit is part of the name", ""),
        ("latancy_ms=5", "unknown budget 'latancy_ms'", "latency_ms", "did you mean 'latency_"),
        ("memory_mbit=5", "unknown unit 'mbit' of memory", "kib, mb, mib", "'memory_mb'"),
        ("latency=5", "'latency' without its unit", "us, ms, s", "latency_"),
        ("latency_ms=0", "a limit has to be above 0, found 0", "", ""),
        ("size_kb=-3", "a limit has to be above 0, found -3", "", ""),
        ("energy_mj=nan", "a limit has to be a finite number, found nan", "", ""),
        ("accuracy=93", "an accuracy has to be above 0 and at most 1, found 93", "", ""),
        ("accuracy_drop=-1", "from 0 to below 100 points, found -1", "", ""),
    ],
)
def test_a_budget_that_is_none_is_refused(text: str, message: str, allowed: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_budget(text)
    assert message in caught.value.message
    assert allowed in caught.value.allowed
    assert hint in caught.value.hint
    assert caught.value.where.startswith("--budget")


def test_all_faults_of_a_table_come_at_once() -> None:
    faults = check_budgets(
        {"latency_ms": 5, "latency_us_p90": 100, "speed": 1, "size_mb": 0}, "recipe.toml: budgets"
    )
    assert [str(fault).partition(" (")[0] for fault in faults] == [
        "recipe.toml: budgets latency_us_p90: the same budget as 'latency_ms'",
        "recipe.toml: budgets speed: unknown budget 'speed'",
        "recipe.toml: budgets size_mb: a limit has to be above 0, found 0",
    ]


def test_no_drop_at_all_is_a_budget_and_so_is_every_known_name() -> None:
    assert check_budgets({"accuracy_drop": 0.0}, "") == []
    for name in KNOWN:
        assert check_budgets({name: 0.5}, "") == []


def test_what_a_task_measures_is_a_budget_in_its_direction() -> None:
    assert parse_budget("bleu=0.3") == ("bleu", 0.3)
    assert format_budget("bleu", 0.3) == "bleu >= 0.3"
    assert format_budget("word_error_rate", 0.1) == "word_error_rate <= 0.1"
    bleu = latency(0.31, (0.29, 0.33), metric="bleu")
    assert only({"bleu": 0.29}, bleu).verdict == "pass"
    assert only({"bleu": 0.3}, bleu).reason == "the interval's lower end, 0.29, is below the limit"
    wrong = latency(0.05, (0.04, 0.08), metric="word_error_rate")
    assert only({"word_error_rate": 0.08}, wrong).verdict == "pass"
    assert only({"word_error_rate": 0.07}, wrong).verdict == "fail"


def test_a_misspelt_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown budget 'word_eror_rate'") as caught:
        parse_budget("word_eror_rate=0.1")
    assert "'word_error_rate'" in caught.value.hint


def test_a_later_budget_replaces_an_earlier_one_in_another_unit() -> None:
    merged = merge_budgets({"latency_ms": 5, "memory_mb": 8}, {"memory_kib": 512}, {})
    assert merged == {"latency_ms": 5, "memory_kib": 512}


def test_the_upper_end_of_the_interval_decides() -> None:
    kept = only({"latency_ms": 5}, latency(4.0, (3.8, 5.0)))
    assert (kept.verdict, kept.value, kept.reason) == ("pass", 4.0, "")
    broken = only({"latency_ms": 5}, latency(4.9, (4.7, 5.1)))
    assert (broken.verdict, broken.value) == ("fail", 4.9)
    assert broken.reason == "the interval's upper end, 5.1, is above the limit"
    beyond = only({"latency_ms": 5}, latency(6.0, (5.9, 6.1)))
    assert (beyond.verdict, beyond.reason) == ("fail", "above the limit")


def test_a_measurement_without_an_interval_is_taken_at_its_value() -> None:
    assert only({"latency_ms": 5}, latency(5.0)).verdict == "pass"
    assert only({"latency_ms": 5}, latency(5.01)).verdict == "fail"


def test_the_lower_end_decides_where_more_is_better() -> None:
    accuracy = latency(0.93, (0.91, 0.95), metric="accuracy")
    assert only({"accuracy": 0.91}, accuracy).verdict == "pass"
    broken = only({"accuracy": 0.92}, accuracy)
    assert broken.reason == "the interval's lower end, 0.91, is below the limit"
    assert only({"accuracy": 0.94}, accuracy).reason == "below the limit"


def test_units_are_converted_and_the_answer_is_in_the_users_unit() -> None:
    judged = only({"latency_us_p50": 900}, latency(0.8, (0.7, 0.85), metric="latency_ms_p50"))
    assert (judged.metric, judged.limit, judged.verdict) == ("latency_us_p50", 900.0, "pass")
    assert judged.value == pytest.approx(800.0)
    memory = latency(3 * 2**20, metric="peak_memory_bytes")
    assert only({"memory_mib": 3}, memory).value == 3.0
    assert only({"memory_mb": 3}, memory).verdict == "fail"
    assert only({"size_kib": 2}, latency(2048, metric="size_bytes")).verdict == "pass"
    assert only({"energy_j": 1}, latency(1500, metric="energy_mj")).value == 1.5


@pytest.mark.parametrize("kind", ["simulated", "estimated"])
@pytest.mark.parametrize(
    ("value", "side", "accepted"), [(4.0, "within", "pass"), (6.0, "beyond", "fail")]
)
def test_a_weaker_kind_proves_nothing_unless_it_is_accepted(
    kind: Kind, value: float, side: str, accepted: str
) -> None:
    judged = only({"latency_ms": 5}, latency(value, kind=kind))
    assert (judged.verdict, judged.value, judged.kind) == ("unverified", value, kind)
    expected = f"only {kind}, {side} the limit; --accept {kind} would let it count"
    assert judged.reason == expected
    assert only({"latency_ms": 5}, latency(value, kind=kind), accept=(kind,)).verdict == accepted
    other: Kind = "estimated" if kind == "simulated" else "simulated"
    judged = only({"latency_ms": 5}, latency(value, kind=kind), accept=(other,))
    assert judged.verdict == "unverified"


def test_the_strongest_kind_that_counts_decides_and_the_worst_among_equals() -> None:
    measured, simulated = latency(4.0), latency(9.0, kind="simulated")
    judged = only({"latency_ms": 5}, simulated, measured, accept=("simulated",))
    assert (judged.verdict, judged.kind) == ("pass", "measured")
    assert only({"latency_ms": 5}, measured, latency(6.0)).value == 6.0
    worst = [latency(value, metric="accuracy") for value in (0.9, 0.8)]
    assert only({"accuracy": 0.85}, *worst).value == 0.8
    estimated = latency(1.0, kind="estimated")
    assert only({"latency_ms": 5}, estimated, simulated).kind == "simulated"


def test_what_nothing_measured_is_unverified_and_has_no_value() -> None:
    counted = latency(2e6, metric="instructions", kind="simulated")
    assert only({"instructions": 1e6}, counted, accept=("simulated",)).verdict == "fail"
    assert only({"instructions": 3e6}, counted, accept=("simulated",)).verdict == "pass"
    assert only({"instructions": 3e6}, counted).verdict == "unverified"
    nothing = only({"energy_mj": 5}, latency(4.0))
    assert (nothing.verdict, nothing.value, nothing.kind) == ("unverified", None, "unavailable")
    assert nothing.reason == "energy_mj was not measured"
    told = latency(None, kind="unavailable", metric="energy_mj", reason="no sensor on this host")
    assert only({"energy_mj": 5}, told).reason == "no sensor on this host"
    assert only({"latency_ms": 5}, latency(math.nan)).verdict == "unverified"


def test_only_weaker_kinds_can_be_accepted() -> None:
    assert check_accept(["simulated", "estimated"]) == []
    (fault,) = check_accept(["simulate"])
    assert fault.message == "'simulate' can't be accepted"
    assert (fault.allowed, fault.hint) == ("simulated, estimated", "did you mean 'simulated'?")
    assert len(check_accept(["unavailable"])) == 1


def _judged(verdict: str) -> Judgement:
    return Judgement.model_validate(
        {"metric": "size_kb", "limit": 1, "value": 1, "kind": "measured", "verdict": verdict}
    )


def _parity(verdict: str) -> Parity:
    return Parity.model_validate(
        {
            "reference": "r", "samples": 1, "top1_agreement": 1, "verdict": verdict,
            "tolerance": 2, "histogram": Histogram(unit="lsb", edges=(0,), counts=(1,)),
            "worst_sample": 0, "worst_output": 0, "worst_reference": 0, "worst_value": 0,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "parities", "verdict", "code"),
    [
        ((), (), "pass", 0),
        (("pass", "pass"), ("pass",), "pass", 0),
        (("pass", "unverified"), ("pass",), "unverified", 4),
        (("unverified", "fail", "pass"), (), "fail", 1),
        (("pass",), ("pass", "fail"), "fail", 1),
    ],
)
def test_the_runs_verdict_is_that_of_its_worst_part(
    verdicts: tuple[str, ...], parities: tuple[str, ...], verdict: str, code: int
) -> None:
    whole = run_verdict(map(_judged, verdicts), map(_parity, parities))
    assert (whole, EXIT_CODES[whole]) == (verdict, code)


def test_a_budget_above_what_the_target_has_is_refused_with_the_most_it_allows():
    hard = {"size_bytes": 1048576.0, "memory_bytes": 327680.0}
    assert (
        check_hard_limits({"size_mib": 1.0, "memory_kib": 320, "latency_ms": 5}, hard, "m7") == []
    )
    (fault,) = check_hard_limits({"memory_kib": 321}, hard, "cortex-m7")
    assert "memory_kib = 321 allows more than the 327,680 bytes that cortex-m7" in str(fault)
    assert fault.allowed == "at most 320"
