"""ADD and SUB of one shape: which get the kernel without branches, and with which shifts."""

import re

import pytest
from operator_cases import CASES
from tflite_files import O, T, tflite

from edgekd.firmware.generate import program_of
from edgekd.firmware.graph import read_network


def steps_of(content, folder):
    (folder / "net.tflite").write_bytes(content)
    return program_of(read_network(folder / "net.tflite"), "net", "net").steps


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("ADD with itself", ["add_flat"]),
        ("SUB of two grids", ["lookup", "add_flat"]),
        ("ADD of every pair", ["add"]),
        ("ADD per channel, relu6", ["add"]),
        ("MUL with itself", ["multiply"]),
    ],
)
def test_only_tensors_of_one_shape_are_added_without_branches(name, kernels, tmp_path):
    assert [step.kernel for step in steps_of(CASES[name](), tmp_path)] == kernels


def test_the_input_of_the_larger_scale_is_halved_by_one_bit_more_on_either_side(tmp_path):
    """0.08 / 0.16 is one half: 2^30 / 2^31. 0.02 / 0.16 is one eighth: 2^30 / 2^(31 + 2)."""
    tensors = [T((1, 8), 0.08), T((1, 8), 0.02), T((1, 8), 0.1)]
    ops = [
        O("QUANTIZE", [0], [1], {}, "QuantizeOptions"), O("ADD", [0, 1], [2], {}, "AddOptions"),
    ]  # fmt: skip
    values = steps_of(tflite(tensors, ops, [0], [2]), tmp_path)[1].parameters
    found = {key: value for key, value in values.items() if re.match(r"[ab]_", key)}
    assert (found["a_left"], found["a_multiplier"], found["a_shift"]) == (21, 1 << 30, 1)
    assert (found["b_left"], found["b_shift"]) == (20, 2)
    assert abs(found["b_multiplier"] - (1 << 30)) < 100  # the file's scales are in float32
