import numpy as np
import pytest

from edgekd.backends.edgetpu.placement import SUPPORTED, edgetpu_placements, reason_against
from edgekd.formats.graph import Graph, Op, Tensor

MIB = 1 << 20


def _tensor(name, shape, dtype="int8", values=None, size=None):
    array = None if values is None else np.asarray(values)
    taken = size if size is not None else (None if array is None else array.nbytes)
    return Tensor(name, tuple(shape), dtype, constant_bytes=taken, values=array)


def _reason(op, shapes, out, *, constants=(), dtype="int8", **attributes):
    """Why the op is refused, with inputs of these shapes and then constants."""
    tensors = {f"x{i}": _tensor(f"x{i}", shape, dtype) for i, shape in enumerate(shapes)}
    for i, values in enumerate(constants):
        tensors[f"c{i}"] = _tensor(f"c{i}", np.shape(values), "int32", np.asarray(values, np.int32))
    tensors["y"] = _tensor("y", out, dtype)
    inputs = tuple(key for key in tensors if key != "y")
    node = Op("node", op, inputs, ("y",), attributes)
    return reason_against(node, Graph((node,), tensors, inputs, ("y",)))


PLANE = (1, 8, 8, 4)
CASES = [
    ("ADD", [PLANE, PLANE], PLANE, {}, ""),
    ("HARD_SWISH", [PLANE], PLANE, {}, "operation not supported"),
    ("RELU", [PLANE], PLANE, {"dtype": "float32"}, "computes in 8 bits"),
    ("RELU", [(2, 8, 8, 4)], (2, 8, 8, 4), {}, "a batch above 1"),
    ("RELU", [(-1, 8, 8, 4)], (-1, 8, 8, 4), {}, "an open dimension"),
    ("MAX_POOL_2D", [PLANE], PLANE, {"FusedActivationFunction": 1}, "a fused activation"),
    ("MEAN", [PLANE], (1, 4), {"constants": [[1, 2]]}, ""),
    ("MEAN", [PLANE], (8, 8, 4), {"constants": [[0]]}, "over the batch"),
    ("MEAN", [PLANE], (1, 8, 8), {"constants": [[-1]]}, ""),
    ("MEAN", [(1, 8, 8, 6)], (1, 8, 8), {"constants": [[3]]}, "a depth of 6"),
    ("SUM", [PLANE], (8, 8, 4), {"constants": [[0]]}, "over the batch"),
    ("PAD", [PLANE], (1, 10, 8, 4), {"constants": [[[0, 0], [1, 1], [0, 0], [0, 0]]]}, ""),
    ("PAD", [PLANE], PLANE, {"constants": [[[1, 0], [0, 0], [0, 0], [0, 0]]]}, "of the batch"),
    ("SOFTMAX", [(1, 16_000)], (1, 16_000), {}, ""),
    ("SOFTMAX", [(1, 16_001)], (1, 16_001), {}, "above 16000"),
    ("SOFTMAX", [(1, 4, 10)], (1, 4, 10), {}, "the input has 1x4x10"),
    ("SQUEEZE", [(1, 1, 1, 10)], (10,), {}, ""),
    ("SQUEEZE", [(1, 5, 1, 10)], (5, 10), {}, "drops an inner dimension"),
    ("PACK", [PLANE], (1, 8, 8, 8), {"Axis": 0}, "along the batch"),
    ("PACK", [PLANE], (1, 8, 8, 8), {"Axis": 3}, ""),
    ("STRIDED_SLICE", [PLANE], PLANE, {"constants": [[0], [4], [1]]}, ""),
    ("STRIDED_SLICE", [PLANE], PLANE, {"constants": [[0], [4], [2]]}, "a stride other than 1"),
    ("STRIDED_SLICE", [PLANE], PLANE, {"constants": [[0], [4], [1]], "NewAxisMask": 1}, "new axis"),
    ("CUSTOM edgetpu-custom-op", [PLANE], PLANE, {}, ""),
]


@pytest.mark.parametrize(("op", "shapes", "out", "more", "words"), CASES)
def test_each_condition_of_the_vendors_table(op, shapes, out, more, words):
    reason = _reason(op, shapes, out, **more)
    assert words in reason if words else reason == ""


def _weighted(op, weight, **attributes):
    tensors = {
        "x": _tensor("x", PLANE),
        "w": weight,
        "b": _tensor("b", (8,), "int32", np.zeros(8, np.int32)),
        "y": _tensor("y", (1, 8) if op == "FULLY_CONNECTED" else PLANE),
    }
    node = Op("node", op, ("x", "w", "b"), ("y",), attributes)
    return reason_against(node, Graph((node,), tensors, ("x",), ("y",)))


def test_a_convolution_wants_equal_dilations_and_constant_weights():
    weight = _tensor("w", (8, 3, 3, 4), size=288)
    assert _weighted("CONV_2D", weight) == ""
    reason = _weighted("CONV_2D", weight, DilationHFactor=2, DilationWFactor=1)
    assert reason == "dilations 2 and 1 differ"
    assert _weighted("CONV_2D", _tensor("w", (8, 3, 3))) == "parameter 'w' is not a constant"
    assert _weighted("FULLY_CONNECTED", weight, WeightsFormat=1) == "weights in a shuffled format"


def test_a_concatenation_takes_one_constant_of_zeros_only():
    zeros, ones = np.zeros((1, 8, 8, 4), np.int8), np.ones((1, 8, 8, 4), np.int8)

    def reason(values):
        tensors = {"x": _tensor("x", PLANE), "c": _tensor("c", PLANE, values=values)}
        tensors["y"] = _tensor("y", (1, 8, 8, 8))
        node = Op("node", "CONCATENATION", ("x", "c"), ("y",))
        return reason_against(node, Graph((node,), tensors, ("x",), ("y",)))

    assert reason(zeros) == ""
    assert reason(ones) == "a constant input that is not all zeros"


def test_the_table_has_the_vendors_forty_operators():
    assert len(SUPPORTED) == 40


def _chain(*kinds, parameters=0):
    tensors = {f"t{i}": _tensor(f"t{i}", PLANE) for i in range(len(kinds) + 1)}
    tensors["w"] = _tensor("w", (1, 1, 1, 4), size=parameters)
    ops = tuple(
        Op(f"op{i}", kind, (f"t{i}", "w") if kind == "ADD" else (f"t{i}",), (f"t{i + 1}",))
        for i, kind in enumerate(kinds)
    )
    return Graph(ops, tensors, ("t0",), (f"t{len(kinds)}",))


def test_all_that_follows_an_unsupported_operator_runs_on_the_cpu():
    graph = _chain("ADD", "RELU", "HARD_SWISH", "RELU", "TANH")
    placements, facts = edgetpu_placements(graph, 8 * MIB, 0)
    assert [one.placement for one in placements] == ["edgetpu", "edgetpu", "cpu", "cpu", "cpu"]
    assert placements[2].reason == "operation not supported"
    assert "more than one subgraph is not supported" in placements[4].reason
    assert (facts["edgetpu_ops"], facts["cpu_ops"], facts["kind"]) == (2, 3, "estimated")


def test_unsupported_operators_at_the_start_leave_the_rest_mapped():
    """google-coral/edgetpu issue 342: TRANSPOSE first on the CPU, then PAD mapped."""
    placements, _ = edgetpu_placements(_chain("HARD_SWISH", "RELU", "TANH"), 8 * MIB, 0)
    assert [one.placement for one in placements] == ["cpu", "edgetpu", "edgetpu"]


def test_parameters_beyond_the_cache_are_streamed():
    graph = _chain("ADD", "RELU", parameters=9 * MIB)
    _, facts = edgetpu_placements(graph, 8 * MIB, MIB)
    assert facts["parameter_bytes"] == 9 * MIB
    assert facts["cached_bytes"] == 7 * MIB
    assert facts["streamed_bytes"] == 2 * MIB


def test_a_model_of_which_nothing_maps_says_why_for_each():
    placements, facts = edgetpu_placements(_chain("HARD_SWISH", "GELU"), 8 * MIB, 0)
    assert {one.placement for one in placements} == {"cpu"}
    assert all(one.reason == "operation not supported" for one in placements)
    assert facts["parameter_bytes"] == 0
