"""Weights packed for DSP instructions: their layout, which layers get them, and the extremes."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from litert_reference import by_litert
from operator_cases import CASES, convolution
from tflite_files import O, T, integers, tflite

from edgekd.firmware import hosted
from edgekd.firmware.generate import generate, program_of
from edgekd.firmware.graph import read_network
from edgekd.firmware.packed import (
    packed_fours,
    packed_pairs,
    packed_rows,
    whole_words_first,
    with_packed_weights,
)


def word(low, high):
    """Two signed halves in one word."""
    return np.int64((high << 16) | (low & 0xFFFF)).astype(np.int32)


def test_two_filters_share_halves_in_the_order_in_which_bytes_are_widened():
    found = packed_pairs(np.array([[1, 2, 3, 4], [5, -6, 7, -8]], np.int8))
    assert found.shape == (1, 4)
    assert found[0, 0] == word(256 * 5 + 1, 256 * 7 + 3)
    assert found[0, 1] == word(256 * -6 + 2, 256 * -8 + 4)
    assert not found[0, 2:].any()


def test_what_is_left_of_rows_behind_whole_words_comes_last():
    found = whole_words_first(np.arange(10, dtype=np.int8)[None], 2)
    assert found.tolist() == [[0, 1, 2, 3, 5, 6, 7, 8, 4, 9]]


def test_a_missing_second_filter_is_zero():
    found = packed_pairs(np.array([[-1, 2, 3, -4]], np.int8))
    assert found[0, :2].tolist() == [word(-1, 3), word(2, -4)]


def test_four_outputs_alternate_by_pair_first_with_the_even_inputs():
    weights = np.arange(1, 17, dtype=np.int8).reshape(4, 4)
    found = packed_fours(weights)
    assert found.shape == (1, 1, 4)
    assert found.reshape(-1).tolist() == [
        word(256 * 5 + 1, 256 * 7 + 3),
        word(256 * 13 + 9, 256 * 15 + 11),
        word(256 * 6 + 2, 256 * 8 + 4),
        word(256 * 14 + 10, 256 * 16 + 12),
    ]


def test_rows_of_a_window_repeat_the_one_in_the_middle():
    found = packed_rows(np.array([[1, -2, 3, 4, 5, 6, 7, 8, -9]], np.int8))
    rows = np.ascontiguousarray(found).view(np.int8).reshape(3, 4)
    assert rows.tolist() == [[1, -2, -2, 3], [4, 5, 5, 6], [7, 8, 8, -9]]


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("conv same", "conv_2d_packed"),
        ("conv grouped, no bias", "conv_2d"),
        ("conv dilated, relu6", "conv_2d"),
        ("conv that scales up", "conv_2d"),
        ("conv with a weight of -128", "conv_2d"),
        ("conv as large as its input", "fully_connected_packed"),
        ("depthwise", "depthwise_3x3"),
        ("depthwise, depth 3, stride 2", "depthwise_conv_2d"),
        ("depthwise dilated, valid", "depthwise_conv_2d"),
        ("depthwise of one channel to four", "conv_2d_packed"),
        ("fully connected, one scale", "fully_connected_packed"),
        ("fully connected, rows, no bias", "conv_2d_packed"),
    ],
)  # fmt: skip
def test_a_layer_gets_the_kernel_that_its_shape_and_numbers_allow(name, kernel, tmp_path):
    (tmp_path / "net.tflite").write_bytes(CASES[name]())
    calls = re.findall(r"^    (\w+)\(&layer_", generate(tmp_path / "net.tflite").source, re.M)
    assert calls == [kernel]


def test_a_bias_beyond_the_fast_requantization_keeps_plain_c(tmp_path):
    """Sums are doubled in 32 bits, so they must stay below 2^30."""
    content = CASES["fully connected, scales"]()
    (tmp_path / "net.tflite").write_bytes(content)
    network = read_network(tmp_path / "net.tflite")
    (step,) = program_of(network, "net", "net").steps
    assert step.kernel == "fully_connected_packed"
    plain = replace(
        step, kernel="fully_connected",
        parameters={
            "weights": step.parameters["weights"], "inputs": 1, "outputs": 1, "rows": 1, "step": 0,
            "input_offset": 0, "output_offset": 0, "low": -128, "high": 127,
        },
    )  # fmt: skip

    def kernel_for(bias):
        def one(value, dtype):
            return replace(step.parameters["bias"], values=np.array([value], dtype))

        fields = {
            "weights": one(100, np.int8), "bias": one(bias, np.int32),
            "multiplier": one(1 << 30, np.int32), "shift": one(-1, np.int8),
        }  # fmt: skip
        (found,) = with_packed_weights([replace(plain, parameters={**plain.parameters, **fields})])
        return found.kernel

    assert kernel_for((1 << 30) - 12_801) == "fully_connected_packed"
    assert kernel_for((1 << 30) - 12_800) == "fully_connected"


def extreme(filters, count, value):
    """A layer of one tap whose weights are all `value`."""
    weights = T((filters, 1, 1, count), 0.01, 0, np.full((filters, 1, 1, count), value), axis=0)
    tensors = [
        T((1, 1, 3, count), 0.04, -128), weights, integers([0] * filters),
        T((1, 1, 3, filters), 9.0, 0),
    ]  # fmt: skip
    options = {"strideH": 1, "strideW": 1, "padding": 1}
    return tflite(tensors, [O("CONV_2D", [0, 1, 2], [3], options, "Conv2DOptions")], [0], [3])


def test_the_numbers_of_two_filters_stand_around_their_weights(tmp_path):
    """An input of zero point -128 adds 128 * 8 to the sums of eight weights of 1. The scale is
    0.0004 / 9, or 0.73 / 2^14."""
    (tmp_path / "net.tflite").write_bytes(extreme(2, 8, 1))
    (step,) = program_of(read_network(tmp_path / "net.tflite"), "net", "net").steps
    scale = float(np.float32(0.04)) * float(np.float32(0.01)) / 9
    multiplier = round(scale * 2**45)
    words = [word(257, 257)] * 4
    found = step.parameters["weights"].values.tolist()
    assert found[:6] == [1024, *words, 2048]
    assert found[6:] == [multiplier, 1 << 13, multiplier, 1 << 13, 14 | 14 << 8]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize("value", [127, -127])
@pytest.mark.parametrize("step", [-128, 127])
def test_the_largest_sums_of_two_filters_do_not_run_into_each_other(value, step, tmp_path):
    """512 * 128 * 127 * 256 is just below 2^31: a column of 1,100 needs three parts."""
    content = extreme(2, 1100, value)
    (tmp_path / "net.tflite").write_bytes(content)
    _, source = generate(tmp_path / "net.tflite").write(tmp_path)
    x = np.full((1, 3 * 1100), step, np.int8)
    program = hosted.build(source, tmp_path, ("-O1", *hosted.SANITIZERS))
    assert np.array_equal(hosted.run(program, x), by_litert(content, x))


def test_a_column_goes_on_the_stack_where_the_arena_is_full(tmp_path):
    """5x6x7 out overwrites 5x6x3 in: after 27 positions, the next one still reads from the byte
    (3 * 6 + 2) * 3 on, so it begins 27 * 7 - 60 = 129 bytes before it, in words 132. Three columns
    of 27 values, in 16 words each, are beside that, and what three rows have behind whole words
    for each of them, and a row at the border."""
    (tmp_path / "net.tflite").write_bytes(CASES["conv same"]())
    generated = generate(tmp_path / "net.tflite")
    assert generated.numbers["arena_bytes"] == 132 + 92
    assert generated.numbers["scratch_on_stack_bytes"] == 3 * 16 * 4 + 3 * 4 + 9
    assert "    int32_t work[54];\n" in generated.source


def test_a_column_too_long_for_the_stack_is_in_the_arena(tmp_path):
    content = convolution((1, 2, 2, 400), (2, 1, 1, 400), (1, 2, 2, 2), out_scale=2.0)
    (tmp_path / "net.tflite").write_bytes(content)
    generated = generate(tmp_path / "net.tflite")
    assert generated.numbers["scratch_on_stack_bytes"] == 0
    assert generated.numbers["arena_bytes"] == 1600 + 3 * 200 * 4


def test_the_plain_kernels_have_the_smallest_tables_and_the_least_code(tmp_path):
    """27 weights of each of 7 filters are packed into 32 of 2 bytes for two filters, of which there
    are four pairs, each with 7 other words: 8 * 32 + 4 * 28 bytes instead of 7 * (27 + 9)."""
    (tmp_path / "net.tflite").write_bytes(CASES["conv same"]())
    fast = generate(tmp_path / "net.tflite")
    small = generate(tmp_path / "net.tflite", instructions="plain")
    assert fast.numbers["constant_bytes"] - small.numbers["constant_bytes"] == (
        8 * 32 + 4 * 28 - 7 * (27 + 9)
    )
    assert len(small.source) < len(fast.source)
