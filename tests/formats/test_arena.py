"""Arenas and multiply-accumulates of graphs worked out by hand."""

import pytest

from edgekd.formats.arena import _lowest_gap, arena_of_blocks, planned_arena
from edgekd.formats.graph import Graph, Op, Tensor, live_peak
from edgekd.formats.macs import count_macs


def graph(*ops: Op, outputs: tuple[str, ...] = ("y",), **shapes: tuple[int, ...]) -> Graph:
    tensors = {name: Tensor(name, shape, "float32") for name, shape in shapes.items()}
    return Graph(ops, tensors, ("x",), outputs)


def test_a_block_takes_the_place_of_one_that_is_dead() -> None:
    # a (100) lives in steps 0-1, b (60) in 1-2, c (40) in 2-3: c fits where a was.
    assert arena_of_blocks([(100, 0, 1), (60, 1, 2), (40, 2, 3)], alignment=1) == 160
    # All three at once need their sum, and alignment rounds each up.
    assert arena_of_blocks([(100, 0, 2), (60, 0, 2), (40, 0, 2)], alignment=1) == 200
    assert arena_of_blocks([(100, 0, 2), (60, 0, 2)], alignment=64) == 128 + 64
    assert arena_of_blocks([]) == 0


def test_the_lowest_gap_that_is_wide_enough_is_taken() -> None:
    alive = [(10, 20, 0, 9), (25, 40, 0, 9)]
    assert [_lowest_gap(alive, size) for size in (10, 5, 11)] == [0, 0, 40]
    assert _lowest_gap([(0, 20, 0, 9), (25, 40, 0, 9)], 5) == 20
    # 60 first, then 50 where it is dead, and 30 beside both.
    assert arena_of_blocks([(50, 0, 1), (30, 0, 3), (60, 2, 3)], alignment=1) == 90


def test_an_arena_is_never_smaller_than_what_lives_at_once() -> None:
    chain = graph(
        Op("a", "RELU", ("x",), ("t",)), Op("b", "ADD", ("t", "x"), ("y",)),
        x=(1, 100), t=(1, 100), y=(1, 100),
    )  # fmt: skip
    assert live_peak(chain) == (1200, "")
    assert planned_arena(chain) == (3 * 448, "")  # 400 bytes each, in steps of 64


def test_an_open_size_has_no_plan() -> None:
    opened = graph(Op("a", "RELU", ("x",), ("y",)), x=(1, -1), y=(1, 4))
    assert planned_arena(opened) == (None, "the file does not give the size of tensor 'x'")


@pytest.mark.parametrize(
    ("op", "inputs", "shapes", "expected"),
    [
        # TFLite: 8 maps of 4x4, each from 3x3x2
        ("CONV_2D", ("x", "w"), {"x": (1, 4, 4, 2), "w": (8, 3, 3, 2),
                                 "y": (1, 4, 4, 8)}, 128 * 18),
        ("DEPTHWISE_CONV_2D", ("x", "w"), {"x": (1, 4, 4, 8), "w": (1, 3, 3, 8),
                                           "y": (1, 4, 4, 8)}, 128 * 9),
        ("FULLY_CONNECTED", ("x", "w"), {"x": (2, 5), "w": (3, 5), "y": (2, 3)}, 30),
        ("TRANSPOSE_CONV", ("s", "w", "x"), {"x": (1, 2, 2, 4), "w": (6, 3, 3, 4),
                                             "y": (1, 4, 4, 6)}, 16 * 54),
        # ONNX: grouped, an open batch counted as one, a stack of products
        ("Conv", ("x", "w"), {"x": (-1, 4, 8, 8), "w": (4, 2, 3, 3), "y": (-1, 4, 8, 8)}, 256 * 18),
        ("ConvTranspose", ("x", "w"), {"x": (1, 4, 2, 2), "w": (4, 6, 3, 3),
                                       "y": (1, 6, 4, 4)}, 16 * 54),
        ("MatMul", ("x", "w"), {"x": (7, 2, 5), "w": (7, 5, 3), "y": (7, 2, 3)}, 7 * 30),
        ("Gemm", ("x", "w"), {"x": (2, 5), "w": (5, 3), "y": (2, 3)}, 30),
        ("Relu", ("x",), {"x": (2, 5), "y": (2, 5)}, 0),
    ],
)  # fmt: skip
def test_multiply_accumulates_are_those_of_the_operators_shapes(
    op: str, inputs: tuple[str, ...], shapes: dict[str, tuple[int, ...]], expected: int
) -> None:
    assert count_macs(graph(Op("n", op, inputs, ("y",)), **shapes)) == (expected, "")


def test_what_can_not_be_counted_says_why() -> None:
    loop = graph(Op("l", "Loop", ("x",), ("y",)), x=(1, 4), y=(1, 4))
    assert count_macs(loop) == (None, "Loop 'l': the number of loop iterations is unknown")
    opened = graph(Op("c", "MatMul", ("x", "w"), ("y",)), x=(1, -1), w=(4, 3), y=(1, 3))
    assert count_macs(opened) == (None, "the file does not give the shapes of MatMul 'c'")


def test_a_recurrent_layer_costs_its_matrices_at_every_step() -> None:
    """7 steps of a GRU with 4 inputs and 5 units: 7 * 3 * 5 * (4 + 5) = 945."""
    layer = Op("l", "GRU", ("x", "w", "r"), ("y",))
    sizes = {"x": (7, 1, 4), "w": (1, 15, 4), "r": (1, 15, 5), "y": (7, 1, 1, 5)}
    assert count_macs(graph(layer, **sizes)) == (945, "")
