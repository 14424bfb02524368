"""Benchmarking files that edgekd did not make: on a device that answers by script, and for real."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgekd.benchmark.files import Wanted, bench_files
from edgekd.benchmark.text import bench_lines
from edgekd.devices import Samples
from edgekd.devices.opening import open_device
from edgekd.errors import Faults, InputError, MissingRuntime
from edgekd.values.artifact import Artifact, TensorInfo
from edgekd.values.target import Target, load_target

INFO = TensorInfo(name="x", shape=(1, 4), dtype="float32")


class Scripted:
    """A device whose latency is in the file, in ms."""

    name = "scripted"
    kind = "measured"

    def __init__(self) -> None:
        self.options: list[dict[str, Any]] = []

    def hello(self) -> Any:
        return SimpleNamespace(runtimes={"tensorrt": ""}, machine="x86_64")

    def can_run(self, artifact: Artifact) -> str:
        return "" if artifact.runtime != "tensorrt" else "scripted has no tensorrt"

    def probe(self, path: Path, runtime: str, options: dict[str, Any]) -> Any:
        if path.read_bytes() == b"broken":
            raise InputError("can't load it", where=str(path))
        return (INFO,), (INFO,)

    def look(self, patterns: Sequence[str]) -> dict[str, str]:
        return {}

    def infer(self, *_: Any) -> np.ndarray:
        raise NotImplementedError

    def benchmark(
        self, artifacts: Sequence[Artifact], options: Any, *, quick: bool
    ) -> list[Samples]:
        self.options = options
        ms = [float(artifact.path.read_text()) for artifact in artifacts]
        return [Samples(((each,) * 3,) * 2, 9.0, 1_000_000, {}, quick=quick) for each in ms]

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("x86")


def files(folder: Path, **contents: str) -> list[Path]:
    paths = [folder / f"{name}.onnx" for name in contents]
    for path, text in zip(paths, contents.values(), strict=True):
        path.write_text(text)
    return paths


def test_the_ratio_says_how_many_times_faster_than_the_baseline(
    tmp_path: Path, target: Target
) -> None:
    slow, fast = files(tmp_path, slow="6.0", fast="1.5")
    first, second = bench_files([slow, fast], target, Scripted(), quick=True, baseline=slow)
    assert first.baseline
    assert first.ratio is None
    assert second.ratio is not None
    assert second.ratio.value == 4.0
    assert second.measurements[0].value == 1.5
    assert second.inputs == (INFO,)


def test_results_are_json(tmp_path: Path, target: Target) -> None:
    results = bench_files(files(tmp_path, model="2.0"), target, Scripted(), quick=True)
    (table,) = json.loads(json.dumps([result.model_dump(mode="json") for result in results]))
    assert table["quick"] is True
    assert table["measurements"][0]["metric"] == "latency_ms_p50"
    assert table["sha256"] == results[0].sha256


def test_the_targets_options_reach_the_device_and_can_be_overridden(
    tmp_path: Path, target: Target
) -> None:
    device = Scripted()
    bench_files(
        files(tmp_path, model="1"),
        target,
        device,
        quick=True,
        wanted=Wanted(options={"threads": 2}),
    )
    assert device.options == [{**target.backends["onnx"], "threads": 2, "shapes": {}}]
    assert target.backends["onnx"]["threads"] == 1


def test_every_fault_of_every_file_is_reported_at_once(tmp_path: Path, target: Target) -> None:
    (broken,) = files(tmp_path, broken="broken")
    missing, odd, engine = (tmp_path / name for name in ("gone.onnx", "model.onx", "jetson.engine"))
    library = tmp_path / "model.so"
    for path in (odd, engine, library):
        path.write_text("1")
    with pytest.raises(Faults) as caught:
        bench_files([broken, missing, odd, engine, library], target, Scripted())
    found = [(Path(fault.where).name, fault.message) for fault in caught.value.faults]
    assert found == [
        ("broken.onnx", "can't load it"),
        ("gone.onnx", "no such file"),
        ("model.onx", "unknown model format '.onx'"),
        ("jetson.engine", "scripted has no tensorrt"),
        ("model.so", "a .so file does not record the shapes of its inputs"),
    ]
    assert caught.value.faults[2].hint == "did you mean '.onnx'?"
    assert caught.value.exit_code == 2, "what is the user's has to be mended first"


def test_what_the_device_lacks_is_the_devices_fault(tmp_path: Path, target: Target) -> None:
    engines = [tmp_path / "one.engine", tmp_path / "two.plan"]
    for engine in engines:
        engine.write_text("1")
    with pytest.raises(MissingRuntime, match=r"one\.engine: scripted has no tensorrt"):
        bench_files(engines[:1], target, Scripted())
    with pytest.raises(Faults) as caught:
        bench_files(engines, target, Scripted())
    assert caught.value.exit_code == 3


def test_a_file_compiled_for_the_edge_tpu_goes_to_its_delegate(
    tmp_path: Path, target: Target
) -> None:
    class Asked(Scripted):
        def probe(self, path: Path, runtime: str, options: dict[str, Any]) -> Any:
            raise InputError(f"asked for {runtime}", where=str(path))

    path = tmp_path / "model_edgetpu.tflite"
    path.write_bytes(b"....edgetpu-custom-op....")
    with pytest.raises(InputError, match="asked for edgetpu"):
        bench_files([path], target, Asked())


def test_the_table_says_why_a_value_is_missing(tmp_path: Path, target: Target) -> None:
    slow, fast = files(tmp_path, slow="6.0", fast="1.5")
    lines = bench_lines(bench_files([fast], target, Scripted(), quick=True, baseline=slow))
    assert lines[0].split()[:3] == ["file", "p50", "ms"]
    assert lines[1].split() == ["slow.onnx", "6", "6", "-", "9", "1", "-", "baseline"]
    assert lines[2].split()[-3:] == ["4.000x", "[4.000,", "4.000]"]
    assert lines[3] == "scripted, quick: 6 runs in 2 windows, 0.0 s, model"
    assert lines[4:6] == ["slow.onnx: flash 3 B", "fast.onnx: flash 3 B"]
    assert lines[6] == "latency_ms_p99: needs 662 runs, there were 6"
    assert lines[7].startswith("energy_mj: no RAPL counter below scripted/sys")


def test_end_to_end_values_stand_in_the_columns_of_the_models(
    tmp_path: Path, target: Target
) -> None:
    names = {"latency_ms": "end_to_end_ms", "energy_mj": "end_to_end_energy_mj"}
    (plain,) = bench_files(files(tmp_path, a="6.0"), target, Scripted(), quick=True)
    rows = []
    for row in plain.measurements:
        metric = row.metric
        for name, whole in names.items():
            metric = metric.replace(name, whole)
        rows.append(row.model_copy(update={"metric": metric}))
    lines = bench_lines([plain.model_copy(update={"measurements": tuple(rows)})])
    assert lines[:3] == bench_lines([plain])[:3]
    assert "end_to_end_ms_p99: needs 662 runs, there were 6" in lines
    assert any(line.startswith("end_to_end_energy_mj: no RAPL") for line in lines)


def test_a_reason_that_is_not_all_files_names_its_own(tmp_path: Path, target: Target) -> None:
    slow, fast = files(tmp_path, slow="6.0", fast="1.5")
    first, second = bench_files([slow, fast], target, Scripted(), quick=True)
    rows = [row.model_copy(update={"value": 1.0, "kind": "measured", "reason": ""})
            if row.metric == "latency_ms_p99" else row for row in first.measurements]  # fmt: skip
    lines = bench_lines([first.model_copy(update={"measurements": tuple(rows)}), second])
    assert "fast.onnx: latency_ms_p99: needs 662 runs, there were 6" in lines
    assert any(line.startswith("energy_mj: ") for line in lines)


def test_the_number_of_runs_is_reported_for_each_file(tmp_path: Path, target: Target) -> None:
    first, second = bench_files(files(tmp_path, a="6.0", b="1.5"), target, Scripted(), quick=True)
    rows = [row.model_copy(update={"protocol": "quick: 9 runs"}) for row in second.measurements]
    lines = bench_lines([first, second.model_copy(update={"measurements": tuple(rows)})])
    assert "scripted, a.onnx, quick: 6 runs in 2 windows, 0.0 s, model" in lines
    assert "scripted, b.onnx, quick: 9 runs" in lines


def test_a_meter_is_refused_where_nothing_is_measured(tmp_path: Path, target: Target) -> None:
    emulated = Scripted()
    emulated.kind = "simulated"
    with pytest.raises(InputError, match="an external meter would read this machine's power"):
        bench_files(files(tmp_path, model="1"), target, emulated, wanted=Wanted(meter="cat"))


def test_a_budget_is_held_against_all_but_the_baseline(tmp_path: Path, target: Target) -> None:
    slow, fast = files(tmp_path, slow="6.0", fast="1.5")
    wanted = Wanted(budgets={"latency_ms_p50": 2.0})
    found = bench_files([fast], target, Scripted(), quick=True, baseline=slow, wanted=wanted)
    assert [[one.verdict for one in result.budgets] for result in found] == [[], ["pass"]]
    assert bench_lines(found)[-1] == (
        "budget: fast.onnx: latency_ms_p50 1.5 (measured), limit 2: pass"
    )


@pytest.mark.parametrize(
    ("name", "machine"), [("raspberry-pi-5", "aarch64"), ("cortex-m4", "thumb")]
)
def test_what_is_measured_on_another_kind_of_machine_satisfies_no_budget(
    tmp_path: Path, name: str, machine: str
) -> None:
    wanted = Wanted(budgets={"latency_ms": 5.0, "size_kb": 1.0})
    model = files(tmp_path, model="1.5")
    (result,) = bench_files(model, load_target(name), Scripted(), quick=True, wanted=wanted)
    latency, size = result.budgets
    assert (latency.verdict, latency.value) == ("unverified", None)
    assert latency.reason == f"scripted is x86_64, but {name} is {machine}"
    assert size.verdict == "pass"


def test_where_no_target_is_named_a_limit_is_the_devices_own(tmp_path: Path) -> None:
    class Elsewhere(Scripted):
        def hello(self) -> Any:
            return SimpleNamespace(runtimes={}, machine="aarch64")

    wanted = Wanted(budgets={"latency_ms": 5.0})
    model = files(tmp_path, model="1.5")
    (result,) = bench_files(model, None, Elsewhere(), quick=True, wanted=wanted)
    assert [judged.verdict for judged in result.budgets] == ["pass"]


def test_no_file_is_refused(target: Target) -> None:
    with pytest.raises(InputError, match="no file to measure"):
        bench_files([], target, Scripted())


def test_a_baseline_without_other_files_is_refused(tmp_path: Path, target: Target) -> None:
    (model,) = files(tmp_path, model="6.0")
    wanted = Wanted(budgets={"latency_ms": 0.001})
    with pytest.raises(InputError, match="no file besides the baseline"):
        bench_files([model], target, Scripted(), baseline=model, wanted=wanted)


def test_a_foreign_onnx_file_is_measured_on_the_host(tmp_path: Path, target: Target) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    shapes = [helper.make_tensor_value_info(n, kinds.FLOAT, ("batch", 8)) for n in ("a", "b", "y")]
    add = helper.make_node("Add", ["a", "b"], ["y"])
    graph = helper.make_graph([add], "sum", shapes[:2], shapes[2:])
    path = tmp_path / "sum.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    device = open_device("host", limit_s=60.0)
    try:
        (result,) = bench_files([path], target, device, quick=True)
    finally:
        device.close()
    assert [info.shape for info in result.inputs] == [(-1, 8), (-1, 8)]
    rows = {row.metric: row for row in result.measurements}
    assert rows["latency_ms_p50"].value is not None
    assert rows["latency_ms_p50"].kind == "measured"
    assert rows["latency_ms_p50"].protocol.startswith("quick: ")
    assert rows["energy_mj"].value is None, "a quick run is too short for energy"
