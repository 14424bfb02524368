import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.backends import Board, Follower
from edgekd.backends.tensorrt import TensorRt
from edgekd.backends.tensorrt.build import PRECISION_FLAGS, build_arguments, script_name
from edgekd.backends.tensorrt.log import layer_precisions, read_log
from edgekd.backends.tensorrt.options import TensorrtOptions
from edgekd.errors import InputError, ToolError
from edgekd.values.artifact import Artifact, sha256_of
from edgekd.values.target import load_target

# As printed by samples/common/sampleReporting.cpp of TensorRT.
LOG = """[11/21/2026-04:00:00] [I] === Performance summary ===
[11/21/2026-04:00:00] [I] Throughput: 5210.52 qps
[11/21/2026-04:00:00] [I] Latency: min = 0.187744 ms, max = 0.412109 ms, mean = 0.193187 ms, \
median = 0.191406 ms, percentile(90%) = 0.196289 ms, percentile(99%) = 0.2229 ms
[11/21/2026-04:00:00] [I] H2D Latency: min = 9 ms, max = 9 ms, mean = 9 ms, median = 9 ms
[11/21/2026-04:00:00] [I] GPU Compute Time: min = 0.1709 ms, max = 0.39 ms, mean = 0.175 ms, \
median = 0.173828 ms, percentile(90%) = 0.177734 ms
&&&& PASSED TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=model.onnx
"""
WIDE = "Thirty-two wide channel vectorized row major Int8 format"
LAYERS = {
    "Layers": [
        {"Name": "a", "Outputs": [{"Format/Datatype": WIDE}]},
        {"Name": "b", "Outputs": [{"Format/Datatype": "Half"}]},
        {"Name": "c", "Outputs": [{"Format/Datatype": "Row major linear FP32"}]},
        {"Name": "d", "Outputs": []},
    ]
}


def _constant(name, value, kind):
    return numpy_helper.from_array(np.asarray(value, kind), name)


@pytest.fixture
def artifact(tmp_path):
    """A QDQ convolution with an int32 bias, as the quantized graph has it."""

    def make(zero=0, kind=np.int8, name="model", precision="int8"):
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantize"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dx"], name="dequantize"),
            helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["dw"], name="weight", axis=0),
            helper.make_node("DequantizeLinear", ["b", "bs"], ["db"], name="bias", axis=0),
            helper.make_node("Conv", ["dx", "dw", "db"], ["y"], name="conv"),
        ]
        weights = np.arange(-6, 6).reshape(2, 6, 1, 1)
        constants = [
            _constant("s", 0.5, np.float32),
            _constant("z", zero, kind),
            _constant("w", weights, np.int8),
            _constant("ws", [0.1, 0.2], np.float32),
            _constant("wz", [0, 0], np.int8),
            _constant("b", [100, -7], np.int32),
            _constant("bs", [0.05, 0.1], np.float32),
        ]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 4, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4])],
            constants,
        )
        opset = [helper.make_opsetid("", 21)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=10)
        folder = tmp_path / "onnx"
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        return Artifact(
            path=path, format="onnx", runtime="onnxruntime", precision=precision,
            target="jetson-orin", sha256=sha256_of(path), bytes=path.stat().st_size,
            inputs=(), outputs=(),
        )  # fmt: skip

    return make


@pytest.fixture
def follow(tmp_path):
    target = load_target("jetson-orin")
    folder = tmp_path / "out"
    folder.mkdir()

    def run(artifact, board=None, **options):
        table = {**target.backends["tensorrt"], **options}
        return TensorRt().follow(artifact, target, table, folder, board)

    return run


def _stand_in(folder, log=LOG, code=0, engine=True, last="", flags=("--int8", "--fp16")):
    """A `trtexec` that takes TensorRT's flags, refuses others and writes what they ask for; `flags`
    are the precision flags that it has, none since TensorRT 11."""
    folder.mkdir(exist_ok=True)
    (folder / "log").write_text(log)
    (folder / "layers").write_text(json.dumps(LAYERS))
    path = folder / "trtexec"
    shown = "\n".join(f"  {flag}    Enable that precision" for flag in flags)
    path.write_text(f"""#!/bin/sh
if [ "$1" = --help ]; then echo "=== Build Options ===
{shown}"; exit 0; fi
for one; do case "$one" in
    --onnx=*) [ -f "${{one#*=}}" ] || exit 66;;
    --saveEngine=*) {'echo engine > "${one#*=}"' if engine else ":"};;
    --exportLayerInfo=*) cp "{folder}/layers" "${{one#*=}}";;
    --timingCacheFile=*|--builderOptimizationLevel=[0-5]|--profilingVerbosity=detailed) ;;
    {"|".join([*flags, "--skipInference"])}|--memPoolSize=workspace:*M) ;;
    *) echo "[E] Unknown option: $one" >&2; exit 64;;
esac; done
cat "{folder}/log"
{last}
exit {code}
""")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def _execute(argv, limit):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=limit)
    except FileNotFoundError:
        return 127, "", "not found"
    except subprocess.TimeoutExpired:
        return 124, "", ""
    return done.returncode, done.stdout, done.stderr


def test_it_follows_onnx():
    backend = TensorRt()
    assert isinstance(backend, Follower)
    assert backend.info.follows == "onnx"
    assert backend.missing() == []


def test_without_a_board_the_file_for_the_parser_and_the_script_are_made(artifact, follow):
    (model,) = follow(artifact())
    assert (model.path.name, model.format) == ("model_tensorrt.onnx", "tensorrt-onnx")
    assert model.facts == {"kind": "estimated", "int8_ops": 1, "int32_biases": 1}
    script = model.path.with_name("build_engine.sh")
    assert model.companions == {script.name: sha256_of(script)}
    assert os.access(script, os.X_OK)


def test_int32_biases_become_the_float_ones_that_they_stand_for(artifact, follow):
    source = artifact()
    (model,) = follow(source)
    made = onnx.load(model.path)
    assert [node.op_type for node in made.graph.node].count("DequantizeLinear") == 2
    (bias,) = [one for one in made.graph.initializer if one.name == "db"]
    np.testing.assert_allclose(numpy_helper.to_array(bias), [5.0, -0.7], rtol=1e-6)
    assert made.opset_import[0].version == 20
    x = np.random.default_rng(0).normal(size=(1, 6, 4, 4)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]
        for path in (source.path, model.path)
    )
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"zero": 3}, "has the zero point 3, not 0"),
        ({"kind": np.uint8}, "is uint8, and only int8 is symmetric"),
    ],
)
def test_another_quantization_is_refused_by_the_node_and_nothing_is_written(
    artifact, follow, tmp_path, change, words
):
    with pytest.raises(InputError, match=words) as caught:
        follow(artifact(**change))
    assert "quantize:" in caught.value.message
    assert "int8-symmetric" in caught.value.hint
    assert list((tmp_path / "out").iterdir()) == []


def test_the_script_is_the_same_twice_and_quotes_any_name(artifact, follow, tmp_path):
    name = "it's $(touch owned) a;model"
    script = tmp_path / "out" / "build_engine.sh"
    follow(artifact(name=name))
    first = script.read_bytes()
    follow(artifact(name=name))
    assert script.read_bytes() == first
    trtexec = _stand_in(tmp_path / "bin")
    env = {"PATH": "/usr/bin:/bin", "TRTEXEC": str(trtexec)}
    done = subprocess.run([script], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / f"{name}.engine").read_text() == "engine\n"
    assert not list(tmp_path.rglob("owned"))


def test_the_script_says_what_is_missing_on_the_board(artifact, follow):
    script = follow(artifact())[0].path.with_name("build_engine.sh")
    env = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([script], env=env, capture_output=True, text=True)
    assert done.returncode == 3
    assert "no trtexec" in done.stderr


def test_precision_decides_the_flags():
    options = TensorrtOptions(workspace_mib=512)
    assert "--memPoolSize=workspace:512M" in build_arguments("m.onnx", "m.engine", options)
    assert PRECISION_FLAGS == {"int8": ("--int8", "--fp16"), "fp16": ("--fp16",)}


def test_a_board_builds_the_engine_and_its_log_is_read(artifact, follow, tmp_path):
    trtexec = _stand_in(tmp_path / "bin")
    place = tmp_path / "board"
    place.mkdir()

    def send(path: Path) -> str:
        shutil.copyfile(path, place / path.name)
        return str(place / path.name)

    board = Board(_execute, send=send)
    _, engine = follow(artifact(), board, trtexec=str(trtexec))
    assert engine.path.read_text() == "engine\n"
    assert (engine.format, engine.runtime) == ("tensorrt", "tensorrt")
    assert (place / "layers.json").is_file()
    assert engine.versions["tensorrt"] == "100300"
    assert engine.facts["trtexec_queries_per_second"] == 5210.52
    assert engine.facts["trtexec_latency_ms_p50"] == 0.191406
    assert engine.facts["trtexec_gpu_ms_p50"] == 0.173828
    assert engine.facts["engine_layers"] == 3
    assert engine.facts["engine_layers_int8"] == 1


def test_tensorrt_11_is_called_without_the_precision_flags_that_it_no_longer_has(
    artifact, follow, tmp_path
):
    trtexec = _stand_in(tmp_path / "bin", flags=())
    made = follow(artifact(), Board(_execute), trtexec=str(trtexec))
    assert made[1].path.read_text() == "engine\n"
    made[1].path.unlink()
    env = {"PATH": "/usr/bin:/bin", "TRTEXEC": str(trtexec)}
    script = made[0].path.with_name("build_engine.sh")
    done = subprocess.run([script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert made[1].path.read_text() == "engine\n"


def test_a_precision_flag_that_trtexec_has_is_given(artifact, follow, tmp_path):
    recorded = tmp_path / "arguments"
    trtexec = _stand_in(tmp_path / "bin", last=f'echo "$*" > {recorded}')
    follow(artifact(), Board(_execute), trtexec=str(trtexec))
    assert recorded.read_text().split()[:2] == ["--int8", "--fp16"]


def test_a_board_without_trtexec_leaves_it_at_the_script(artifact, follow):
    made = follow(artifact(), Board(_execute), trtexec="/nowhere/trtexec")
    assert [one.format for one in made] == ["tensorrt-onnx"]


@pytest.mark.parametrize(
    ("stand_in", "words"),
    [
        (
            {"log": "[E] Engine could not be created\n&&&& FAILED", "code": 1},
            "could not be created",
        ),
        ({"log": "[E] Error Code 10\n&&&& FAILED TensorRT"}, "Error Code 10"),
        ({"engine": False}, "wrote no engine"),
        ({"last": "kill -SEGV $$"}, "exit status -11"),
        ({"last": "exec sleep 60"}, "did not end within 0.5 s"),
    ],
)
def test_a_build_that_fails_crashes_or_hangs_is_one_clear_error(
    artifact, follow, tmp_path, stand_in, words
):
    trtexec = _stand_in(tmp_path / "bin", **stand_in)
    limit = 0.5 if "sleep" in stand_in.get("last", "") else 60.0
    with pytest.raises(ToolError) as caught:
        follow(artifact(), Board(_execute), trtexec=str(trtexec), time_limit_seconds=limit)
    assert words in caught.value.message
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left <= {"build_engine.sh", "model_tensorrt.onnx", "layers.json"}


def test_what_a_log_does_not_say_is_left_out():
    assert read_log("nothing of the kind") == {}
    assert layer_precisions("no JSON") == {}
    assert layer_precisions('{"Layers": ["names only"]}') == {"engine_layers": 0}


def test_precisions_of_both_spellings_are_counted():
    assert layer_precisions(json.dumps(LAYERS)) == {
        "engine_layers": 3, "engine_layers_int8": 1, "engine_layers_fp16": 1,
        "engine_layers_fp32": 1,
    }  # fmt: skip


def test_engines_of_several_precisions_have_a_script_each() -> None:
    assert script_name("model.engine") == script_name("my_model.engine") == "build_engine.sh"
    assert script_name("model_fp16.engine") == "build_engine_fp16.sh"
