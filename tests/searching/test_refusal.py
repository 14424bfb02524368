"""A plan whose files already break a budget is refused before training."""

from types import SimpleNamespace

import pytest

from edgekd.run.plan.planned import ExpectedFile, PlannedTarget
from edgekd.searching.refusal import refusal_of
from edgekd.values.target import load_target

EVEN = {"kind": "prune", "amount": 0.5}


def plan(*files, stages=(EVEN,)):
    planned = PlannedTarget(load_target("x86"), (), {}, {}, expected=files)
    recipe = SimpleNamespace(stages=stages)
    return SimpleNamespace(targets=(planned,), request=SimpleNamespace(recipe=recipe))


def onnx(size, planned=None):
    return ExpectedFile(format="onnx", bytes=size, planned_bytes=planned)


def test_a_file_that_is_too_large_is_refused_with_its_size():
    refusal = refusal_of(plan(onnx(80_000)), {"x86": {"size_kb": 50.0}})
    assert refusal.message == "x86: the onnx file takes 80 kb, size_kb <= 50"
    assert refusal.excesses == {"x86": {"size_kb": pytest.approx(0.6)}}


def test_a_few_bytes_beyond_the_limit_are_not():
    assert refusal_of(plan(onnx(50_500)), {"x86": {"size_kb": 50.0}}) is None


def test_memory_that_the_tensors_alone_exceed_is_refused():
    refusal = refusal_of(plan(onnx(10, 9_000)), {"x86": {"memory_kb": 8.0}})
    assert "memory_kb <= 8" in refusal.message
    assert refusal_of(plan(onnx(10)), {"x86": {"memory_kb": 8.0}}) is None


def test_one_file_that_fits_is_enough():
    files = onnx(80_000), ExpectedFile(format="tflite", bytes=40_000)
    assert refusal_of(plan(*files), {"x86": {"size_kb": 50.0}}) is None


@pytest.mark.parametrize(
    "stage",
    [
        {**EVEN, "allocation": "global"},
        {**EVEN, "granularity": "blocks"},
        {"kind": "factorize", "rank": {"energy": 0.9}},
        {"kind": "quantize", "mixed": {"layers": 2}},
    ],
)
def test_where_a_stage_chooses_by_layer_more_is_needed(stage):
    limits = {"x86": {"size_kb": 50.0}}
    assert refusal_of(plan(onnx(60_000), stages=(stage,)), limits) is None
    assert refusal_of(plan(onnx(80_000), stages=(stage,)), limits) is not None


def test_without_budgets_of_size_nothing_is_refused():
    assert refusal_of(plan(onnx(10**9)), {"x86": {"latency_ms": 1.0}}) is None
    assert refusal_of(plan(), {"x86": {"size_kb": 1.0}}) is None
