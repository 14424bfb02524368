"""What files tell without being run, and what speaks against a run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.devices import Samples
from edgekd.measure.meters.plan import static_measurements
from edgekd.measure.meters.quality import quality_warnings
from edgekd.values.artifact import Artifact, TensorInfo


def artifact(path: Path, form: str, **more: object) -> Artifact:
    values = {
        "path": path, "format": form, "runtime": "litert", "precision": "int8", "target": "x86",
        "sha256": "", "bytes": path.stat().st_size, "inputs": (), "outputs": (), **more,
    }  # fmt: skip
    return Artifact.model_validate(values)


def by_name(found: Artifact) -> dict[str, object]:
    return {row.metric: row for row in static_measurements(found)}


def test_a_tflite_file_tells_flash_memory_and_energy(tflite_file: Callable[..., Path]) -> None:
    path = tflite_file()
    rows = by_name(artifact(path, "tflite"))
    assert rows["size_bytes"].value == path.stat().st_size  # type: ignore[attr-defined]
    planned = rows["planned_memory_bytes"]
    # input 64 bytes, convolution's and RELU's 128 each; the input is dead when RELU runs
    assert (planned.value, planned.kind) == (256.0, "estimated")  # type: ignore[attr-defined]
    energy = rows["energy_estimate_mj"]
    macs, moved = 4 * 4 * 8 * 4, 32 + 8 * 4 + 64 + 128
    assert energy.kind == "estimated"  # type: ignore[attr-defined]
    assert energy.value == pytest.approx((macs * 0.3 + moved * 162.5) / 1e9)  # type: ignore[attr-defined]
    assert "energy_mj" not in rows, "no gate may take an estimate for energy"


@pytest.mark.parametrize(("quantized", "arithmetic"), [(True, "int8"), (False, "fp32")])
def test_energy_is_of_the_arithmetic_between_a_files_float_ends(
    tmp_path: Path, quantized: bool, arithmetic: str
) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [helper.make_node("MatMul", ["d" if quantized else "x", "w"], ["y"])]
    if quantized:
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            *nodes,
        ]
    info = [helper.make_tensor_value_info(name, kinds.FLOAT, (1, 64)) for name in ("x", "y")]
    values = {"w": np.ones((64, 64), np.float32), "s": np.float32(0.1), "z": np.uint8(0)}
    made = [onnx.numpy_helper.from_array(np.array(value), key) for key, value in values.items()]
    graph = helper.make_graph(nodes, "dense", info[:1], info[1:], made)
    path = tmp_path / "dense.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    row = by_name(artifact(path, "onnx", precision="fp32"))["energy_estimate_mj"]
    assert f"{64 * 64} MACs in {arithmetic}" in row.protocol  # type: ignore[attr-defined]


def test_the_micro_runtime_tells_its_arena(tflite_file: Callable[..., Path]) -> None:
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    row = by_name(artifact(tflite_file(), "tflite"))["micro_arena_bytes"]
    assert (row.kind, row.reason) == ("measured", "")  # type: ignore[attr-defined]
    assert row.value > 64 + 128  # input and output  # type: ignore[attr-defined]


def test_onnx_runtimes_plan_knows_what_its_optimizer_fuses(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kinds = onnx.helper, onnx.TensorProto
    weight = np.ones((64, 64), np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("Add", ["t", "b"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    info = [helper.make_tensor_value_info(name, kinds.FLOAT, (1, 64)) for name in ("x", "y")]
    made = [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(weight[0], "b")]
    graph = helper.make_graph(nodes, "dense", info[:1], info[1:], made)
    path = tmp_path / "dense.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    row = by_name(artifact(path, "onnx"))["planned_memory_bytes"]
    assert row.kind == "estimated"  # type: ignore[attr-defined]
    assert "profile" in row.protocol  # type: ignore[attr-defined]
    # 256 bytes each: at most two live at once, and the optimizer leaves fewer than four
    assert row.value in (512.0, 768.0)  # type: ignore[attr-defined]


def test_memory_and_energy_are_of_the_shapes_that_were_given(open_onnx: Path) -> None:
    pytest.importorskip("onnxruntime")
    given = TensorInfo(name="x", shape=(8, 1024), dtype="float32")
    rows = by_name(artifact(open_onnx, "onnx", inputs=(given,)))
    assert rows["planned_memory_bytes"].value == 2 * 8 * 1024 * 4  # type: ignore[attr-defined]
    assert rows["energy_estimate_mj"].value is None  # type: ignore[attr-defined]
    said = "the file leaves the sizes of 'x' open"
    assert rows["energy_estimate_mj"].reason == said  # type: ignore[attr-defined]


def test_the_micro_runtime_is_asked_for_the_files_own_shapes_only(
    tflite_file: Callable[..., Path],
) -> None:
    given = TensorInfo(name="x", shape=(8, 4, 4, 4), dtype="int8")
    row = by_name(artifact(tflite_file(), "tflite", inputs=(given,)))["micro_arena_bytes"]
    assert (row.value, row.kind) == (None, "unavailable")  # type: ignore[attr-defined]
    assert "sizes of 'x'" in row.reason  # type: ignore[attr-defined]


def test_a_file_that_tells_nothing_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    path.write_bytes(b"engine")
    rows = by_name(artifact(path, "tensorrt"))
    assert rows["size_bytes"].value == 6.0  # type: ignore[attr-defined]
    for metric in ("planned_memory_bytes", "energy_estimate_mj"):
        row = rows[metric]
        assert (row.value, row.kind) == (None, "unavailable")  # type: ignore[attr-defined]
        assert "list their operators" in row.reason  # type: ignore[attr-defined]


def test_what_the_edge_tpus_compiler_told_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "model_edgetpu.tflite"
    path.write_bytes(b"x")
    facts = {"cached_bytes": 1000.0, "streamed_bytes": 0.0}
    rows = by_name(artifact(path, "edgetpu", facts=facts))
    assert rows["on_chip_bytes"].value == 1000.0  # type: ignore[attr-defined]
    assert rows["off_chip_bytes"].value == 0.0  # type: ignore[attr-defined]
    foreign = by_name(artifact(path, "edgetpu"))["on_chip_bytes"]
    assert (foreign.value, foreign.kind) == (None, "unavailable")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ({}, ""),
        ({"governor": "performance", "load": "0.20", "warm_up_settled": "yes"}, ""),
        ({"governor": "ondemand"}, "the governor is 'ondemand'"),
        ({"warm_up_settled": "no"}, "the warm-up did not converge"),
        ({"load": "2.66"}, "busy with other work (load 2.66)"),
        ({"temperature_c": "60.0", "temperature_c_after": "84.5"}, "84.5 degrees Celsius"),
        ({"governor": "performance", "frequency_khz": "600000", "highest_frequency_khz": "1500000"},
         "the clock was at 600 MHz, below its maximum of 1500 MHz"),
    ],
)  # fmt: skip
def test_conditions_that_make_times_worse_are_told(conditions: dict[str, str], said: str) -> None:
    found = quality_warnings(Samples(((1.0,),), 1.0, None, conditions))
    assert len(found) == bool(said)
    assert said in "".join(found)
    assert quality_warnings(Samples(((1.0,),), 1.0, None, conditions, invalid="it throttled")) == ()


def test_a_median_that_something_else_made_longer_is_told() -> None:
    """A third and half of the runs in which the machine is slower by a fifth."""
    for slow, said in ((8, False), (13, True)):
        window = (5.0,) * 12 + (6.0,) * slow
        found = quality_warnings(Samples((window,), 1.0, None, {}))
        assert len(found) == said
        assert (
            not said
            or "the median run took 20 % longer than the fastest consecutive runs" in found[0]
        )
