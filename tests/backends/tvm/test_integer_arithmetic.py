"""Grids, folded constants and packed weights of the integer kernels, computed by hand."""

from typing import Any

import numpy as np
import pytest
import torch

from edgekd.backends.tvm.integers.dot import DOTS, dot_named
from edgekd.backends.tvm.integers.grid import Grid
from edgekd.backends.tvm.integers.kernels import factors, folded_bias, form_of, packed_weight
from edgekd.backends.tvm.integers.pointwise import regridded, table
from edgekd.backends.tvm.integers.steps import Reshaped, Value, Weighted
from edgekd.backends.tvm.isa import dot_of, needed_features
from edgekd.backends.tvm.layers import Layer
from edgekd.backends.tvm.tile import Tile
from edgekd.values.target import load_target

HALVES = Grid(0.5, 10, 0, 255, "uint8")


def test_numbers_between_two_steps_go_to_the_even_one_and_large_ones_to_the_end() -> None:
    values = np.array([0.0, 0.25, 0.75, -0.25, 1000.0, -1000.0])
    assert HALVES.integers(values).tolist() == [10, 10, 12, 10, 255, 0]
    assert HALVES.values(np.array([10, 12, 0])).tolist() == [0.0, 1.0, -5.0]


def test_a_clamp_leaves_part_of_the_range() -> None:
    relu6 = HALVES.clamped(0.0, 6.0)
    assert (relu6.low, relu6.high) == (10, 22)
    assert HALVES.clamped(None, None) == HALVES


def test_a_function_is_tabulated_on_both_grids() -> None:
    source = Value("x", (1, 4), Grid(1.0, 0, -128, 127, "int8"))
    result = Value("y", (1, 4), Grid(1 / 256, 0, 0, 255, "uint8"))
    entries = table(source, result, "layer", "aten.sigmoid", torch.sigmoid).entries
    assert entries.dtype == np.uint8
    assert entries[128] == 128  # sigmoid(0) is a half
    assert entries[129] == 187  # 256 / (1 + exp(-1)) is 187.15
    assert entries[0] == 0
    assert entries[255] == 255


def test_a_tensor_that_keeps_its_grid_is_not_computed() -> None:
    source = Value("x", (1, 4), HALVES)
    assert isinstance(regridded(source, Value("y", (1, 4), HALVES), "layer"), Reshaped)
    coarser = Value("y", (1, 4), Grid(1.0, 0, 0, 255, "uint8"))
    moved: Any = regridded(source, coarser, "layer")
    assert moved.entries[[10, 12, 13, 14]].tolist() == [0, 1, 2, 2]  # 1.5 goes to 2


def layer(weight: np.ndarray, **changes: Any) -> Layer:
    kh, kw, inputs, channels = weight.shape
    facts = {"input": (1, 4, 4, inputs), "channels": channels, "kernel": (kh, kw)}
    return Layer(kind="convolution", dtype="uint8", **(facts | changes))


def test_zero_points_and_scales_are_folded_into_the_bias_and_a_factor() -> None:
    weight = np.array([[[[1, -2], [4, 0]]]], np.int8)  # sums over the inputs: 5 and -2
    step = Weighted(
        result=Value("y", (1, 2, 4, 4), Grid(0.25, 0, 0, 255, "uint8")),
        layer="layer",
        op="aten.conv2d",
        source=Value("x", (1, 2, 4, 4), Grid(0.5, 3, 0, 255, "uint8")),
        geometry=layer(weight),
        weight=weight,
        bias=np.array([10, 20]),
        scale=np.array([0.5 * 0.1, 0.5 * 0.2]),
    )
    assert folded_bias(step).tolist() == [10 - 3 * 5, 20 + 3 * 2]
    np.testing.assert_allclose(factors(step), [0.2, 0.4], rtol=1e-6)


def test_weights_are_packed_four_inputs_of_a_channel_side_by_side() -> None:
    weight = np.arange(1 * 1 * 8 * 3, dtype=np.int8).reshape(1, 1, 8, 3)
    form = form_of(layer(weight), DOTS["vpdpbusd256"], weight)
    packed = packed_weight(form, weight, Tile(1, 1, 1, 8))
    assert packed.shape == (1, 1, 1, 2, 8, 4)
    assert packed[0, 0, 0, 1, 2].tolist() == [14, 17, 20, 23]  # channel 2 of inputs 4 to 7
    assert not packed[0, 0, 0, :, 3:].any()


def test_few_channels_are_taken_with_their_neighbours_in_the_row() -> None:
    weight = np.ones((3, 3, 3, 8), np.int8)
    form = form_of(layer(weight), DOTS["vpdpbusd512"], weight)
    assert (form.flat, form.run, form.quads) == (True, 9, 3)
    assert packed_weight(form, weight, Tile(1, 1, 1, 16)).shape == (1, 3, 1, 3, 16, 4)


@pytest.mark.parametrize(("largest", "name"), [(64, "pmaddubsw"), (65, "")])
def test_weights_that_would_saturate_sixteen_bits_take_plain_products(
    largest: int, name: str
) -> None:
    """Two products of 255 with 64 are 32640; with 65 they are more than 32767."""
    weight = np.full((1, 1, 4, 8), largest, np.int8)
    assert form_of(layer(weight), DOTS["pmaddubsw"], weight).dot.name == name


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("x86", "pmaddubsw"),
        ("x86-vnni", "vpdpbusd512"),
        ("raspberry-pi-5", "sdot"),
        ("raspberry-pi-4", ""),
        ("cortex-a53", ""),
    ],
)
def test_a_targets_dot_product_is_the_widest_that_its_profile_names(target: str, name: str) -> None:
    hardware = load_target(target).hardware
    assert dot_of(hardware) == name
    assert dot_named(name, 4, signed=True).name == name
    assert not {"crc", "crypto"} & set(needed_features(hardware))
