"""Operators that compute each element by itself."""

import operator as python
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgekd.network.onnx_module.table import Node, Value, operator
from edgekd.network.onnx_module.values import is_sizes, numbers, tensor

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": functional.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Abs": torch.abs,
    "Exp": torch.exp, "Log": torch.log, "Sqrt": torch.sqrt, "Neg": torch.neg,
    "Reciprocal": torch.reciprocal, "Floor": torch.floor, "Ceil": torch.ceil,
    "Round": torch.round, "Erf": torch.erf, "Sin": torch.sin, "Cos": torch.cos,
    "Sign": torch.sign, "Softplus": functional.softplus, "Softsign": functional.softsign,
    "Mish": functional.mish, "HardSwish": functional.hardswish, "Not": torch.logical_not,
    "IsNaN": torch.isnan, "IsInf": torch.isinf, "Atan": torch.atan, "Tan": torch.tan,
}  # fmt: skip

BINARY: dict[str, tuple[Callable[..., Tensor], Callable[..., Any]]] = {
    "Add": (torch.add, python.add), "Sub": (torch.sub, python.sub),
    "Mul": (torch.mul, python.mul), "Equal": (torch.eq, python.eq),
    "Greater": (torch.gt, python.gt), "GreaterOrEqual": (torch.ge, python.ge),
    "Less": (torch.lt, python.lt), "LessOrEqual": (torch.le, python.le),
    "And": (torch.logical_and, np.logical_and), "Or": (torch.logical_or, np.logical_or),
    "Xor": (torch.logical_xor, np.logical_xor),
}  # fmt: skip
"""Operators of two tensors, and of two lists of sizes."""


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Value]:
    return lambda node, x: function(tensor(x))


def _binary(function: Callable[..., Tensor], of_sizes: Callable[..., Any]) -> Callable[..., Value]:
    def compute(node: Node, a: Value, b: Value) -> Value:
        if is_sizes(a) and is_sizes(b):
            return np.asarray(of_sizes(a, b))
        return function(tensor(a), tensor(b))

    return compute


for _name, _function in UNARY.items():
    operator(_name)(_unary(_function))
for _name, _pair in BINARY.items():
    operator(_name)(_binary(*_pair))


@operator("Div")
def _divide(node: Node, a: Value, b: Value) -> Value:
    if is_sizes(a) and is_sizes(b):
        return np.asarray(a // b)
    a, b = tensor(a), tensor(b)
    whole = not a.is_floating_point() and not b.is_floating_point()
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


@operator("Mod")
def _modulo(node: Node, a: Value, b: Value) -> Value:
    if is_sizes(a) and is_sizes(b):
        return np.asarray(a % b)
    function = torch.fmod if node.get("fmod", 0) else torch.remainder
    return function(tensor(a), tensor(b))


@operator("Pow")
def _power(node: Node, x: Value, exponent: Value) -> Value:
    x, exponent = tensor(x), tensor(exponent)
    return torch.pow(x, exponent).to(x.dtype)


@operator("Min", "Max", "Sum", "Mean")
def _several(node: Node, *values: Value) -> Value:
    parts = [tensor(value) for value in values]
    functions: dict[str, Any] = {
        "Min": torch.minimum,
        "Max": torch.maximum,
        "Sum": torch.add,
        "Mean": torch.add,
    }
    total = parts[0]
    for part in parts[1:]:
        total = functions[node.op](total, part)
    return total / len(parts) if node.op == "Mean" else total


@operator("Where")
def _where(node: Node, condition: Value, a: Value, b: Value) -> Value:
    if is_sizes(condition) and is_sizes(a) and is_sizes(b):
        return np.where(condition.astype(bool), a, b)
    return torch.where(tensor(condition).bool(), tensor(a), tensor(b))


@operator("Clip")
def _clip(node: Node, x: Value, low: Value = None, high: Value = None) -> Value:
    least = node.get("min") if low is None else numbers(low)[0]
    most = node.get("max") if high is None else numbers(high)[0]
    if (least, most) == (0.0, 6.0):
        return functional.relu6(x)
    return x if least is None and most is None else torch.clamp(x, least, most)


@operator("LeakyRelu")
def _leaky_relu(node: Node, x: Value) -> Value:
    return functional.leaky_relu(x, node.get("alpha", 0.01))


@operator("Elu")
def _elu(node: Node, x: Value) -> Value:
    return functional.elu(x, node.get("alpha", 1.0))


@operator("Selu")
def _selu(node: Node, x: Value) -> Value:
    return functional.selu(x)


@operator("HardSigmoid")
def _hard_sigmoid(node: Node, x: Value) -> Value:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-4 and beta == 0.5:
        return functional.hardsigmoid(x)
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


@operator("Gelu")
def _gelu(node: Node, x: Value) -> Value:
    return functional.gelu(x, approximate=_text(node.get("approximate", "none")))


@operator("PRelu")
def _prelu(node: Node, x: Value, slope: Value) -> Value:
    return torch.where(x < 0, x * slope, x)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
