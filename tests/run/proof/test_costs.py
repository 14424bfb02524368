"""What files cost where they run, and what speaks against how it was measured."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edgekd.data.samples import Samples as Tensors
from edgekd.devices import Samples
from edgekd.errors import MissingRuntime
from edgekd.run.proof import costs
from edgekd.run.proof.place import Place
from edgekd.values.measurement import Measurement
from edgekd.values.target import load_target

P50 = Measurement(metric="latency_ms_p50", value=1.0, kind="measured", device="host")


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A device of a busy machine, which can run all but one of the files."""
    windows = ((1.0, 1.0),) * 5
    conditions = {"load": "5.57", "governor": "powersave"}
    taken = Samples(windows, 1.0, None, conditions, quick=True)
    monkeypatch.setattr(
        costs,
        "measure",
        lambda device, artifacts, *_, **__: (
            [taken for _ in artifacts],
            [(P50,) for _ in artifacts],
        ),
    )
    why = {"m.so": "host has no tvm"}

    def profile(*_: Any, **__: Any) -> Any:
        raise MissingRuntime("nothing here times operators")

    return SimpleNamespace(
        name="host",
        kind="measured",
        can_run=lambda each: why.get(each.path, ""),
        profile=profile,
    )


def plan_of(cache: Path) -> Any:
    """A quick run whose samples have a float input and one of two ids."""
    x = {"x": torch.zeros(2, 4), "ids": torch.tensor([[3, 8], [5, 4]])}
    data = SimpleNamespace(test=Tensors(x, torch.zeros(2, dtype=torch.int64)))
    return SimpleNamespace(request=SimpleNamespace(quick=True, cache=cache), data=data)


def compiled(name: str, is_baseline: bool = False) -> Any:
    inputs = [SimpleNamespace(name="x"), SimpleNamespace(name="ids")]
    artifact = SimpleNamespace(path=name, runtime="onnxruntime", format="onnx", inputs=inputs)
    return SimpleNamespace(artifact=artifact, is_baseline=is_baseline)


def test_what_speaks_against_a_measurement_is_noted_with_each_file_that_has_it(
    busy: Any, tmp_path: Path
) -> None:
    """The load is not: training has just ended on the same machine."""
    plan = plan_of(tmp_path)
    files = [compiled("teacher.onnx", True), compiled("m.so")]
    steps: list[str] = []
    measured, missing = costs.costs_of(
        plan, load_target("x86"), Place(busy), files, lambda what, *_: steps.append(what)
    )
    assert measured.notes == ("the governor is 'powersave': clocks change with the load",)
    assert [one.metric for one in measured.measurements] == ["latency_ms_p50", "latency_ratio"]
    assert missing.notes == ()
    assert {one.reason for one in missing.measurements} == {"host has no tvm"}
    assert steps == ["measure 1 files on host"] * 2


def test_ids_are_drawn_from_those_that_the_samples_hold(
    busy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A random id beyond the table of its column would end the run."""
    options: list[Any] = []
    usual = costs.measure

    def noted(device: Any, artifacts: Any, table: Any, *rest: Any, **named: Any) -> Any:
        options.extend(table)
        return usual(device, artifacts, table, *rest, **named)

    monkeypatch.setattr(costs, "measure", noted)
    costs.costs_of(
        plan_of(tmp_path), load_target("x86"), Place(busy), [compiled("m.onnx")], lambda *_: None
    )
    assert options[0]["ranges"] == {"ids": ([3, 4], [5, 8])}


@pytest.mark.parametrize("teacher", [None, "m.so"], ids=["there is none", "it does not run there"])
def test_nothing_is_faster_than_a_teacher_that_was_not_measured(
    busy: Any, teacher: str | None, tmp_path: Path
) -> None:
    plan = plan_of(tmp_path)
    files = [compiled(teacher, True)] if teacher else []
    *_, measured = costs.costs_of(
        plan, load_target("x86"), Place(busy), [*files, compiled("m.onnx")], lambda *_: None
    )
    ratio = measured.measurements[-1]
    assert (ratio.metric, ratio.value) == ("latency_ratio", None)
    assert ratio.reason == "the teacher was not measured beside it"
