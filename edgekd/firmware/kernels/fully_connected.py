"""FULLY_CONNECTED: one multiplier for all outputs, or one per output.

The micro runtime and CMSIS-NN rescale in fixed point. LiteRT's reference kernel has rescaled in
double since 2.x, which differs by one step in about one of six hundred outputs. Both are available.
"""

import numpy as np

from edgekd.firmware.accumulator import (
    bias_of,
    bias_table,
    channel_multipliers,
    check_sums,
    limits,
    requantization,
    shared_multiplier,
    weights_of,
)
from edgekd.firmware.graph import Array, Node
from edgekd.firmware.kernels.batch_matmul import product
from edgekd.firmware.step import Step, Table, about, weights_table


def lower(node: Node) -> list[Step]:
    """One call; weights (outputs, inputs), where every dimension before the last is a row."""
    source, output = node.computed(0), node.output
    if len(node.inputs) > 1 and node.inputs[1] is not None and node.inputs[1].values is None:
        return [_of_computed_weights(node)]
    shape = node.constant(1, "int8").shape
    if len(shape) != 2 or node.option("WeightsFormat") != 0:
        raise node.refuse(f"weights of shape {shape}, or not in the default format")
    outputs, inputs = shape
    rows = source.elements // inputs
    if rows * inputs != source.elements or rows * outputs != output.elements:
        raise node.refuse(f"weights of shape {shape} for {source.shape} -> {output.shape}")
    if output.shape[-1] != outputs:
        raise node.refuse(f"an output of shape {output.shape} for {outputs} outputs")
    weights, bias = weights_of(node, 0, outputs), bias_of(node, outputs)
    assert weights.values is not None
    check_sums(node, source, weights.values, bias)
    per_output = len(weights.scales) > 1
    kernel, rescaling = _rescaling(node, source, weights, per_output)
    return [
        Step(
            kernel,
            {
                "weights": weights_table(weights),
                "bias": bias_table(node, bias),
                **rescaling,
                "rows": rows,
                "inputs": inputs,
                "outputs": outputs,
                "step": int(per_output),
                "input_offset": -source.zero_point,
                "output_offset": output.zero_point,
                **limits(node),
            },
            (source,),
            output,
            about(node, source),
            needs=("requantize", "dot"),
        )
    ]


def _of_computed_weights(node: Node) -> Step:
    """The product of two computed tensors, which a converter may write in this way."""
    source, weights = node.computed(0), node.computed(1)
    if len(weights.shape) != 2 or any(one is not None for one in node.inputs[2:]):
        raise node.refuse(f"computed weights of shape {weights.shape}, or with a bias")
    if node.option("WeightsFormat") != 0 or node.option("FusedActivationFunction") != 0:
        raise node.refuse("computed weights in another format, or a fused activation")
    outputs, inputs = weights.shape
    rows = source.elements // inputs
    if rows * inputs != source.elements or rows * outputs != node.output.elements:
        raise node.refuse(f"weights of shape {weights.shape} for {source.shape}")
    return product(node, ((rows, inputs), weights.shape, (rows, outputs)), (False, True))


def _rescaling(
    node: Node, source: Array, weights: Array, per_output: bool
) -> tuple[str, dict[str, Table]]:
    """The kernel, and the multipliers for its sums."""
    outputs = len(weights.scales)
    if node.options.get("Arithmetic") == "litert":
        reals = channel_multipliers(node, source, weights, outputs)
        scale = Table(np.asarray(reals, np.float64), (node.where, "scale"))
        return "fully_connected_double", {"scale": scale}
    if per_output:
        reals = channel_multipliers(node, source, weights, outputs)
        return "fully_connected", requantization(node, reals)
    return "fully_connected", requantization(
        node, [shared_multiplier(source, weights, node.output)]
    )


OPERATORS = {"FULLY_CONNECTED": lower}
