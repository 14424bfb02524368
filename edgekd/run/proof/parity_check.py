"""Compares a file's outputs with its reference's, and finds what a difference is due to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from edgekd.data.samples import Samples
from edgekd.data.tasks import Task
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.errors import EdgekdError, ToolError
from edgekd.measure.divergence import Divergence, divergence_of
from edgekd.measure.failures import attribute_failure
from edgekd.measure.inference import arrays_of, infer_samples
from edgekd.measure.outputs import joint_parity, main_output
from edgekd.measure.parity import Parity, compare, rounding_adds_up
from edgekd.measure.rounding import is_rounding, spread_of
from edgekd.quant.export import export_graph
from edgekd.quant.export_check import check_exported
from edgekd.quant.inspection import output_scale
from edgekd.run.compiled import Compiled
from edgekd.run.proof.place import Place, options_for
from edgekd.values.artifact import IN_INTEGERS
from edgekd.values.target import Target
from edgekd.values.tree import Tree, concatenated, like, named_leaves

TOLERANCE = {
    "fp32": 1e-3, "fp16": 1e-2, "int8": 5e-2, "int16x8": 5e-2, "int8+int16": 5e-2,
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
    samples: Samples,
    outputs: Sequence[np.ndarray],
    reference: Tree,
    task: Task,
) -> Parity:
    """Compare every output (N, ...) for samples with the tree that the candidate in PyTorch gives,
    each on its own grid.

    A file that fails has what is at fault named: its first layer, the export of the network, or the
    device that ran it. A quantized file whose rounding adds up beyond the tolerance passes, where
    no layer strays by itself. Raises `ToolError` if the file has another number of outputs.
    """
    expected = named_leaves(reference, "output")
    if len(expected) != len(outputs):
        raise ToolError(
            f"the file has {len(outputs)} outputs, its reference {len(expected)}",
            where=str(each.artifact.path),
            allowed=", ".join(expected),
        )
    main = list(expected)[main_output(list(expected), task.output)]
    found = {}
    for index, (name, values) in enumerate(expected.items()):
        parity = _compared(target, each, outputs[index], values, index)
        if name == main and task != CLASSIFICATION:
            mine = like(reference, [_tensor(array) for array in outputs])
            agreement = float(task.agreement(task.main(mine), task.main(reference)).mean())
            parity = parity.model_copy(update={"top1_agreement": agreement})
        if parity.verdict == "fail":
            output = _Output(index, outputs[index], values)
            parity = _explained(target, place, each, samples, output, parity)
        found[name] = parity
    return joint_parity(found, main)


CHANGED = {"fp16": 1e-2, "int8": 0.25, "int16x8": 0.25, "int8+int16": 0.25, "int4": 0.5}
"""How far a quantized file may lie from the file that it was made of, relative to the largest
output: what quantization changes is in it, so this finds a file that computes something else."""


def parity_with_original(
    each: Compiled, outputs: Sequence[np.ndarray], originals: Sequence[np.ndarray], task: Task
) -> Parity:
    """Compare every output (N, ...) of a file with those of the file that it was made of."""
    names = [info.name for info in each.artifact.outputs]
    tolerance = CHANGED.get(each.artifact.precision, max(CHANGED.values()))
    found = {
        name: compare(expected, values, None, tolerance, ORIGINAL)
        for name, values, expected in zip(names, outputs, originals, strict=True)
    }
    return joint_parity(found, names[main_output(names, task.output)])


ORIGINAL = "the original file, which was not quantized"


@dataclass(frozen=True, eq=False)
class _Output:
    """One output of a file, at that position, and the reference's."""

    index: int
    found: np.ndarray
    expected: torch.Tensor


def _compared(
    target: Target, each: Compiled, found: np.ndarray, expected: torch.Tensor, index: int
) -> Parity:
    """One output compared with the reference's, in steps of its grid if it has one."""
    precision = each.artifact.precision
    quantized = precision in IN_INTEGERS
    scale = _output_step(each, index) if quantized else None
    tolerance = float(target.quantization.tolerance_lsb) if scale else TOLERANCE[precision]
    name = "the fake-quantized graph in PyTorch" if quantized else "the float module in PyTorch"
    return compare(expected, found, scale, tolerance, name)


def _explained(
    target: Target,
    place: Place,
    each: Compiled,
    samples: Samples,
    output: "_Output",
    parity: Parity,
) -> Parity:
    """A failed parity with its cause, or passed where rounding alone adds up."""
    artifact = each.artifact
    assert each.reference is not None
    worst = samples.take(torch.tensor([parity.worst_sample])).x
    module = each.reference.module
    found: dict[str, Any] = {}
    if artifact.precision in IN_INTEGERS:
        divergence = divergence_of(module, artifact, worst, TOLERANCE_OF_LAYERS)  # type: ignore[arg-type]
        if each.source is not None and not divergence.shares:
            divergence = _of_source(target, place, each, samples, output, divergence)
        found["first_difference"] = divergence.sentence
        if divergence.clean and (
            rounding_adds_up(parity, output.expected, output.found)
            or _is_explained(each, divergence, samples, output, parity)
        ):
            found["verdict"] = "pass"
    elif not isinstance(module, fx.GraphModule):
        found["first_difference"] = _export_fault(module, worst)
    parity = parity.model_copy(update=found)
    options = options_for(target, artifact)
    arrays = arrays_of(worst)
    return attribute_failure(place.device, artifact, options, arrays, parity, output.index)


def _of_source(
    target: Target,
    place: Place,
    each: Compiled,
    samples: Samples,
    output: "_Output",
    unknown: Divergence,
) -> Divergence:
    """Where a file does not show its layers: what those of the file that it was made of say, if
    both give the same outputs to a step."""
    source, module = each.source, each.reference.module if each.reference else None
    if source is None or not isinstance(module, fx.GraphModule) or place.device.can_run(source):
        return unknown
    given = infer_samples(place.device, source, samples, options_for(target, source))
    step = _output_step(each, output.index)
    if step is None or np.abs(given[output.index] - output.found).max() > 1.01 * step:
        return unknown
    off = np.abs(given[output.index] - output.expected.numpy()).reshape(len(output.found), -1)
    worst = samples.take(torch.tensor([int(off.max(1).argmax())])).x
    found = divergence_of(module, source, worst, TOLERANCE_OF_LAYERS)
    same = f"it gives what {source.path.name} gives, to a step: {found.sentence}"
    return replace(found, sentence=same)


_SIMULATED = 16
"""Samples on which the effect of rounding is measured."""


def _is_explained(
    each: Compiled,
    divergence: Divergence,
    samples: Samples,
    output: "_Output",
    parity: Parity,
) -> bool:
    """Whether steps of one in the layers, as often as they were seen, move the output as far."""
    assert each.reference is not None
    graph, infos = each.reference.module, each.artifact.outputs
    if not isinstance(graph, fx.GraphModule):
        return False
    is_fine = output.index < len(infos) and infos[output.index].dtype == "int16"
    some = samples.some(_SIMULATED).x
    worst = samples.take(torch.tensor([parity.worst_sample])).x
    inputs = concatenated([some, worst])
    spread = spread_of(graph, divergence.shares, inputs, output.index)
    step = parity.scale if is_fine and parity.scale else 0.0
    return is_rounding(spread, output.expected.numpy(), output.found, step)


TOLERANCE_OF_LAYERS = 2.0
"""LSB by which one layer may differ on the same input."""


def _export_fault(module: nn.Module, worst: Tree) -> str:
    """Which layer the export of a network got wrong, or that the file's compiler is at fault."""
    try:
        check_exported(export_graph(module, worst), module, worst, "")
    except EdgekdError as error:
        return error.message
    return "the exported graph computes what the network does, so the file's compiler changed it"


def _output_step(each: Compiled, index: int) -> float | None:
    """The step of an output's grid: the file's own, or the graph's last quantizer's."""
    assert each.reference is not None
    infos = each.artifact.outputs
    own = infos[index].scale if index < len(infos) else None
    return own or output_scale(each.reference.module, index)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
