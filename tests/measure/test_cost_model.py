"""Latencies from the operators of other files: what is read of a file, and what is predicted."""

from dataclasses import replace

import numpy as np
import pytest

from edgekd.devices.replies import Profiled, ProfiledOperator
from edgekd.errors import InputError
from edgekd.formats.graph import Graph, Op, Tensor
from edgekd.measure.cost_facts import groups_of, loop_facts
from edgekd.measure.cost_model import fit_cost_model
from edgekd.measure.operator_costs import MeasuredFile, Operator, measured_file, operators_of


def constant(name, shape, dtype="float32", size=4):
    return Tensor(name, shape, dtype, constant_bytes=size * int(np.prod(shape)))


def convolution(*, quantized=False):
    """A convolution with an activation: 2 -> 4 channels, 3x3, 5x5 positions."""
    weights = constant("w8", (4, 2, 3, 3), "int8", 1) if quantized else constant("w", (4, 2, 3, 3))
    tensors = {
        "x": Tensor("x", (-1, 2, 5, 5), "float32"),
        "c": Tensor("c", (1, 4, 5, 5), "float32"),
        "y": Tensor("y", (1, 4, 5, 5), "float32"),
        weights.name: weights,
    }
    ops = [
        Op(
            "conv",
            "Conv",
            ("x", "w"),
            ("c",),
            {"group": 1, "strides": (1, 1), "pads": (1, 1, 1, 1)},
        ),
        Op("act", "Relu", ("c",), ("y",)),
    ]
    if quantized:
        tensors["w"] = Tensor("w", (4, 2, 3, 3), "float32")
        ops.insert(0, Op("dq", "DequantizeLinear", ("w8",), ("w",)))
    return Graph(tuple(ops), tensors, ("x",), ("y",))


def test_a_convolution_is_read_with_its_work_and_its_shape():
    conv, act = operators_of(convolution())
    assert conv == Operator(
        kind="Conv", macs=4 * 25 * 2 * 9, read=4 * 50, written=4 * 100, constant=4 * 72,
        kernel=9, groups=1, channels=2, filters=4, positions=25, rows=5, taps=13 * 13,
    )  # fmt: skip
    assert (act.macs, act.read, act.written) == (0, 400, 400)


def test_weights_that_are_only_dequantized_count_as_they_are_stored():
    _, conv, _ = operators_of(convolution(quantized=True))
    assert (conv.constant, conv.read) == (72, 200)


def separable():
    """A depthwise convolution and one of 1x1, in TFLite's words, and a fully connected layer."""
    sizes = {"x": (1, 4, 4, 8), "a": (1, 4, 4, 8), "b": (1, 4, 4, 6), "y": (1, 6)}
    tensors = {name: Tensor(name, size, "int8") for name, size in sizes.items()}
    weights = {"d": (1, 3, 3, 8), "p": (6, 1, 1, 8), "f": (6, 96)}
    tensors |= {name: constant(name, size, "int8", 1) for name, size in weights.items()}
    steps = {"StrideH": 1, "StrideW": 1}
    ops = (
        Op("deep", "DEPTHWISE_CONV_2D", ("x", "d"), ("a",), steps),
        Op("point", "CONV_2D", ("a", "p"), ("b",), steps),
        Op("dense", "FULLY_CONNECTED", ("b", "f"), ("y",)),
    )
    return Graph(ops, tensors, ("x",), ("y",))


def test_a_convolution_of_1x1_has_the_cost_that_xnnpack_gives_a_fully_connected_layer():
    names = ("Convolution (NHWC, QC8) DWConv", *["Fully Connected (NC, QS8, QC8W) GEMM"] * 2)
    times = Profiled(
        operators=tuple(
            ProfiledOperator(name="", op=name, values=(1000 * cost,) * 3)
            for name, cost in zip(names, (5, 7, 2), strict=True)
        ),
        resolution=1,
    )
    found = measured_file("a", separable(), times, "litert", 15.0)
    assert found.costs == (5.0, 7.0, 2.0)


def profiled(*operators, unit="ns"):
    scale = 1000 if unit == "ns" else 1
    rows = [{"name": name, "op": op, "values": [scale * us] * 3} for name, op, us in operators]
    return Profiled.model_validate({"operators": rows, "resolution": 1, "unit": unit})


def test_what_a_runtime_fused_counts_for_its_first_operator_and_what_it_added_apart():
    times = profiled(("ReorderInput", "ReorderInput", 2), ("act", "Conv", 30))
    file = measured_file("a", convolution(), times, "onnxruntime", 40.0)
    assert file.costs == (30.0, 0.0)
    assert file.added == 2.0
    assert file.whole == 40.0


def test_an_inference_has_the_instructions_of_all_its_operators():
    counted = profiled(("conv", "Conv", 900), ("act", "Relu", 100), unit="instructions")
    file = measured_file("a", convolution(), counted, "onnxruntime")
    assert (file.unit, file.costs, file.whole) == ("instructions", (900.0, 100.0), 1000.0)


def test_a_convolution_of_another_stride_belongs_to_another_group():
    graph = convolution()
    halved = replace(graph.ops[0], attributes={"group": 1, "strides": (2, 2)})
    (conv, _) = operators_of(replace(graph, ops=(halved, graph.ops[1])))
    assert conv.stride == 2
    assert groups_of([conv]) == [("Conv", "dense", "no blocks", "kernel 9", "stride 2")]
    whole = conv.model_copy(update={"channels": 32, "filters": 16})
    assert groups_of([whole]) == [("Conv", "dense", "blocks", "kernel 9", "stride 2")]


def test_taps_beside_the_image_are_left_out_also_where_an_operator_pads_it():
    """3x3 taps over 4x4 padded by 1 on each side, in steps of 2: two outputs a side, of which the
    first has 2 taps inside, the second 3."""
    tensors = {
        "x": Tensor("x", (1, 4, 4, 8), "int8"),
        "p": Tensor("p", (1, 6, 6, 8), "int8"),
        "w": constant("w", (1, 3, 3, 8), "int8", 1),
        "y": Tensor("y", (1, 2, 2, 8), "int8"),
    }
    ops = (
        Op("pad", "PAD", ("x",), ("p",)),
        Op("conv", "DEPTHWISE_CONV_2D", ("p", "w"), ("y",), {"StrideH": 2, "StrideW": 2}),
    )
    (_, conv) = operators_of(Graph(ops, tensors, ("x",), ("y",)))
    assert (conv.kernel, conv.stride, conv.groups, conv.channels) == (9, 2, 8, 1)
    assert (conv.positions, conv.rows, conv.taps) == (4, 2, 25)


def test_a_convolution_of_tflite_has_the_groups_that_its_weights_leave():
    tensors = {
        "x": Tensor("x", (1, 4, 4, 24), "int8"),
        "w": constant("w", (48, 1, 1, 8), "int8", 1),
        "y": Tensor("y", (1, 4, 4, 48), "int8"),
    }
    graph = Graph((Op("c", "CONV_2D", ("x", "w"), ("y",)),), tensors, ("x",), ("y",))
    (conv,) = operators_of(graph)
    assert (conv.groups, conv.channels, conv.filters) == (3, 8, 48)
    assert groups_of([conv])[0][1] == "grouped"


def test_the_facts_of_a_convolution_are_the_products_of_its_loops():
    conv, _ = operators_of(convolution())
    facts = loop_facts(conv).tolist()  # 25 positions in 5 rows, 4 filters, 18 products of each
    assert facts[:7] == [1, 25, 4, 100, 25 * 18, 4 * 18, 1800]
    assert facts[7:10] == [200, 400, 288]
    assert facts[10:15] == [25 * 4 * 24, 25 * 4 * 20, 25 * 16 * 18, 27 * 4 * 18, 27 * 4 * 24]
    assert facts[15:19] == [27, 27 * 18, 27 * 4, 27 * 4]  # in steps of three positions
    assert facts[19] == 25 * 18  # 18 values are no whole words
    assert facts[20:23] == [169, 169 * 2, 169 * 2 * 4]
    assert facts[23:] == [25 * 9 - 169, 5 * 6 * 4, 5, 5 * 4]


def counted_file(number, seed=0):
    """A file for a processor whose kernel takes two filters at once: 30 instructions a position,
    12 a position and pair of filters, and 5 for each product of a pair."""
    random = np.random.default_rng((seed, number))
    operators, counts = [], []
    for _ in range(3 + number % 4):
        channels, filters, positions = (int(v) for v in random.integers(3, 49, 3))
        operators.append(
            Operator(
                kind="CONV_2D", macs=channels * filters * positions * 9, read=channels * positions,
                written=filters * positions, constant=9 * channels * filters, kernel=9,
                channels=channels, filters=filters, positions=positions,
            )
        )  # fmt: skip
        pairs = -(-filters // 2)
        counts.append(positions * (30.0 + pairs * (12 + 5 * 9 * channels)))
    return MeasuredFile(
        sha256=str(number), operators=tuple(operators), costs=tuple(counts), added=0.0,
        whole=sum(counts), unit="instructions",
    )  # fmt: skip


def test_instructions_of_a_kernel_are_predicted_by_its_loops():
    model = fit_cost_model([counted_file(number) for number in range(12)])
    assert model.name.startswith("loops")
    assert model.usual_error < 0.03
    other = counted_file(6, seed=1)
    assert model.predict(other.operators) == pytest.approx(other.whole, rel=0.03)


def made_file(number, seed=0):
    """A file whose convolutions take 2 us and 1 ns for each 10 products, and an inference 0.9 of
    their sum and 1 us less for each of them."""
    random = np.random.default_rng((seed, number))
    operators, us = [], []
    for _ in range(3 + number % 4):
        channels, filters, positions = (int(v) for v in random.integers(8, 65, 3))
        macs = channels * filters * positions * 9
        operators += [
            Operator(
                kind="Conv", macs=macs, read=4 * channels * positions,
                written=4 * filters * positions, constant=36 * channels * filters, kernel=9,
                channels=channels, filters=filters, positions=positions,
            ),
            Operator(kind="Relu", macs=0, read=9, written=9, constant=0),
        ]  # fmt: skip
        us += [2.0 + macs / 1e4, 0.0]
    whole = 0.9 * sum(us) - len(us) / 2
    return MeasuredFile(
        sha256=str(number), operators=tuple(operators), costs=tuple(us), added=0.0, whole=whole
    )


def test_a_machine_that_follows_a_roofline_is_predicted_exactly():
    model = fit_cost_model([made_file(number) for number in range(12)])
    assert model.name in ("roofline", "loops")
    assert len(model.errors) == 12
    assert model.median_error < 1e-3
    other = made_file(5, seed=1)
    assert model.predict(other.operators) == pytest.approx(other.whole, rel=1e-3)
    assert model.costs(other.operators) == pytest.approx(np.array(other.costs), abs=0.05)


def test_what_no_roofline_tells_is_left_to_the_forest():
    def uneven(number):
        file = made_file(number)
        us = [
            value * (3.0 if operator.channels % 16 else 1.0)
            for operator, value in zip(file.operators, file.costs, strict=True)
        ]
        return file.model_copy(update={"costs": tuple(us), "whole": sum(us)})

    files = []
    for number in range(40):
        file = uneven(number)
        aligned = [
            operator.model_copy(update={"channels": 16 * (1 + operator.channels % 4)})
            if number % 2
            else operator
            for operator in file.operators
        ]
        rows = [(o.macs / 1e4 + 2) * (3.0 if o.channels % 16 else 1.0) if o.macs else 0.0
                for o in aligned]  # fmt: skip
        update = {"operators": tuple(aligned), "costs": tuple(rows), "whole": sum(rows)}
        files.append(file.model_copy(update=update))
    model = fit_cost_model(files)
    assert model.name == "roofline and forest"
    assert model.median_error < 0.15


def test_a_kind_that_was_never_measured_is_predicted_by_what_is_known_of_all():
    model = fit_cost_model([made_file(number) for number in range(12)])
    strange = Operator(kind="Strange", macs=10**6, read=4000, written=4000, constant=0)
    assert np.isfinite(model.predict([strange]))


def test_too_few_files_are_refused_with_the_command_that_measures_more():
    with pytest.raises(InputError, match="7 files were measured by operator") as caught:
        fit_cost_model([made_file(number) for number in range(7)])
    assert "--per-layer" in caught.value.hint
