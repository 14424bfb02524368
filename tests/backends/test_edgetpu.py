import os
import shutil
import stat
import time
from pathlib import Path

import flatbuffers
import pytest

from edgekd.backends import Follower
from edgekd.backends.edgetpu import EdgeTpu
from edgekd.errors import InputError, ToolError
from edgekd.formats.tflite import read_tflite
from edgekd.values.artifact import Artifact, sha256_of
from edgekd.values.target import load_target

# The words of the vendor's compiler, from google-coral/edgetpu issues 427, 342 and 601.
SUCCESS = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 542 ms.

Input model: model.tflite
Input size: 4.04MiB
Output model: model_edgetpu.tflite
Output size: 4.13MiB
On-chip memory used for caching model parameters: 604.50KiB
On-chip memory remaining for caching model parameters: 511.50KiB
Off-chip memory used for streaming uncached model parameters: {streamed}
Number of Edge TPU subgraphs: 1
Total number of operations: 3
Operation log: model_edgetpu.log

Operator                       Count      Status

{rows}
Compilation child process completed within timeout period.
Compilation succeeded!
"""
MAPPED = """CONV_2D                        1          Mapped to Edge TPU
RELU                           1          Mapped to Edge TPU
TANH                           1          Mapped to Edge TPU"""
SPLIT = """CONV_2D                        1          Mapped to Edge TPU
HARD_SWISH                     1          Operation not supported
RELU                           1          More than one subgraph is not supported"""
FAILED = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.
ERROR: Restored original execution plan after delegate application failure.
Compilation failed: Compilation failed due to large activation tensors in model.
Compilation child process completed within timeout period.
Compilation failed!
"""


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Puts a stand-in `edgetpu_compiler` on the PATH that takes the vendor's -s and -o."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def install(text="", *, code=0, makes=True, last="", in_log_file=""):
        (folder / "text").write_text(text)
        (folder / "rows").write_text(in_log_file)
        script = f"""#!/bin/sh
[ "$1" = -s ] && [ "$2" = -o ] || {{ echo "bad arguments: $*" >&2; exit 64; }}
name=$(basename "$4" .tflite)
cat "{folder}/text"
{'cp "$4" "$3/${name}_edgetpu.tflite"' if makes else ":"}
{f'cp "{folder}/rows" "$3/${{name}}_edgetpu.log"' if in_log_file else ":"}
{last}
exit {code}
"""
        path = folder / "edgetpu_compiler"
        path.write_text(script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return install


@pytest.fixture
def artifact(tflite_file):
    def make(middle="TANH", precision="int8"):
        path = tflite_file(middle)
        return Artifact(
            path=path, format="tflite", runtime="litert", precision=precision, target="coral",
            sha256=sha256_of(path), bytes=path.stat().st_size, inputs=(), outputs=(),
        )  # fmt: skip

    return make


@pytest.fixture
def follow(tmp_path):
    target = load_target("coral")

    def run(artifact, **options):
        return EdgeTpu().follow(
            artifact, target, {**target.backends["edgetpu"], **options}, tmp_path
        )

    return run


def _sort(placements):
    return [one.placement for one in placements]


def test_it_follows_tflite_and_needs_no_vendor_tool_to_check():
    backend = EdgeTpu()
    assert isinstance(backend, Follower)
    assert backend.info.follows == "tflite"
    assert backend.missing() == []


def test_the_static_check_maps_an_int8_model_and_estimates_its_cache(artifact):
    target = load_target("coral")
    placements, facts = EdgeTpu().check_artifact(artifact(), target, {})
    assert _sort(placements) == ["edgetpu"] * 3
    assert facts["kind"] == "estimated"
    assert (facts["parameter_bytes"], facts["streamed_bytes"]) == (64, 0)


def test_a_float_model_is_mapped_nowhere_and_never_compiled(
    tflite_file, artifact, follow, compiler
):
    import ai_edge_litert.schema_py_generated as schema

    model = artifact(precision="fp32")
    content = bytearray(model.path.read_bytes())
    root = schema.ModelT.InitFromPackedBuf(content, 0)
    for tensor in root.subgraphs[0].tensors:
        if not tensor.buffer:
            tensor.type = schema.TensorType.FLOAT32
    builder = flatbuffers.Builder(1024)
    builder.Finish(root.Pack(builder), file_identifier=b"TFL3")
    model.path.write_bytes(bytes(builder.Output()))
    placements, facts = EdgeTpu().check_artifact(model, load_target("coral"), {})
    assert _sort(placements) == ["cpu"] * 3
    assert "float32; the Edge TPU computes in 8 bits" in placements[0].reason
    assert facts["edgetpu_ops"] == 0
    compiler("it was called", code=1)
    assert follow(model) == []


def test_a_file_of_another_format_is_refused(artifact):
    model = artifact().model_copy(update={"format": "onnx"})
    with pytest.raises(InputError, match="takes a TFLite file, not onnx"):
        EdgeTpu().check_artifact(model, load_target("coral"), {})


def test_a_target_without_an_edge_tpu_is_refused(artifact):
    with pytest.raises(InputError, match="no Edge TPU"):
        EdgeTpu().check_artifact(artifact(), load_target("x86"), {})


def test_without_the_compiler_nothing_is_made(artifact, follow, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert follow(artifact()) == []


def test_the_compilers_log_takes_the_place_of_the_estimate(artifact, follow, compiler, tmp_path):
    compiler(SUCCESS.format(rows=MAPPED, streamed="0.00B"))
    (made,) = follow(artifact())
    assert made.path == tmp_path / "model_edgetpu.tflite"
    assert (made.runtime, made.format, made.precision) == ("edgetpu", "edgetpu", "int8")
    assert made.sha256 == sha256_of(made.path)
    assert _sort(made.placements) == ["edgetpu"] * 3
    assert made.facts["kind"] == "measured"
    assert made.facts["cached_bytes"] == 619_008  # 604.5 KiB
    assert made.facts["parameter_bytes"] == 619_008
    assert made.versions["edgetpu_compiler"] == "16.0.384591198"
    assert made.notes == ()
    assert not list(tmp_path.glob(".*partial"))


def test_what_stays_on_the_cpu_is_named_with_the_compilers_reason(artifact, follow, compiler):
    compiler(SUCCESS.format(rows=SPLIT, streamed="3.45MiB"))
    (made,) = follow(artifact("HARD_SWISH"))
    assert _sort(made.placements) == ["edgetpu", "cpu", "cpu"]
    assert made.placements[1].reason == "operation not supported"
    assert made.placements[2].reason == "more than one subgraph is not supported"
    assert made.facts["streamed_bytes"] == 3_617_587  # 3.45 MiB, rounded
    assert "2 of 3 operators run on the CPU, from HARD_SWISH" in made.notes[0]
    assert "streamed in every inference" in made.notes[1]


def test_both_reports_have_the_same_shape(artifact, follow, compiler):
    model = artifact("HARD_SWISH")
    placements, facts = EdgeTpu().check_artifact(model, load_target("coral"), {})
    compiler(SUCCESS.format(rows=SPLIT, streamed="0.00B"))
    (made,) = follow(model)
    assert set(facts) <= set(made.facts)
    assert _sort(placements) == _sort(made.placements)
    assert [one.name for one in placements] == [one.name for one in made.placements]


def test_operators_that_only_the_log_file_names_are_read(artifact, follow, compiler):
    compiler(SUCCESS.format(rows="", streamed="0.00B"), in_log_file=MAPPED)
    assert _sort(follow(artifact())[0].placements) == ["edgetpu"] * 3


def test_a_log_that_misses_an_operator_is_not_believed(artifact, follow, compiler):
    compiler(SUCCESS.format(rows=MAPPED.splitlines()[0], streamed="0.00B"))
    with pytest.raises(ToolError, match="does not mention TANH"):
        follow(artifact())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text": FAILED, "code": 1, "makes": False}, "due to large activation tensors"),
        ({"text": FAILED, "code": 0}, "due to large activation tensors"),
        ({"text": "Internal compiler error. Aborting!", "code": 1}, "Internal compiler error"),
        ({"text": SUCCESS, "makes": False}, "Compilation succeeded!"),
        ({"last": "kill -SEGV $$"}, "killed by SIGSEGV"),
    ],
)
def test_a_compiler_that_fails_or_crashes_is_one_clear_error(
    artifact, follow, compiler, tmp_path, options, words
):
    compiler(**options)
    with pytest.raises(ToolError, match=words):
        follow(artifact())
    assert not list(tmp_path.glob("*_edgetpu.tflite"))


def _is_running(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def test_a_compiler_that_hangs_is_ended_at_its_limit_with_its_child(
    artifact, follow, compiler, tmp_path
):
    compiler(last=f"sleep 300 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(ToolError, match=r"did not end within 1 s") as caught:
        follow(artifact(), time_limit_seconds=1)
    assert "time_limit_seconds" in caught.value.hint
    child, patience = int((tmp_path / "child").read_text()), time.monotonic() + 10
    while _is_running(child) and time.monotonic() < patience:  # it was sent the signal
        time.sleep(0.01)
    assert not _is_running(child)


def test_a_file_that_broke_on_the_way_is_refused(artifact, follow, compiler):
    compiler(SUCCESS.format(rows=MAPPED, streamed="0.00B"))
    model = artifact()
    model.path.write_bytes(model.path.read_bytes()[:100])
    with pytest.raises(InputError, match="truncated or corrupt"):
        follow(model)


def test_the_compiled_file_is_read_back(artifact, follow, compiler):
    compiler(SUCCESS.format(rows=MAPPED, streamed="0.00B"))
    (made,) = follow(artifact())
    assert made.facts["compiled_ops"] == len(read_tflite(made.path).ops) == 3
    assert shutil.which("edgetpu_compiler") is not None
