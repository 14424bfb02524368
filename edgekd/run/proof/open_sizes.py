"""Parity of a file at other sizes that it leaves open: on the beginnings of the test samples."""

import torch

from edgekd.data.samples import Samples
from edgekd.measure.inference import infer_samples
from edgekd.measure.outputs import with_sizes
from edgekd.measure.parity import Parity
from edgekd.network.evaluation import predict
from edgekd.run.compiled import Compiled
from edgekd.run.plan import Plan
from edgekd.run.proof.parity_check import parity_of
from edgekd.run.proof.place import Place, options_for
from edgekd.values.artifact import Artifact
from edgekd.values.sizes import OpenSize
from edgekd.values.target import Target
from edgekd.values.tree import Tree, leaf_names, leaves, like

SAMPLES = 32
"""Test samples that are run at each other size."""


def parity_at_sizes(
    plan: Plan, target: Target, place: Place, each: Compiled, parity: Parity
) -> Parity:
    """The parity, with those at the smallest size and in the middle of each size that the file
    leaves open; the whole one is that at the samples' own sizes."""
    assert each.reference is not None
    sizes = plan.start.open
    if not sizes:
        return parity
    test, found = plan.data.test.some(SAMPLES), {}
    for size in sizes:
        if not is_open(each.artifact, size, test.x):
            continue
        assert size.max is not None
        for value in dict.fromkeys((size.min, (size.min + size.max) // 2)):
            short = Samples(shortened(test.x, size, value), test.y, task=test.task)
            outputs = infer_samples(
                place.device, each.artifact, short, options_for(target, each.artifact)
            )
            reference = predict(each.reference.module, short)
            given = (target, place, each, short, outputs, reference, plan.data.task)
            found[f"{size.name} {value}"] = parity_of(*given)
    return with_sizes(parity, found) if found else parity


def is_open(artifact: Artifact, size: OpenSize, example: Tree) -> bool:
    """Whether the file leaves this size open in every input that has it."""
    shapes = dict(zip(leaf_names(example), (info.shape for info in artifact.inputs), strict=True))
    return all(shapes[name][place] == -1 for name, place in size.inputs.items())


def shortened(x: Tree, size: OpenSize, value: int) -> Tree:
    """Inputs (N, ...) of which only the first `value` positions along this size are left."""
    names = leaf_names(x)
    return like(
        x, [_first(leaf, size, name, value) for name, leaf in zip(names, leaves(x), strict=True)]
    )


def _first(leaf: torch.Tensor, size: OpenSize, name: str, value: int) -> torch.Tensor:
    if name not in size.inputs:
        return leaf
    return leaf.narrow(size.inputs[name], 0, value).contiguous()
