import ctypes
import json
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from edgekd.cli import app
from edgekd.errors import InputError
from edgekd.firmware.arena import DEVICE, measure_arena
from edgekd.firmware.facts import Facts
from edgekd.firmware.tflm import METHODS, PLAIN, method_of, micro_sources
from edgekd.values.measurement import Measurement

ARENA = Measurement(
    metric="memory_bytes",
    value=1504.0,
    kind="measured",
    device=DEVICE,
    conditions={"tflite-micro": "1.2"},
)
NO_ARENA = Measurement(
    metric="memory_bytes", value=None, kind="unavailable", device=DEVICE, reason="gone */ #error"
)
COMPILERS = (
    ("gcc", "-std=c11"),
    ("g++", "-std=c++14", "-xc++"),
    ("arm-none-eabi-gcc", "-std=c11", "-mcpu=cortex-m4", "-mthumb"),
)
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")


def needs(tool):
    if not shutil.which(tool):
        pytest.skip(f"no {tool} here")


def compile_(arguments, folder):
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_header_has_what_the_firmware_needs(tflite_file):
    facts = Facts(name="Crane", version="1.2", licence="MIT", labels=("a", "b"))
    header = micro_sources(tflite_file(), ARENA, "crane", facts).header
    for line in (
        '#define CRANE_NAME "Crane"',
        '#define CRANE_VERSION "1.2"',
        '#define CRANE_LICENSE "MIT"',
        '#define CRANE_LABELS {"a", "b"}',
        "#define CRANE_ARENA_BYTES 1504",
        "#define CRANE_INPUT_SHAPE {1, 4, 4, 4}",
        "#define CRANE_INPUT_BYTES 64",
        "#define CRANE_INPUT_SCALE 0.5f",
        "#define CRANE_INPUT_ZERO_POINT (-1)",
        "#define CRANE_OUTPUT_SHAPE {1, 4, 4, 8}",
        f"#define CRANE_MODEL_BYTES {tflite_file().stat().st_size}",
    ):
        assert line in header.splitlines()


def test_an_unmeasured_arena_is_a_reason_instead_of_a_number(tflite_file):
    header = micro_sources(tflite_file(), NO_ARENA, "m").header
    assert "#define M_ARENA_BYTES" not in header
    assert "/* M_ARENA_BYTES is not known: gone * / #error */" in header


def test_the_resolver_lists_exactly_the_operators_used(tflite_file):
    sources = micro_sources(tflite_file("TANH"), ARENA, "m")
    assert sources.ops == ("CONV_2D", "RELU", "TANH")
    assert "MicroMutableOpResolver<3>" in sources.resolver
    calls = [line for line in sources.resolver.splitlines() if "resolver.Add" in line]
    methods = [line.split("resolver.")[1].split("(")[0] for line in calls]
    assert methods == ["AddConv2D", "AddRelu", "AddTanh"]


@pytest.mark.parametrize(
    ("op", "method"),
    [
        ("ADD", "AddAdd"),
        ("DEPTHWISE_CONV_2D", "AddDepthwiseConv2D"),
        ("FULLY_CONNECTED", "AddFullyConnected"),
        ("HARD_SWISH", "AddHardSwish"),
        ("RESIZE_NEAREST_NEIGHBOR", "AddResizeNearestNeighbor"),
        ("CUSTOM ethos-u", "AddEthosU"),
    ],
)
def test_methods_are_named_as_in_the_micro_runtimes_header(op, method):
    assert method_of(op, "m.tflite") == method


def test_no_operator_is_named_twice():
    assert not set(METHODS) & set(PLAIN)
    methods = [method_of(op, "") for op in (*METHODS, *PLAIN)]
    assert len(set(methods)) == len(methods)


def test_an_operator_that_the_micro_runtime_lacks_is_refused_by_name(tflite_file):
    with pytest.raises(InputError, match="TensorFlow Lite Micro has no operator RFFT2D"):
        micro_sources(tflite_file("RFFT2D"), ARENA)


@pytest.mark.parametrize("compiler", COMPILERS, ids=lambda one: one[0])
def test_the_array_compiles_without_a_warning(compiler, tflite_file, tmp_path):
    needs(compiler[0])
    micro_sources(tflite_file(), ARENA, "m").write(tmp_path)
    compile_([*compiler, *WARNINGS, "-c", "m_model.c", "-o", "m.o"], tmp_path)
    assert (tmp_path / "m.o").is_file()


def test_the_array_is_the_file_itself_aligned_and_in_read_only_memory(tflite_file, tmp_path):
    needs("gcc")
    path = tflite_file()
    micro_sources(path, ARENA, "m").write(tmp_path)
    compile_(["gcc", "-std=c11", "-shared", "-fPIC", "m_model.c", "-o", "m.so"], tmp_path)
    size = path.stat().st_size
    array = (ctypes.c_uint8 * size).in_dll(ctypes.CDLL(str(tmp_path / "m.so")), "m_model")
    assert bytes(array) == path.read_bytes()
    assert ctypes.addressof(array) % 16 == 0
    symbols = subprocess.run(["nm", tmp_path / "m.so"], capture_output=True, text=True).stdout
    assert " R m_model" in symbols


STUB = """#pragma once
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
namespace tflite {
template <unsigned N> struct MicroMutableOpResolver {
    unsigned used = 0;
    TfLiteStatus add() { return used++ < N ? kTfLiteOk : kTfLiteError; }
    TfLiteStatus AddConv2D() { return add(); }
    TfLiteStatus AddTanh() { return add(); }
    TfLiteStatus AddRelu() { return add(); }
};
}
"""


def test_the_resolver_registers_as_many_as_it_has_room_for(tflite_file, tmp_path):
    needs("g++")
    micro_sources(tflite_file("TANH"), ARENA, "m").write(tmp_path)
    folder = tmp_path / "tensorflow" / "lite" / "micro"
    folder.mkdir(parents=True)
    (folder / "micro_mutable_op_resolver.h").write_text(STUB)
    main = """#include "m_resolver.h"
    int main() { m_op_resolver r; return m_register_ops(r) == kTfLiteOk && r.used == 3 ? 0 : 1; }"""
    (tmp_path / "main.cc").write_text(main)
    compile_(["g++", "-std=c++14", *WARNINGS, "-I.", "main.cc", "-o", "main"], tmp_path)
    assert subprocess.run([tmp_path / "main"]).returncode == 0


def test_the_same_model_gives_the_same_text_from_anywhere(tflite_file, tmp_path):
    (tmp_path / "other").mkdir()
    first = micro_sources(tflite_file(), ARENA, "m")
    second = micro_sources(tflite_file(path=tmp_path / "other" / "x.tflite"), ARENA, "m")
    assert first == second


def test_a_runtime_that_crashes_hangs_or_is_missing_leaves_a_reason(
    tflite_file, tmp_path, monkeypatch
):
    stand_in = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(stand_in))
    for script, words in (
        ("kill -ABRT $$", "killed by SIGABRT"),
        ("sleep 60", "did not end within 0.3 s"),
        ("echo nothing", "nothing"),
    ):
        stand_in.write_text(f"#!/bin/sh\n{script}\n")
        stand_in.chmod(0o755)
        found = measure_arena(tflite_file(), limit_s=0.3 if "sleep" in script else 60.0)
        assert found.value is None
        assert found.kind == "unavailable"
        assert words in found.reason
    monkeypatch.setattr("edgekd.installed.find_spec", lambda name: None)
    assert "pip install 'edgekd[tflm]'" in measure_arena(tflite_file()).reason


def test_an_npus_own_operator_is_not_for_the_runtime_of_this_machine(tflite_file):
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    from ai_edge_litert import schema_py_generated as schema

    path = tflite_file()
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    model.operatorCodes[1].builtinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[1].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[1].customCode = "ethos-u"
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    found = measure_arena(path)
    assert (found.value, found.kind) == (None, "unavailable")
    assert found.reason == "tflite-micro on this machine has no CUSTOM ethos-u"
    assert micro_sources(path, found, "m").ops == ("CONV_2D", "CUSTOM ethos-u")


def test_the_command_writes_the_sources_and_refuses_a_damaged_file(tflite_file, tmp_path):
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    out = tmp_path / "out"
    arguments = ["firmware", "tflm", str(tflite_file()), "--out", str(out), "--name", "m", "--json"]
    result = CliRunner().invoke(app, arguments)
    told = json.loads(result.stdout)
    assert told["ops"] == ["CONV_2D", "RELU"]
    assert told["arena"]["kind"] == "measured"
    assert sorted(one.name for one in out.iterdir()) == ["m_model.c", "m_model.h", "m_resolver.h"]
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(tflite_file().read_bytes()[:300])
    result = CliRunner().invoke(app, ["firmware", "tflm", str(broken), "--out", str(out)])
    assert isinstance(result.exception, InputError)
