"""What tables of operators' costs tell of a trial's files, and which trials that refuses."""

from contextlib import closing
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from cost_tables import write_table
from onnx import TensorProto, helper, numpy_helper
from searches import trial_of, write_case

from edgekd.devices.opening import open_device
from edgekd.firmware.emulation import missing_tools
from edgekd.run.plan.planned import ExpectedFile, PlannedTarget
from edgekd.searching.correcting import Correction
from edgekd.searching.outcome import PredictedFile
from edgekd.searching.predicting import PredictedCosts, predicted_files, table_lines
from edgekd.searching.refusal import refusal_of
from edgekd.searching.request import SearchOptions, make_search
from edgekd.searching.stopping import Watch
from edgekd.searching.study import Proposal
from edgekd.searching.trial import run_trial
from edgekd.store import Store
from edgekd.values.artifact import Artifact, sha256_of
from edgekd.values.measurement import Measurement
from edgekd.values.progress import silent
from edgekd.values.target import load_target

P90 = "latency_ms_p90"
LIMITS = {"x86": {"latency_ms": 1.0}}


def predicted(value, metric="latency_ms_p50", sha256="a", most_over=0.3, **keys):
    keys = {"target": "x86", "format": "onnx", "precision": "int8", **keys}
    cost = Measurement(metric=metric, value=value, kind="estimated", device="host")
    return PredictedFile(
        sha256=sha256, cost=cost, table_files=9, median_error=0.1, most_over=most_over, **keys
    )


def convolution(path):
    """A file of one convolution: 16 filters of 3x3 over 8 channels, 30x30 positions."""
    weight = numpy_helper.from_array(np.ones((16, 8, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", kernel_shape=[3, 3])
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 32, 32]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 30, 30]),
    ]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weight])
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return Artifact(
        path=path, format="onnx", runtime="onnxruntime", precision="fp32", target="x86",
        sha256=sha256_of(path), bytes=path.stat().st_size, inputs=(), outputs=(),
    )  # fmt: skip


def plan_of(tmp_path, artifact, stages=()):
    expected = ExpectedFile(format="onnx", bytes=1, artifact=artifact)
    planned = PlannedTarget(load_target("x86"), (), {}, {}, expected=(expected,))
    request = SimpleNamespace(device="host", recipe=SimpleNamespace(stages=stages))
    return SimpleNamespace(targets=(planned,), request=request, store=Store(tmp_path / "stages"))


@pytest.fixture
def file(tmp_path):
    return convolution(tmp_path / "a.onnx")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))


def table(files):
    with closing(open_device("host")) as device:
        return write_table(device, files, "onnxruntime", "onnx", {"threads": 1, "provider": "cpu"})


def test_a_file_is_predicted_by_the_table_of_its_runtime(tmp_path, cache, file):
    table(9)
    (found,) = predicted_files(plan_of(tmp_path, file), LIMITS)
    # 900 positions, 16 filters and 72 products each: 1,036,800 products, so 10 + 103.68 us.
    assert found.cost.value == pytest.approx(0.11368, rel=0.02)
    assert (found.cost.metric, found.cost.kind) == ("latency_ms_p50", "estimated")
    assert (found.table_files, found.sha256) == (9, file.sha256)
    assert found.text.endswith("ms (estimated)")


def test_the_prediction_is_kept_for_the_same_table_and_the_same_file(tmp_path, cache, file):
    folder = table(9)
    plan = plan_of(tmp_path, file)
    first = predicted_files(plan, LIMITS)
    (entry,) = (tmp_path / "stages").glob("predicted-*")
    kept = entry / "file.json"
    kept.write_text(kept.read_text().replace('"table_files":9', '"table_files":7'))
    assert predicted_files(plan, LIMITS)[0].table_files == 7  # it was read, not made again
    next(folder.glob("*.json")).unlink()
    assert predicted_files(plan, LIMITS)[0].table_files == 8
    assert first[0].table_files == 9


def test_without_a_table_or_a_budget_that_it_tells_nothing_is_predicted(tmp_path, cache, file):
    assert predicted_files(plan_of(tmp_path, file), LIMITS) == ()
    table(7)  # too few
    assert predicted_files(plan_of(tmp_path, file), LIMITS) == ()
    table(8)
    assert predicted_files(plan_of(tmp_path, file), {"x86": {"size_kb": 1.0}}) == ()
    assert len(predicted_files(plan_of(tmp_path, file), LIMITS)) == 1


def test_a_damaged_file_of_a_table_does_not_count(tmp_path, cache, file):
    folder = table(8)
    next(folder.glob("*.json")).write_text("{")
    assert predicted_files(plan_of(tmp_path, file), LIMITS) == ()


def test_the_plan_says_which_table_there_is_or_how_to_measure_one(cache):
    target = load_target("x86")
    (line,) = table_lines(None, [target], LIMITS)
    assert line == (
        "x86: no table tells costs before training (0 of 8 files): measure some with "
        "'edgekd bench FILE... --target x86 --per-layer'"
    )
    table(8)
    (line,) = table_lines(None, [target], LIMITS)
    assert line == "x86: costs before training by the tables of 8 onnx files on host"
    assert table_lines(None, [target], {"x86": {"size_kb": 3.0}}) == []


def test_a_target_that_can_not_run_here_has_no_table(cache, monkeypatch):
    monkeypatch.setattr("edgekd.run.proof.place.missing_tools", lambda: ["qemu"])
    target = load_target("raspberry-pi-5")
    (line,) = table_lines(None, [target], {target.name: {"latency_ms": 1.0}})
    assert line.startswith("raspberry-pi-5: no table tells costs before training: this machine is")


@pytest.mark.skipif(bool(missing_tools()), reason="needs the Cortex-M tools")
def test_an_emulated_microcontroller_has_tables_of_tflite_files(cache):
    target = load_target("cortex-m4")
    limits = {target.name: {"instructions": 1e6}}
    (line,) = table_lines(None, [target], limits)
    assert line.endswith(
        "'edgekd bench FILE... --target cortex-m4 --device cortex-m://cortex-m4 --per-layer'"
    )
    with closing(open_device("cortex-m://cortex-m4")) as device:
        write_table(device, 8, "litert", "tflite", {"kernels": "reference"})
    (line,) = table_lines(None, [target], limits)
    assert line.endswith("by the tables of 8 tflite files on cortex-m://cortex-m4")


def test_a_prediction_refuses_only_beyond_the_largest_error_of_files_left_out(tmp_path, file):
    plan = plan_of(tmp_path, file)

    def refused(value):
        costs = PredictedCosts((predicted(value, sha256=file.sha256),))
        return refusal_of(plan, LIMITS, costs, "cost table")

    assert refused(1.29) is None  # a file was once predicted 30 % too slow
    refusal = refused(2.6)
    assert refusal.message == (
        "x86: the onnx file takes at least 2 ms by the table (estimated: 2.6), latency_ms <= 1"
    )
    assert refusal.where == "cost table"
    assert refusal.excesses == {"x86": {"latency_ms": pytest.approx(1.0)}}


def test_once_enough_files_were_measured_their_ratio_and_errors_count(tmp_path, file):
    plan = plan_of(tmp_path, file)

    def refused(value, files):
        known = {("x86", P90): Correction(files, 0.5, (0.1, -0.2, 0.0, 0.05))}
        return refusal_of(plan, LIMITS, PredictedCosts((predicted(value, sha256=file.sha256),),
                                                       known))  # fmt: skip

    # 2.1 * 0.5 = 1.05 ms, and one file was predicted 10 % too slow; 2.3 * 0.5 / 1.1 is above 1.
    assert refused(2.1, 4) is None
    assert refused(2.3, 4) is not None
    assert refused(1.31, 3) is not None  # three files are too few: the table alone counts


def test_instructions_are_those_of_the_processors_table(tmp_path, file):
    limits = {"x86": {"instructions": 1000.0}}
    costs = PredictedCosts((predicted(3000.0, "instructions", file.sha256, most_over=0.0),))
    refusal = refusal_of(plan_of(tmp_path, file), limits, costs)
    assert refusal.message == (
        "x86: the onnx file takes at least 2941 instructions by the table (estimated: 3000), "
        "instructions <= 1000"
    )
    assert refusal_of(plan_of(tmp_path, file), LIMITS, costs) is None  # no latency is known


@pytest.mark.slow
def test_a_table_refuses_alone_once_files_agreed_with_it_and_until_then_files_are_run(
    tmp_path, cache
):
    write_case(tmp_path)
    with closing(open_device("host")) as device:
        write_table(device, 8, "onnxruntime", "onnx", {"threads": 1})

    def run(number, limit, others=()):
        asked = {
            "target": tmp_path / "small.toml",
            "out": tmp_path / "s",
            "budgets": {"latency_ms": limit},
        }
        search = make_search(tmp_path / "r.toml", asked, SearchOptions(trials=2))
        assert any("by the tables of 8 onnx files on host" in line for line in search.lines())
        watch = Watch("none", lambda: [], lambda course: None)
        proposal = Proposal(number, number, {"stages.2.amount": 0.5}, str(number))
        return run_trial(search, proposal, others, watch, silent)

    refused = run(0, 1e-6)
    assert refused.state == "refused"
    assert refused.where == "plan"  # the file itself was run
    assert "ms untrained, latency_ms <= 1e-06" in refused.message
    (file,) = refused.predicted
    assert file.cost.kind == "estimated"

    agreed = [
        trial_of(
            number,
            predicted=(file,),
            untrained=(
                refused.untrained[0].model_copy(
                    update={"measurements": (file.cost.model_copy(
                        update={"metric": P90, "kind": "measured"}),)}
                ),
            ),
        )
        for number in range(4)
    ]  # fmt: skip
    alone = run(1, 1e-6, agreed)
    assert (alone.state, alone.where, alone.untrained) == ("refused", "cost table", ())
    assert "by the table (estimated: " in alone.message
    assert not list((tmp_path / "s/stages").glob("distill*"))
