import numpy as np
import pytest

from edgekd.backends.tensorrt.placement import quantization_faults, quantized_ops
from edgekd.formats.graph import Graph, Op, Tensor


def _graph(*, activation=None, weight=None, op="Conv", attributes=None, bias=False):
    """x -> Q -> DQ -> op(·, DQ(weight)) with an int8 activation and weight, as changed."""
    q = {"dtype": "int8", "scales": (0.5,), "zero_points": (0,), **(activation or {})}
    w = {"dtype": "int8", "scales": (0.1, 0.2), "zero_points": (0, 0), "axis": 0, **(weight or {})}
    tensors = {
        "x": Tensor("x", (1, 3, 8, 8), "float32"),
        "q": Tensor("q", (1, 3, 8, 8), **q),
        "w": Tensor("w", (2, 3, 1, 1), constant_bytes=6, values=np.zeros(6, np.int8), **w),
        "b": Tensor("b", (2,), "int32", constant_bytes=8, scales=(0.1, 0.2)),
        **{key: Tensor(key, None, "float32") for key in ("s", "dx", "dw", "db", "y")},
    }
    ops = [
        Op("quantize", "QuantizeLinear", ("x", "s"), ("q",)),
        Op("dequantize", "DequantizeLinear", ("q", "s"), ("dx",)),
        Op("dequantize_w", "DequantizeLinear", ("w", "s"), ("dw",)),
    ]
    if bias:
        ops.append(Op("dequantize_b", "DequantizeLinear", ("b", "s"), ("db",)))
    inputs = ("dx", "dw", "db") if bias else ("dx", "dw")
    ops.append(Op("layer", op, inputs, ("y",), attributes or {}))
    return Graph(tuple(ops), tensors, ("x",), ("y",))


def test_symmetric_int8_with_weights_along_their_output_channels_is_accepted():
    graph = _graph()
    assert quantization_faults(graph) == []
    assert quantized_ops(graph) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation": {"dtype": "uint8"}}, "'q' is uint8, and only int8 is symmetric"),
        ({"activation": {"zero_points": (7,)}}, "'q' has the zero point 7, not 0"),
        ({"activation": {"scales": (0.1, 0.2)}}, "the activation 'q' has 2 scales"),
        ({"activation": {"scales": ()}}, "the scale of 'q' is not a constant"),
        ({"activation": {"scales": (0.0,)}}, "a scale that is not above 0"),
        ({"activation": {"scales": (float("nan"),)}}, "a scale that is not above 0"),
        ({"weight": {"zero_points": (0, -3)}}, "'w' has the zero point -3, not 0"),
        ({"weight": {"axis": 1}}, "along axis 1, but Conv has its output channels along 0"),
        (
            {"op": "ConvTranspose"},
            "along axis 0, but ConvTranspose has its output channels along 1",
        ),
        ({"op": "Gemm"}, "along axis 0, but Gemm has its output channels along 1"),
        ({"bias": True}, "the int32 bias 'b' has to be float"),
    ],
)
def test_each_rule_of_explicit_quantization(change, words):
    assert any(words in fault for fault in quantization_faults(_graph(**change)))


def test_a_transposed_gemm_counts_channels_along_its_first_axis():
    assert quantization_faults(_graph(op="Gemm", attributes={"transB": 1})) == []


def test_an_operator_with_a_float_weight_is_not_counted_as_quantized():
    graph = _graph()
    layer = Op("layer", "Conv", ("dx", "w"), ("y",))
    assert quantized_ops(Graph((*graph.ops[:3], layer), graph.tensors, ("x",), ("y",))) == 0
