"""A file's outputs held against its reference's, and what a difference is due to."""

from typing import Any

import numpy as np
import torch
from torch import fx, nn

from edgekd.data.tasks import Task
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.errors import EdgekdError
from edgekd.measure.divergence import divergence_of
from edgekd.measure.failures import attribute_failure
from edgekd.measure.parity import Parity, compare, rounding_adds_up
from edgekd.quant.export import export_graph
from edgekd.quant.export_check import check_exported
from edgekd.quant.inspection import output_scale
from edgekd.run.compiled import Compiled
from edgekd.run.proof.place import Place, options_for
from edgekd.values.target import Target

TOLERANCE = {
    "fp32": 1e-3, "fp16": 1e-2, "int8": 5e-2,
    "bf16": 1e-3, "int4": 5e-2, "ternary": 5e-2, "binary": 5e-2, "mixed": 5e-2,
    "clustered": 1e-3,
}  # fmt: skip
"""How far a file with float outputs may lie from its module, relative to the largest output; int8
ones have float outputs where the last layers stay in float, and rounding adds up before them. For
matrices of a few bits ONNX Runtime's MatMulNBits rounds the activations to int8 as well."""


def parity_of(
    target: Target,
    place: Place,
    each: Compiled,
    inputs: np.ndarray,
    outputs: np.ndarray,
    reference: np.ndarray,
    task: Task,
) -> Parity:
    """Compare outputs (N, ...) for inputs (N, ...) with those of the candidate in PyTorch.

    A file that fails has what is at fault named: its first layer, the export of the network, or the
    device that ran it. A quantized file whose rounding adds up beyond the tolerance passes, where
    no layer strays by itself.
    """
    artifact = each.artifact
    assert each.reference is not None
    quantized = artifact.precision == "int8"
    scale = _output_step(each) if quantized else None
    lsb = float(target.quantization.tolerance_lsb)
    tolerance = lsb if scale else TOLERANCE[artifact.precision]
    name = "the fake-quantized graph in PyTorch" if quantized else "the float module in PyTorch"
    parity = compare(reference, outputs, scale, tolerance, name)
    if task != CLASSIFICATION:
        agreement = float(task.agreement(_tensor(outputs), _tensor(reference)).double().mean())
        parity = parity.model_copy(update={"top1_agreement": agreement})
    if parity.verdict == "pass":
        return parity
    worst = inputs[parity.worst_sample : parity.worst_sample + 1]
    module = each.reference.module
    found: dict[str, Any] = {}
    if quantized:
        divergence = divergence_of(module, artifact, worst, TOLERANCE_OF_LAYERS)  # type: ignore[arg-type]
        found["first_difference"] = divergence.sentence
        if divergence.clean and rounding_adds_up(parity, reference, outputs):
            found["verdict"] = "pass"
    elif not isinstance(module, fx.GraphModule):
        found["first_difference"] = _export_fault(module, worst)
    parity = parity.model_copy(update=found)
    return attribute_failure(place.device, artifact, options_for(target, artifact), inputs, parity)


TOLERANCE_OF_LAYERS = 2.0
"""LSB by which one layer may differ on the same input."""


def _export_fault(module: nn.Module, worst: np.ndarray) -> str:
    """Which layer the export of a network got wrong, or that the file's compiler is at fault."""
    x = torch.from_numpy(worst)
    try:
        check_exported(export_graph(module, x), module, x, "")
    except EdgekdError as error:
        return error.message
    return "the exported graph computes what the network does, so the file's compiler changed it"


def _output_step(each: Compiled) -> float | None:
    """The step of the output's grid: the file's own, or the graph's last quantizer's."""
    assert each.reference is not None
    return each.artifact.outputs[0].scale or output_scale(each.reference.module)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
