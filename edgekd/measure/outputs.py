"""The several outputs of a file: which one the task reads, and what their parity is together."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from edgekd.measure.parity import Parity
from edgekd.values.artifact import Artifact
from edgekd.values.tree import OutputName, Tree, leaves, like


def tree_of_outputs(artifact: Artifact, arrays: Sequence[np.ndarray], form: Tree) -> Tree:
    """A file's outputs in the structure of `form`, or by the file's own names if that has another
    number of outputs."""
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    if len(leaves(form)) == len(tensors):
        return like(form, tensors)
    if len(tensors) == 1:
        return tensors[0]
    return {info.name: tensor for info, tensor in zip(artifact.outputs, tensors, strict=True)}


def main_output(names: Sequence[str], wanted: OutputName = None) -> int:
    """The position of the output that the task reads: the one it wants, by name or position, else
    "logits" where there is one, else the first."""
    if isinstance(wanted, int):
        return wanted % len(names)
    if wanted is not None and wanted in names:
        return list(names).index(wanted)
    return list(names).index("logits") if "logits" in names else 0


def joint_parity(outputs: Mapping[str, Parity], main: str) -> Parity:
    """The main output's parity, with every output's own in `outputs` if there are several. It
    fails if one of them fails, and names that one's fault."""
    parity = outputs[main]
    if len(outputs) == 1:
        return parity
    failed = [name for name, each in outputs.items() if each.verdict == "fail"]
    changes: dict[str, object] = {"outputs": dict(outputs)}
    if failed and parity.verdict == "pass":
        strayed = outputs[failed[0]]
        fault = strayed.first_difference or strayed.reason
        changes |= {"verdict": "fail", "first_difference": f"output '{failed[0]}': {fault}"}
    return parity.model_copy(update=changes)


def with_sizes(parity: Parity, sizes: Mapping[str, Parity]) -> Parity:
    """A parity with those at other sizes; it fails if one of them fails, and names that one's
    fault."""
    changes: dict[str, object] = {"sizes": dict(sizes)}
    failed = next((name for name, each in sizes.items() if each.verdict == "fail"), None)
    if failed and parity.verdict == "pass":
        fault = sizes[failed].first_difference or sizes[failed].reason
        changes |= {"verdict": "fail", "first_difference": f"at {failed}: {fault}"}
    return parity.model_copy(update=changes)
