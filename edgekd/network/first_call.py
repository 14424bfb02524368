"""The first call of a network on samples, where it shows whether they fit together."""

from collections.abc import Mapping

import torch
from torch import nn

from edgekd.data.samples import Data
from edgekd.errors import InputError, first_line
from edgekd.network.calling import input_fault, lone_parameter, unnamed_inputs, untaken
from edgekd.network.index_limits import lookup_fault
from edgekd.network.longest import length_fault
from edgekd.values.tree import Tree, described, leaves


def first_outputs(module: nn.Module, x: Tree, data: Data, where: str, name: str) -> Tree:
    """The outputs for the first training samples (B, ...) of `data`, without gradients.

    `InputError` says which input the network does not take, which id is beyond its table, how long
    a sequence may be, or how it fails. The trained model has to use every input; a student or
    another teacher may ignore what its `**kwargs` take, as a DistilBERT ignores the token types of
    its teacher, a BERT.
    """
    fault = input_fault(module, x, where)
    if fault is not None:
        raise fault
    foreign = unnamed_inputs(module, x)
    try:
        with torch.no_grad():
            outputs = module(x)
    except InputError:
        raise
    except Exception as error:  # whatever the user's own forward raises
        if foreign:
            raise untaken(module, foreign[0], where) from error
        source = f"data '{data.name}': train"
        fault = lookup_fault(module, x, data.train.rows, source)
        raise (
            fault
            or length_fault(module, x, data.train.rows, source)
            or InputError(
                f"{name} fails on samples of shape {described(x)}: {first_line(error)}",
                where=where,
                hint=_hint(module, x, data),
            )
        ) from error
    for each in foreign if where == "model" else ():
        if _ignores(module, x, each, outputs):
            raise untaken(module, each, where)
    return outputs


def _ignores(module: nn.Module, x: Mapping[str, Tree], name: str, outputs: Tree) -> bool:
    """Whether the outputs are the same without that input."""
    try:
        with torch.no_grad():
            without = module({each: value for each, value in x.items() if each != name})
    except Exception:
        return False
    pairs = zip(leaves(outputs), leaves(without), strict=False)
    return all(a.shape == b.shape and bool(torch.equal(a, b)) for a, b in pairs)


def _hint(module: nn.Module, x: Tree, data: Data) -> str:
    """What to do about samples that don't fit."""
    lone = lone_parameter(module)
    if isinstance(x, Mapping) and lone and lone not in x:
        return f"forward() takes one input: name it '{lone}', or give each sample as (input, label)"
    return f"does it accept the inputs of '{data.name}'?"
