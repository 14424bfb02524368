"""Layers of files: named, in one layout, and paired across formats."""

import numpy as np
import pytest

from edgekd.formats.file_layers import FileLayer, file_layers, matched_layers, operator_layers
from edgekd.formats.graph import Graph, Op, Tensor

DRAW = np.random.default_rng(0)


def constant(name: str, values: np.ndarray, **grid) -> Tensor:
    return Tensor(name, values.shape, str(values.dtype), values.nbytes, values, **grid)


def graph_of(op: Op, *tensors: Tensor) -> Graph:
    known = {tensor.name: tensor for tensor in tensors}
    return Graph((op,), known, (op.inputs[0],), op.outputs)


@pytest.mark.parametrize(
    ("op", "stored"),
    [
        ("CONV_2D", (0, 2, 3, 1)),
        ("DEPTHWISE_CONV_2D", (1, 2, 3, 0)),
        ("Conv", (0, 1, 2, 3)),
    ],
)
def test_a_weight_is_turned_to_out_in_height_width(op, stored):
    weight = DRAW.normal(size=(4, 3 if op != "DEPTHWISE_CONV_2D" else 1, 5, 2))
    kept = constant("w", np.ascontiguousarray(weight.transpose(stored)))
    (layer,) = file_layers(graph_of(Op("n", op, ("x", "w"), ("y",)), kept))
    np.testing.assert_array_equal(layer.weight, weight)


def test_a_weight_with_a_scale_for_each_block_is_dequantized_by_block():
    values = np.array([[1, 2, 3, 4, 5], [1, 1, 1, 1, 1]], np.int8)
    kept = constant("w", values, scales=(1.0, 2.0, 0.5, 4.0), axis=1)  # blocks of 3 and 2
    (layer,) = file_layers(graph_of(Op("n", "FULLY_CONNECTED", ("x", "w"), ("y",)), kept))
    np.testing.assert_array_equal(layer.weight, [[1, 2, 3, 8, 10], [0.5, 0.5, 0.5, 4, 4]])


def test_a_quantized_weight_is_dequantized_by_channel():
    kept = constant("w", np.array([[2, -4], [6, 8]], np.int8), scales=(0.5, 0.25),
                    zero_points=(0, 2), axis=0)  # fmt: skip
    (layer,) = file_layers(graph_of(Op("n", "FULLY_CONNECTED", ("x", "w"), ("y",)), kept))
    np.testing.assert_array_equal(layer.weight, [[1.0, -2.0], [1.0, 1.5]])


@pytest.mark.parametrize(
    ("node", "weight", "name"),
    [
        ("/layer1/layer1.0/conv1/Conv", "onnx::Conv_12", "layer1.0.conv1"),
        ("node_conv2d", "stem_0_weight_folded_int8", "stem_0"),
        ("Conv_7", "features.3.weight_quantized", "features.3"),
        ("Conv_7", "onnx::Conv_12", "y"),
    ],
)
def test_a_layer_is_named_after_its_node_or_its_weight(node, weight, name):
    kept = constant(weight, DRAW.normal(size=(4, 3, 1, 1)))
    graph = graph_of(Op(node, "Conv", ("x", weight), ("y",)), kept)
    assert operator_layers(graph) == [name]


def layer(place: int, weight: np.ndarray) -> FileLayer:
    return FileLayer(place, "Conv", f"l{place}", weight, None, "x", "y")


def test_layers_are_paired_by_their_weights_whatever_their_order():
    a, b, c = (DRAW.normal(size=(8, 8, 3, 3)) for _ in range(3))
    rounded = [np.round(weight * 20) / 20 for weight in (a, b, c)]
    first = [layer(0, a), layer(1, b), layer(2, c)]
    second = [layer(0, rounded[2]), layer(1, rounded[0]), layer(2, rounded[1])]
    assert [(x.place, y.place) for x, y in matched_layers(first, second)] == [
        (0, 1),
        (1, 2),
        (2, 0),
    ]


def test_a_layer_with_a_destroyed_weight_is_paired_by_order():
    a, b = (DRAW.normal(size=(8, 8, 3, 3)) for _ in range(2))
    second = [layer(0, np.zeros((8, 8, 3, 3))), layer(1, b)]
    pairs = matched_layers([layer(0, a), layer(1, b)], second)
    assert [(x.place, y.place) for x, y in pairs] == [(0, 0), (1, 1)]
