"""Generated C on emulated Cortex-M processors."""

import numpy as np
import pytest
from operator_cases import CASES, inputs_for

from edgekd.devices.cortex_m import open_cortex_m
from edgekd.devices.doctor import examine_device
from edgekd.devices.opening import open_device
from edgekd.errors import InputError, ToolError
from edgekd.firmware import emulation, hosted
from edgekd.firmware.generate import generate
from edgekd.firmware.instructions import instructions_for
from edgekd.values.artifact import Artifact, TensorInfo, sha256_of

TOOLS = emulation.missing_tools()
emulated = pytest.mark.skipif(bool(TOOLS), reason="; ".join(one.message for one in TOOLS))

NETWORKS = (
    "conv same", "conv of words, stride 2", "conv of one tap, relu6", "conv of 603 values a column",
    "depthwise, depth 3, stride 2", "depthwise of 37 channels",
    "depthwise 3x3, stride 2, relu6", "depthwise 3x3, valid",
    "fully connected, 517 inputs", "fully connected, rows, scales",
    "pad that a pool reads too", "fully connected, scales", "softmax", "HARD_SWISH",
    "ADD of two grids, relu", "SUB of two grids",
)  # fmt: skip


def sources(name, folder, cpu="cortex-m4"):
    content = CASES[name]()
    (folder / "net.tflite").write_bytes(content)
    chosen = instructions_for(cpu)
    _, source = generate(folder / "net.tflite", instructions=chosen).write(folder)
    return content, source


@emulated
@pytest.mark.slow
@pytest.mark.parametrize("cpu", emulation.BOARDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_an_emulated_processor_computes_what_this_machine_does(name, cpu, tmp_path):
    content, source = sources(name, tmp_path, cpu)
    x = inputs_for(content)
    image = emulation.build(source, cpu, tmp_path)
    found = emulation.run(image, x)
    assert np.array_equal(found.outputs, hosted.run(hosted.build(source, tmp_path), x))
    assert len(found.instructions) == len(x)
    assert 64 <= found.stack_bytes <= 2048
    assert 256 <= image.flash_bytes <= 8192


COUNTED = """
#include "counted.h"
void counted_invoke(int8_t *arena)
{{
    uint32_t rounds = {rounds};
    __asm__ volatile("1: subs %0, %0, #1\\n\\tbne 1b" : "+r"(rounds) : : "cc");
    arena[0] = 7;
}}
"""

HEADER = """
#include <stdint.h>
#define COUNTED_ARENA_BYTES 16
#define COUNTED_ARENA_ALIGNMENT 16
#define COUNTED_INPUT_COUNT 1
#define COUNTED_INPUT_OFFSETS {0}
#define COUNTED_INPUT_SIZES {1}
#define COUNTED_OUTPUT_COUNT 1
#define COUNTED_OUTPUT_OFFSETS {0}
#define COUNTED_OUTPUT_SIZES {1}
void counted_invoke(int8_t *arena);
"""


def count(rounds, cpu, folder):
    (folder / "counted.h").write_text(HEADER)
    (folder / "counted.c").write_text(COUNTED.format(rounds=rounds))
    image = emulation.build(folder / "counted.c", cpu, folder)
    found = emulation.run(image, np.zeros((1, 1), np.int8))
    assert found.outputs[0, 0] == 7
    return found


@emulated
@pytest.mark.slow
@pytest.mark.parametrize("cpu", emulation.BOARDS)
def test_instructions_are_counted_to_within_the_timers_resolution(cpu, tmp_path):
    """A loop of two instructions, 1,000 and 101,000 times: 200,000 more."""
    few, many = count(1_000, cpu, tmp_path), count(101_000, cpu, tmp_path)
    difference = many.instructions[0] - few.instructions[0]
    assert few.resolution == 1
    assert abs(difference - 200_000) <= 2


@emulated
@pytest.mark.slow
def test_counts_beyond_the_timers_24_bits_are_whole(tmp_path):
    """22 million instructions of 64 ns are 35.2 million ticks of 40 ns: two wraps at 16.8 million,
    whose interrupts take some instructions themselves."""
    found = count(11_000_000, "cortex-m4", tmp_path)
    assert 22_000_000 < found.instructions[0] < 22_000_200


@emulated
@pytest.mark.slow
def test_a_fault_of_the_program_is_an_error_and_not_an_output(tmp_path):
    (tmp_path / "counted.h").write_text(HEADER)
    bad = COUNTED.replace("arena[0] = 7;", "*(volatile int8_t *)0xF0000000U = arena[0];")
    (tmp_path / "counted.c").write_text(bad.format(rounds=1))
    image = emulation.build(tmp_path / "counted.c", "cortex-m4", tmp_path)
    with pytest.raises(ToolError, match="exit status 99"):
        emulation.run(image, np.zeros((1, 1), np.int8))


@emulated
@pytest.mark.slow
def test_a_model_that_the_board_does_not_hold_is_said_to_be_too_large(tmp_path):
    (tmp_path / "counted.h").write_text(HEADER.replace("BYTES 16", "BYTES 5000000"))
    (tmp_path / "counted.c").write_text(COUNTED.format(rounds=1))
    with pytest.raises(InputError, match="does not fit the board"):
        emulation.build(tmp_path / "counted.c", "cortex-m4", tmp_path)


def test_an_unknown_processor_is_refused():
    with pytest.raises(InputError, match=r"no board with a cortex-m0 is emulated .*cortex-m4"):
        emulation.board_of("cortex-m0")


def test_a_tool_that_is_absent_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr("edgekd.installed.shutil.which", lambda name: None)
    told = [f"{one}: {one.hint}" for one in emulation.missing_tools()]
    assert told[0].endswith("apt install gcc-arm-none-eabi libnewlib-arm-none-eabi")
    assert told[1].endswith("apt install qemu-system-arm")


def artifact_of(source, content):
    about = sha256_of(source)
    entry = TensorInfo(name="x", shape=(1, 20), dtype="int8", scale=0.05, zero_point=-11)
    exit_ = TensorInfo(name="y", shape=(1, 9), dtype="int8", scale=0.13, zero_point=5)
    return Artifact(
        path=source, format="c", runtime="c", precision="int8", target="cortex-m4", sha256=about,
        bytes=len(content), inputs=(entry,), outputs=(exit_,),
    )  # fmt: skip


@emulated
@pytest.mark.slow
def test_the_device_quantizes_runs_and_dequantizes(tmp_path):
    content, source = sources("fully connected, scales", tmp_path)
    device = open_cortex_m("cortex-m7")
    try:
        artifact = artifact_of(source, content)
        assert device.can_run(artifact) == ""
        x = np.random.default_rng(0).normal(0, 2, (12, 20)).astype(np.float32)
        found = device.infer(artifact, [x], {})[0]
        (samples,) = device.benchmark([artifact], {}, quick=True)
    finally:
        device.close()
    steps = np.clip(np.rint(x / np.float32(0.05)) - 11, -128, 127).astype(np.int8)
    bare = hosted.run(hosted.build(source, tmp_path), steps).astype(np.float32)
    assert np.array_equal(found, (bare - 5) * np.float32(0.13))
    assert samples.windows_ms == ()
    assert "counts instructions and gives no times" in samples.invalid


@emulated
@pytest.mark.slow
def test_a_processor_that_computes_something_else_is_an_error(tmp_path, monkeypatch):
    content, source = sources("fully connected, scales", tmp_path)
    right = emulation.run

    def wrong(image, inputs):
        found = right(image, inputs)
        return emulation.Run(found.outputs ^ 1, found.instructions, found.resolution, 0)

    monkeypatch.setattr(emulation, "run", wrong)
    device = open_device("cortex-m://cortex-m4")
    try:
        with pytest.raises(ToolError, match="computes different values than this machine"):
            device.infer(artifact_of(source, content), [np.zeros((2, 20), np.float32)], {})
    finally:
        device.close()


@emulated
def test_doctor_tells_of_an_emulated_processor_what_there_is_to_tell():
    found = {row.name: row for row in examine_device("cortex-m://cortex-m4")}
    assert found["architecture"].found == "thumb"
    assert found["board"].found == "cortex-m4"
    assert (found["memory"].found, found["memory"].hint) == ("", "the device does not report it")
