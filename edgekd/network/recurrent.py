"""The recurrent layers of a network, and how many steps they run."""

from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from edgekd.network.evaluation import evaluating
from edgekd.values.tree import Tree

LONG = 128
"""The steps from which a note says what an unrolled layer costs."""

STEP_KB = 4
"""What each step of each direction adds to an int8 TFLite file, measured on an LSTM."""


def packed_layer(module: nn.Module, example: Tree) -> str:
    """The name of a recurrent layer that reads a packed sequence; "" if there is none."""
    inputs = _inputs_of(module, example)
    return next((name for name, x in inputs.items() if isinstance(x, PackedSequence)), "")


def recurrent_steps(module: nn.Module, example: Tree) -> dict[str, int]:
    """The number of steps that each recurrent layer runs for an example, in all directions and
    layers of a stack."""
    steps = {}
    for name, x in _inputs_of(module, example).items():
        part: Any = module.get_submodule(name)
        if not isinstance(x, PackedSequence):
            length = x.shape[1 if part.batch_first and x.dim() == 3 else 0]
            steps[name] = int(length) * part.num_layers * (1 + part.bidirectional)
    return steps


def unrolling_notes(module: nn.Module, example: Tree) -> list[str]:
    """What the plan says of each recurrent layer."""
    notes = []
    for name, steps in recurrent_steps(module, example).items():
        note = (
            f"recurrent layer '{name}' is unrolled to {steps} steps, except in float ONNX files: "
            "the files take sequences of this length only"
        )
        if steps > LONG:
            note += (
                f"; that is long: about {STEP_KB * steps:,} kB of operators in a TFLite file, and "
                "slower than the float kernel of ONNX Runtime. A cell with its state as input and "
                "output needs one step"
            )
        notes.append(note)
    return notes


def _inputs_of(module: nn.Module, example: Tree) -> dict[str, Any]:
    """The input of each recurrent layer in a run, by the layer's name."""
    inputs: dict[str, Any] = {}

    def watched(name: str) -> Any:
        def see(_part: nn.Module, arguments: tuple[Any, ...]) -> None:
            inputs.setdefault(name, arguments[0])

        return see

    parts = [(n, part) for n, part in module.named_modules() if isinstance(part, nn.RNNBase)]
    if not parts:
        return {}
    handles = [part.register_forward_pre_hook(watched(name)) for name, part in parts]
    try:
        with evaluating(module), torch.no_grad(), suppress(Exception):
            module(example)
    finally:
        for handle in handles:
            handle.remove()
    return inputs
