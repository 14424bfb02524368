"""The module that runs a converted file: its operators in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.network.onnx_module.table import OPERATORS, Node
from edgekd.network.onnx_module.values import tensor
from edgekd.values.tree import Tree, named_leaves


@dataclass(frozen=True)
class Step:
    """One operator: the layer's path, or empty for a function; its inputs and outputs by name."""

    node: Node
    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class OnnxModule(nn.Module):
    """An ONNX file in PyTorch.

    Takes the tree of its inputs (by name, or in the file's order), gives its output, or a dict of
    its outputs by name.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        constants: Mapping[str, Tensor | np.ndarray],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.input_names = tuple(inputs)
        self.output_names = tuple(outputs)
        self._sizes = {k: v for k, v in constants.items() if isinstance(v, np.ndarray)}
        self._buffers_of: dict[str, str] = {}
        for number, (name, value) in enumerate(constants.items()):
            if isinstance(value, Tensor):
                self._buffers_of[name] = f"constant_{number}"
                self.register_buffer(f"constant_{number}", value)
        self._done = _last_uses(self.steps, self.output_names)

    def forward(self, tree_of_inputs: Tree) -> Tree:
        values = self._values_of(tree_of_inputs)
        for number, step in enumerate(self.steps):
            arguments = [self._value(values, name) for name in step.inputs]
            if step.layer:
                found = self.get_submodule(step.layer)(*(each for each in arguments))
            else:
                found = OPERATORS[step.node.op](step.node, *arguments)
            outputs = found if isinstance(found, tuple | list) else (found,)
            values.update(zip(step.outputs, outputs, strict=False))
            for name in self._done[number]:
                values.pop(name, None)
        results = {name: tensor(self._value(values, name)) for name in self.output_names}
        return next(iter(results.values())) if len(results) == 1 else results

    def _values_of(self, tree: Tree) -> dict[str, Any]:
        given = named_leaves(tree)
        if set(given) == set(self.input_names):
            return dict(given)
        return dict(zip(self.input_names, given.values(), strict=True))

    def _value(self, values: dict[str, Any], name: str) -> Any:
        if not name:
            return None
        if name in values:
            return values[name]
        if name in self._sizes:
            return self._sizes[name]
        return getattr(self, self._buffers_of[name])


def _last_uses(steps: Sequence[Step], outputs: Sequence[str]) -> list[list[str]]:
    """The values that nothing reads after each step."""
    last = {name: number for number, step in enumerate(steps) for name in step.inputs}
    done: list[list[str]] = [[] for _ in steps]
    for name, number in last.items():
        if name and name not in outputs:
            done[number].append(name)
    return done


def place_module(root: nn.Module, path: str, module: nn.Module) -> str:
    """Add a module at a dotted path, which is changed where it is taken; returns the path."""
    *folders, last = path.split(".")
    holder, taken = root, []
    for folder in folders:
        child = holder._modules.get(folder)
        if type(child) is not nn.Module:
            if child is not None or hasattr(holder, folder):
                folder += "_"
            child = holder._modules.get(folder) or nn.Module()
            holder.add_module(folder, child)
        holder = child
        taken.append(folder)
    while hasattr(holder, last):
        last += "_"
    holder.add_module(last, module)
    return ".".join([*taken, last])


def run_constant(node: Node, values: Sequence[Any]) -> tuple[Any, ...]:
    """What an operator gives for constants."""
    with torch.no_grad():
        found = OPERATORS[node.op](node, *values)
    return tuple(found) if isinstance(found, tuple | list) else (found,)
