"""Kernels for vectors of 128 bits: which layers get them, from which tables."""

import re

import pytest
from operator_cases import CASES

from edgekd.errors import InputError
from edgekd.firmware.generate import generate
from edgekd.firmware.instructions import check_instructions, instructions_for, instructions_of
from edgekd.values.target import load_target


def made(name, folder):
    (folder / "net.tflite").write_bytes(CASES[name]())
    return generate(folder / "net.tflite", instructions="mve")


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("conv same", "conv_2d_helium"),
        ("conv grouped, no bias", "conv_2d"),
        ("conv that scales up", "conv_2d"),
        ("conv with a weight of -128", "conv_2d"),
        ("conv as large as its input", "fully_connected_helium"),
        ("depthwise of 37 channels", "depthwise_helium"),
        ("depthwise", "depthwise_3x3"),
        ("depthwise dilated, valid", "depthwise_helium"),
        ("depthwise, depth 3, stride 2", "depthwise_conv_2d"),
        ("depthwise of one channel to four", "conv_2d_helium"),
        ("fully connected, one scale", "fully_connected_helium"),
        ("fully connected, rows, scales", "conv_2d_helium"),
    ],
)
def test_a_layer_gets_the_kernel_that_its_shape_and_numbers_allow(name, kernel, tmp_path):
    calls = re.findall(r"^    (\w+)\(&layer_", made(name, tmp_path).source, re.M)
    assert calls == [kernel]


def test_tables_of_channels_end_with_whole_fours(tmp_path):
    """Seven channels: their biases, multipliers and shifts are loaded four at a time."""
    text = made("conv same", tmp_path).source
    assert re.findall(r"const int32_t (table_\d)\[(\d+)\]", text) == [
        ("table_1", "8"), ("table_2", "8"),
    ]  # fmt: skip
    assert re.findall(r"const int8_t (table_\d)\[(\d+)\]", text) == [
        ("table_0", "189"), ("table_3", "8"),
    ]  # fmt: skip


def test_a_window_of_one_tap_needs_no_memory_of_its_own(tmp_path):
    text = made("conv of one tap, relu6", tmp_path).source
    assert re.search(r"conv_2d_helium\(&layer_0, arena \+ \d+, arena \+ \d+, NULL, 0\);", text)


@pytest.mark.parametrize(
    ("target", "cpu", "instructions"),
    [("cortex-m4", "cortex-m4", "dsp"), ("cortex-m7", "cortex-m7", "dsp"),
     ("cortex-m55", "cortex-m55", "mve"), ("ethos-u85", "cortex-m85", "mve")],
)  # fmt: skip
def test_a_target_and_its_processor_name_the_same_instructions(target, cpu, instructions):
    assert instructions_of(load_target(target).hardware) == instructions
    assert instructions_of(load_target(target).hardware, "size") == "plain"
    assert instructions_for(cpu) == instructions


def test_unknown_instructions_are_refused():
    assert check_instructions("mve") == "mve"
    with pytest.raises(
        InputError, match=r"unknown instructions 'neon' \(allowed: dsp, mve, plain\)"
    ):
        check_instructions("neon")
