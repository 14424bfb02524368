"""Vela itself compiles what these tests give it, unless it is a stand-in that fails on purpose."""

import csv
import sys

import pytest

from edgekd.backends import Follower
from edgekd.backends.inspection import inspect_artifact, inspection_lines
from edgekd.backends.tflite import Tflite
from edgekd.backends.vela import DEVICE, Vela, VelaOptions, read_summary
from edgekd.errors import InputError, ToolError
from edgekd.formats.tflite import read_tflite
from edgekd.values.artifact import Artifact, sha256_of
from edgekd.values.target import load_target

pytest.importorskip("ethosu.vela", reason="ethos-u-vela is not installed (edgekd[ethos])")

NAMES = ("ethos-u55", "ethos-u55-128", "ethos-u65", "ethos-u85")


def artifact_of(path, precision="int8"):
    return Artifact(
        path=path,
        format="tflite",
        runtime="litert",
        precision=precision,
        target="ethos-u55",
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        inputs=(),
        outputs=(),
        lineage=("quantize: int8",),
    )


def options_of(name="ethos-u55"):
    return load_target(name).backends["vela"]


@pytest.fixture
def follow(tmp_path):
    def run(path, name="ethos-u55", options=None):
        target = load_target(name)
        artifact = path if isinstance(path, Artifact) else artifact_of(path)
        (made,) = Vela().follow(artifact, target, options or options_of(name), tmp_path)
        return made

    return run


def test_it_is_a_follower_of_tflite():
    assert isinstance(Vela(), Follower)
    assert Vela.info.follows == "tflite"
    assert Vela().missing() == []


def test_a_missing_vela_is_reported_with_its_extra(monkeypatch):
    monkeypatch.setattr("edgekd.installed.find_spec", lambda name: None)
    faults = Vela().missing()
    assert [fault.message for fault in faults] == [
        "ai-edge-litert is not installed",
        "ethos-u-vela is not installed",
    ]
    assert [fault.hint for fault in faults] == [
        "pip install 'edgekd[tflite]'",
        "pip install 'edgekd[ethos]'",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_target_compiles_a_convolution_to_the_npu_alone(name, follow, tflite_file):
    made = follow(tflite_file(), name)
    assert [one.placement for one in made.placements] == ["npu", "npu"]
    assert made.runtime == "ethos-u"
    assert made.sha256 == sha256_of(made.path)
    assert "CUSTOM ethos-u" in read_tflite(made.path).counts
    assert made.facts["kind"] == "simulated"
    assert made.facts["npu_cycles"] > 0
    assert (
        made.facts["macs"] >= 4 * 4 * 4 * 8
    )  # 1x1, 4 to 8 channels, 4x4 pixels; blocks are padded
    latency = {one.metric: one for one in made.measurements}
    assert set(latency) == {"latency_ms_p50", "latency_ms_p90", "latency_ms_p99", "memory_bytes"}
    for one in latency.values():
        assert (one.kind, one.device) == ("simulated", DEVICE)
        assert one.value > 0
        assert one.conditions["accelerator_config"] == options_of(name)["accelerator_config"]
    cycles, clock = made.facts["npu_cycles"], load_target(name).accelerators[0].clock_mhz
    assert latency["latency_ms_p90"].value == pytest.approx(cycles / (clock * 1e3))


def test_an_operator_that_stays_on_the_cpu_is_named_with_velas_reason(follow, tflite_file):
    made = follow(tflite_file("FLOOR"))
    assert [one.placement for one in made.placements] == ["npu", "cpu", "npu"]
    assert made.placements[1].op == "FLOOR"
    assert made.placements[1].reason == "Unsupported opType"
    assert "1 of 3 operators run on the CPU: FLOOR 't1'" in made.notes[-1]
    times = [one for one in made.measurements if one.metric.startswith("latency")]
    assert [one.value for one in times] == [None, None, None]
    assert {one.kind for one in times} == {"unavailable"}
    assert "1 operators run on the CPU, which Vela does not time" in times[0].reason
    assert made.facts["npu_ms"] > 0


def test_the_same_file_gives_the_same_bytes_from_anywhere(follow, tflite_file, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    first = follow(tflite_file())
    second = follow(tflite_file(path=tmp_path / "elsewhere" / "other.tflite"))
    assert first.sha256 == second.sha256


def test_a_float_model_is_refused_before_vela_is_started(follow, monkeypatch, tflite_file):
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    path = tflite_file()
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    for tensor in model.subgraphs[0].tensors:
        if not tensor.buffer:
            tensor.type = schema.TensorType.FLOAT32
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    with pytest.raises(InputError) as caught:
        follow(path)
    assert "a float model: the Ethos-U can run none of its 2 operators" in str(caught.value)
    assert 'dtype = "int8"' in caught.value.hint


@pytest.mark.parametrize("size", [0, 7, 100, 600])
def test_a_truncated_file_is_one_error(follow, tflite_file, size):
    path = tflite_file()
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"empty|not a TFLite file|truncated or corrupt"):
        follow(path)


def test_another_format_is_refused(follow, tflite_file):
    artifact = artifact_of(tflite_file()).model_copy(update={"format": "onnx"})
    with pytest.raises(InputError, match="takes a TFLite file, not onnx"):
        follow(artifact)


def test_an_unknown_system_is_velas_own_error_in_one_line(follow, tflite_file):
    options = {**options_of(), "system_config": "Ethos_U55_Nowhere"}
    with pytest.raises(ToolError) as caught:
        follow(tflite_file(), options=options)
    assert "Vela failed (exit status 1)" in str(caught.value)
    assert "System_Config.Ethos_U55_Nowhere not found" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -SEGV $$", r"Vela failed \(killed by SIGSEGV\): no output"),
        ("sleep 60", "vela did not end within 0.5 s"),
        ("echo fine", r"Vela failed \(exit status 0\): fine"),
        ("echo 'Error: out of memory'; echo later; exit 3", "Error: out of memory"),
    ],
)
def test_a_compiler_that_crashes_hangs_or_lies_is_one_error(
    follow, tflite_file, tmp_path, monkeypatch, script, words
):
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\n{script}\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    options = {**options_of(), "time_limit_seconds": 0.5 if "sleep" in script else 60.0}
    with pytest.raises(ToolError, match=words):
        follow(tflite_file(), options=options)


def test_a_summary_of_another_system_is_refused(tmp_path):
    path = tmp_path / "model_summary_x.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["accelerator_configuration", "memory_mode"])
        writer.writeheader()
        writer.writerow({"accelerator_configuration": "Ethos_U65_512", "memory_mode": "Sram_Only"})
    with pytest.raises(ToolError, match=r"not as expected: it is for ethos-u65-512, Sram_Only"):
        read_summary(path, VelaOptions(**options_of()))


def test_what_does_not_fit_is_noted_with_its_numbers(tflite_file, tmp_path):
    target = load_target("ethos-u55")
    small = target.hardware.model_copy(update={"memory_bytes": 64, "storage_bytes": 128})
    target = target.model_copy(update={"hardware": small})
    (made,) = Vela().follow(artifact_of(tflite_file()), target, options_of(), tmp_path)
    notes = [note for note in made.notes if note.startswith("does not fit")]
    assert len(notes) == 2
    assert f"{int(made.facts['arena_bytes']):,} bytes of memory, 64 available" in notes[0]
    assert f"{made.bytes:,} bytes of flash, 128 available" in notes[1]


def test_inspect_shows_what_vela_maps_or_why_it_was_not_asked(tflite_file, follow):
    target = load_target("ethos-u55")
    found = inspect_artifact(tflite_file("FLOOR"), target)
    assert [one.placement for one in found.placements] == ["npu", "cpu", "npu"]
    lines = inspection_lines(found)
    assert "placement (simulated): 2 npu, 1 cpu" in lines
    assert "  on the CPU: FLOOR 't1': Unsupported opType" in lines
    made = follow(tflite_file())
    assert "Vela made this file" in inspect_artifact(made.path, target).notes[-1]


@pytest.mark.slow
def test_a_real_student_runs_on_the_npu_whole(compiled, follow):
    source = compiled(Tflite(), "resnet", "int8")
    made = follow(source)
    assert {one.placement for one in made.placements} == {"npu"}
    assert len(made.placements) == len(read_tflite(source.path).ops)
    assert made.inputs == source.inputs
    assert made.facts["cpu_ops"] == 0
    assert "compiled by Vela" in made.lineage[-1]
    placements, facts = Vela().check_artifact(source, load_target("ethos-u55"), options_of())
    assert placements == made.placements
    assert facts["npu_cycles"] == made.facts["npu_cycles"]
