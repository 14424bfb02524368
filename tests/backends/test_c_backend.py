"""The backend that follows TFLite with C, and the files that belong to one artifact."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from litert_reference import by_litert
from patch_networks import NETWORKS
from torch import nn

from edgekd.backends.c import COptions, PlainC, generated_for
from edgekd.backends.inspection import inspect_artifact
from edgekd.backends.tflite import Tflite
from edgekd.errors import Faults, InputError
from edgekd.firmware import emulation, hosted
from edgekd.firmware.generate import generate
from edgekd.firmware.graph import read_network
from edgekd.quant.calibration import calibrate
from edgekd.run.compiled import cached, publish_artifact
from edgekd.store import Store
from edgekd.values.artifact import Artifact, sha256_of
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target, parse_target

TARGET = load_target("cortex-m4")


def tflite_artifact(path, **changes):
    values = {
        "path": path, "format": "tflite", "runtime": "litert", "precision": "int8",
        "target": "cortex-m4", "sha256": sha256_of(path), "bytes": path.stat().st_size,
        "inputs": (), "outputs": (),
    } | changes  # fmt: skip
    return Artifact(**values)


@pytest.fixture
def no_tools(monkeypatch):
    gone = InputError("no arm-none-eabi-gcc here")
    monkeypatch.setattr(emulation, "missing_tools", lambda: [gone])


def test_it_writes_the_source_with_its_header_as_companion(tflite_file, tmp_path, no_tools):
    folder = tmp_path / "out"
    artifact = tflite_artifact(tflite_file())
    (made,) = PlainC().follow(artifact, TARGET, {"name": "kws"}, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["kws.c", "kws.h"]
    assert (made.format, made.runtime, made.path) == ("c", "c", folder / "kws.c")
    assert made.sha256 == sha256_of(folder / "kws.c")
    assert made.companions == {"kws.h": sha256_of(folder / "kws.h")}
    assert made.lineage[-1] == "compiled to C"


def test_without_the_tools_memory_is_known_flash_estimated_and_instructions_not_had(
    tflite_file, tmp_path, no_tools
):
    """Output 128 bytes, which overwrites the input of 64; constants: for each of 4 pairs of filters
    4 words with their 4 weights each, 2 biases, multipliers and numbers to round, and a word for
    both shifts, and a table of 256 bytes for the RELU that follows in place."""
    (made,) = PlainC().follow(tflite_artifact(tflite_file()), TARGET, {}, tmp_path / "out")
    memory, size, instructions = made.measurements
    assert (memory.metric, memory.value, memory.kind) == ("memory_bytes", 128.0, "measured")
    assert (size.metric, size.kind) == ("size_bytes", "estimated")
    assert size.value == 4 * 4 * (4 + 2 + 2 + 2 + 1) + 256
    assert (instructions.value, instructions.kind) == (None, "unavailable")
    assert instructions.reason == "no arm-none-eabi-gcc here"


@pytest.mark.slow
@pytest.mark.skipif(bool(emulation.missing_tools()), reason="needs the cross compiler and qemu")
def test_with_them_the_model_is_compiled_run_and_counted(tflite_file, tmp_path):
    (made,) = PlainC().follow(tflite_artifact(tflite_file()), TARGET, {}, tmp_path / "out")
    told = {one.metric: one for one in made.measurements}
    assert told["memory_bytes"].kind == "measured"
    assert told["size_bytes"].kind == "measured"
    assert told["size_bytes"].value > 360
    assert told["stack_bytes"].kind == told["instructions"].kind == "simulated"
    assert told["instructions"].value > 16 * 32  # a multiplication each


def test_what_does_not_fit_is_noted(tflite_file, tmp_path, no_tools):
    hardware = TARGET.hardware.model_copy(update={"memory_bytes": 100, "storage_bytes": 90})
    small = TARGET.model_copy(update={"hardware": hardware})
    (made,) = PlainC().follow(tflite_artifact(tflite_file()), small, {}, tmp_path / "out")
    assert made.notes == (
        "does not fit: needs 128 bytes of memory, 100 available",
        "does not fit: needs 432 bytes of flash, 90 available",
    )


def test_the_limit_of_the_arena_is_the_targets_memory_or_an_option(tmp_path, no_tools):
    """A target with too little memory gets patches, unless they are forbidden."""
    path = tmp_path / "net.tflite"
    path.write_bytes(NETWORKS["inverted residuals"]())
    hardware = TARGET.hardware.model_copy(update={"memory_bytes": 2000})
    small = TARGET.model_copy(update={"hardware": hardware})
    (made,) = PlainC().follow(tflite_artifact(path), small, {}, tmp_path / "out")
    assert made.facts["arena_bytes"] <= 2000
    assert made.notes[0].startswith("computed partly in patches to fit 2,000 bytes")
    (large,) = PlainC().follow(tflite_artifact(path), TARGET, {}, tmp_path / "large")
    assert large.facts["arena_bytes"] == large.facts["layered_arena_bytes"] > 2000
    (whole,) = PlainC().follow(tflite_artifact(path), small, {"patches": "never"}, tmp_path / "w")
    assert whole.notes[0].startswith("does not fit: needs ")
    options = {"arena_limit": 2000, "patches": "never"}
    with pytest.raises(InputError, match=r"backends.c: arena_limit: the arena needs \d+ bytes"):
        PlainC().check_artifact(tflite_artifact(path), TARGET, options)


def test_an_inspection_for_the_target_has_the_arena_and_the_patches_of_its_c(tmp_path, tflite_file):
    path = tmp_path / "net.tflite"
    path.write_bytes(NETWORKS["inverted residuals"]())
    small = TARGET.hardware.model_copy(update={"memory_bytes": 2000})
    found = inspect_artifact(path, TARGET.model_copy(update={"hardware": small}))
    assert found.facts["c_arena_bytes"] <= 2000 < found.activation_bytes
    assert not any(note.startswith("does not fit") for note in found.notes)
    assert any(
        note.startswith("C: computed partly in patches to fit 2,000") for note in found.notes
    )
    assert "c_arena_bytes" not in inspect_artifact(tflite_file("COS"), TARGET).facts


def test_the_check_alone_gives_the_numbers(tflite_file):
    _, facts = PlainC().check_artifact(tflite_artifact(tflite_file()), TARGET, {})
    assert facts["kind"] == "estimated"
    assert facts["arena_bytes"] == 128


def test_sources_of_a_build_are_made_with_the_targets_own_options(tflite_file):
    """Otherwise a build would link other C than what was measured."""
    options = COptions(arithmetic="litert", cmsis_nn="/opt/cmsis-nn", name="theirs")
    made = generated_for(tflite_file(), TARGET, options, "hook")
    assert made.name == "hook"
    assert '#include "arm_nnfunctions.h"' in made.source
    plain = generated_for(tflite_file(), TARGET, COptions(name="theirs"))
    assert plain.name == "theirs"
    assert "arm_nnfunctions" not in plain.source


def test_an_operator_without_a_kernel_and_another_format_are_refused(tflite_file, tmp_path):
    with pytest.raises(InputError, match="operator 1: COS has no C kernel"):
        PlainC().check_artifact(tflite_artifact(tflite_file("COS")), TARGET, {})
    onnx = tflite_artifact(tflite_file(), format="onnx")
    with pytest.raises(InputError, match="C is made from a TFLite file, not onnx"):
        PlainC().follow(onnx, TARGET, {}, tmp_path)


def test_a_target_with_c_needs_tflite_before_it():
    table = TARGET.model_dump(mode="json")
    del table["backends"]["tflite"]
    with pytest.raises(InputError, match="backend 'c' follows 'tflite', which is not among"):
        parse_target(table, "mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"name": "2x"}, "name"), ({"arithmetic": "float"}, "arithmetic"), ({"size": 1}, "size")],
)
def test_options_that_mean_nothing_are_refused(options, message):
    table = TARGET.model_dump(mode="json")
    table["backends"]["c"] = options
    with pytest.raises((InputError, Faults), match=message):
        parse_target(table, "mine")


def test_companions_are_kept_published_and_checked_with_their_file(tflite_file, tmp_path, no_tools):
    store, calls = Store(tmp_path / "store"), []

    def make(folder):
        calls.append(folder)
        return PlainC().follow(tflite_artifact(tflite_file()), TARGET, {}, folder)

    (first,) = cached(store, "c", "key", make)
    (again,) = cached(store, "c", "key", make)
    assert len(calls) == 1
    published = publish_artifact(again, tmp_path / "artifacts")
    assert published.path.with_name("model.h").read_bytes() == (
        first.path.with_name("model.h").read_bytes()
    )
    first.path.with_name("model.h").write_text("changed")
    cached(store, "c", "key", make)
    assert len(calls) == 2


def test_files_of_other_packages_are_made_again(tflite_file, tmp_path, no_tools, monkeypatch):
    def make(folder):
        return PlainC().follow(tflite_artifact(tflite_file()), TARGET, {}, folder)

    store = Store(tmp_path / "store")
    (first,) = cached(store, "c", "key", make)
    monkeypatch.setattr("edgekd.run.compiled.tool_versions", lambda: {"litert-torch": "0.0"})
    (second,) = cached(store, "c", "key", make)
    assert first.path != second.path


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize("name", ["resnet", "ds-cnn", "sensor"])
def test_a_students_c_gives_the_bytes_of_the_reference_kernels(name, compiled, tmp_path):
    path = compiled(Tflite(), name).path
    generated = generate(path, "student", arithmetic="litert")
    _, source = generated.write(tmp_path)
    size = generated.numbers["input_bytes"]
    x = np.random.default_rng(0).integers(-128, 128, (50, size)).astype(np.int8)
    program = hosted.build(source, tmp_path, ("-O1", *hosted.SANITIZERS))
    found = hosted.run(program, x)
    assert np.array_equal(found, by_litert(path.read_bytes(), x))
    assert len(np.unique(found)) > 8


@pytest.mark.slow
def test_a_student_that_stays_partly_in_float_is_refused_by_the_operators_name(compiled):
    with pytest.raises(InputError, match=r"operator \d+: [A-Z_]+ computes in float"):
        generate(compiled(Tflite(), "transformer").path)


@pytest.mark.slow
def test_a_transformer_in_integers_is_the_same_in_c(tmp_path: Path) -> None:
    """Attention, norms and GELU: products of computed tensors, and tables."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True)
    module = nn.Sequential(layer, nn.Flatten(), nn.Linear(160, 4)).eval()
    x = torch.randn(32, 10, 16)
    target = load_target("raspberry-pi-4")
    graph = calibrate(module, x[:1], x, target.quantization, strict=True)
    candidate = Candidate(graph, x[:1], "int8", integers_only=True)
    (file,) = Tflite().compile(candidate, target, {}, tmp_path)
    _, source = generate(file.path, arithmetic="litert").write(tmp_path)
    (entry,) = file.inputs
    steps = (x.numpy() / np.float32(entry.scale)).round() + entry.zero_point
    given = steps.clip(-128, 127).astype(np.int8).reshape(32, -1)
    found = hosted.run(hosted.build(source, tmp_path), given)
    assert np.abs(found.astype(int) - by_litert(file.path.read_bytes(), given)).max() <= 1
    assert {"BATCH_MATMUL", "TABLE"} <= {node.kind for node in read_network(file.path).nodes}
