"""Operators with constant weights as PyTorch's layers, which stages know by their kind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.network.onnx_module.images import padding, text
from edgekd.network.onnx_module.table import Node

Constants = Sequence[Tensor | None]
"""A node's inputs that are constant; None for each that is computed or left out."""


@dataclass(frozen=True)
class Layer:
    """A layer, and the positions of the node's inputs that it is called with."""

    module: nn.Module
    inputs: tuple[int, ...] = (0,)


CONVOLUTIONS: Mapping[int, type[nn.Module]] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
TRANSPOSED: Mapping[int, type[nn.Module]] = {
    3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d,
}  # fmt: skip
NORMS: Mapping[int, type[nn.Module]] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d,
                                        5: nn.BatchNorm3d}  # fmt: skip


def _filled(module: nn.Module, **values: Tensor | None) -> nn.Module:
    state = {name: value for name, value in values.items() if value is not None}
    module.load_state_dict(state, strict=False)
    return module


def _convolution(node: Node, constants: Constants, rank: int | None) -> Layer | None:
    weight, bias = constants[1], _at(constants, 2)
    if weight is None or text(node.get("auto_pad", "NOTSET")) not in ("NOTSET", "VALID", ""):
        return None
    kernel = list(weight.shape[2:])
    before, behind = padding(node, [0] * len(kernel), kernel)
    if before != behind or weight.dim() not in CONVOLUTIONS:
        return None
    groups = node.get("group", 1)
    strides, dilations = (node.get(k) or [1] * len(kernel) for k in ("strides", "dilations"))
    made: Any = CONVOLUTIONS[weight.dim()]
    layer = made(
        weight.shape[1] * groups, weight.shape[0], kernel, tuple(strides), tuple(before),
        tuple(dilations), groups, bias is not None,
    )  # fmt: skip
    return Layer(_filled(layer, weight=weight, bias=bias))


def _transposed(node: Node, constants: Constants, rank: int | None) -> Layer | None:
    weight, bias = constants[1], _at(constants, 2)
    if weight is None or text(node.get("auto_pad", "NOTSET")) != "NOTSET":
        return None
    size = weight.dim() - 2
    pads = node.get("pads") or [0] * 2 * size
    if pads[:size] != pads[size:] or node.get("output_shape") or weight.dim() not in TRANSPOSED:
        return None
    groups = node.get("group", 1)
    strides, dilations = (node.get(k) or [1] * size for k in ("strides", "dilations"))
    made: Any = TRANSPOSED[weight.dim()]
    layer = made(
        weight.shape[0], weight.shape[1] * groups, list(weight.shape[2:]), tuple(strides),
        tuple(pads[:size]), tuple(node.get("output_padding") or [0] * size), groups,
        bias is not None, tuple(dilations),
    )  # fmt: skip
    return Layer(_filled(layer, weight=weight, bias=bias))


def _linear(node: Node, constants: Constants, rank: int | None) -> Layer | None:
    """Gemm with constant weights."""
    weight, bias = constants[1], _at(constants, 2)
    computed = len(constants) > 2 and constants[2] is None
    if weight is None or weight.dim() != 2 or node.get("transA", 0) or computed:
        return None
    weight = (weight if node.get("transB", 0) else weight.T) * node.get("alpha", 1.0)
    if bias is not None:
        bias = (bias * node.get("beta", 1.0)).reshape(-1)
        bias = bias.expand(len(weight)) if len(bias) == 1 else bias
        if len(bias) != len(weight):
            return None
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    return Layer(_filled(layer, weight=weight.contiguous(), bias=bias))


def _product(node: Node, constants: Constants, rank: int | None) -> Layer | None:
    """MatMul with a constant matrix, and the vector of an Add that was joined to it."""
    weight, bias = constants[1], _at(constants, 2)
    if weight is None or weight.dim() != 2:
        return None
    layer = nn.Linear(weight.shape[0], weight.shape[1], bias is not None)
    return Layer(_filled(layer, weight=weight.T.contiguous(), bias=bias))


def _batch_norm(node: Node, constants: Constants, rank: int | None) -> Layer | None:
    weight, bias, mean, variance = constants[1:5]
    if weight is None or bias is None or mean is None or variance is None or rank is None:
        return None
    if rank not in NORMS:
        return None
    made: Any = NORMS[rank]
    layer = made(len(weight), eps=node.get("epsilon", 1e-5))
    return Layer(_filled(layer, weight=weight, bias=bias, running_mean=mean, running_var=variance))


def _layer_norm(node: Node, constants: Constants, rank: int | None) -> Layer | None:
    weight, bias = constants[1], _at(constants, 2)
    if weight is None or weight.dim() != 1 or node.get("axis", -1) not in (-1, (rank or 0) - 1):
        return None
    layer = nn.LayerNorm(len(weight), node.get("epsilon", 1e-5), bias=bias is not None)
    return Layer(_filled(layer, weight=weight, bias=bias))


def _embedding(node: Node, constants: Constants, rank: int | None) -> Layer | None:
    table = constants[0]
    if table is None or table.dim() != 2 or node.get("axis", 0) or constants[1] is not None:
        return None
    if not table.is_floating_point():
        return None
    return Layer(_filled(nn.Embedding(*table.shape), weight=table), (1,))


def _prelu(node: Node, constants: Constants, rank: int | None) -> Layer | None:
    slope = constants[1]
    if slope is None or max(slope.shape, default=1) != slope.numel():
        return None
    return Layer(_filled(nn.PReLU(slope.numel()), weight=slope.reshape(-1)))


class Recurrent(nn.Module):
    """An LSTM or GRU with ONNX's order of dimensions.

    Inputs (T, N, I), states (directions, N, H); outputs (T, directions, N, H) and the last states.
    """

    def __init__(self, inner: nn.RNNBase) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        count = 2 if self.inner.bidirectional else 1
        start: Any = None
        if states:
            start = states if isinstance(self.inner, nn.LSTM) else states[0]
        out, last = self.inner(x, start)
        split = out.reshape(*out.shape[:2], count, -1).transpose(1, 2)
        return (split, *last) if isinstance(last, tuple) else (split, last)


GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}
"""ONNX's position of each of PyTorch's gates: i, f, g, o and r, z, n."""


def _recurrent(node: Node, constants: Constants, rank: int | None) -> Layer | None:
    weight, other, bias = constants[1], constants[2], _at(constants, 3)
    sequence, peephole = _at(constants, 4), _at(constants, 7)
    usual = not node.get("activations") or _usual(node)
    if weight is None or other is None or sequence is not None or peephole is not None:
        return None
    reset = node.op == "GRU" and not node.get("linear_before_reset", 0)
    forward = text(node.get("direction", "forward"))
    if reset or not usual or node.get("layout", 0) or node.get("clip") or forward == "reverse":
        return None
    hidden = node.get("hidden_size")
    made: Any = nn.LSTM if node.op == "LSTM" else nn.GRU
    inner = made(weight.shape[2], hidden, bias=bias is not None, bidirectional=len(weight) == 2)
    state: dict[str, Tensor] = {}
    for direction, suffix in enumerate(("", "_reverse")[: len(weight)]):
        state[f"weight_ih_l0{suffix}"] = _gates(node.op, weight[direction], hidden)
        state[f"weight_hh_l0{suffix}"] = _gates(node.op, other[direction], hidden)
        if bias is not None:
            own, back = bias[direction].chunk(2)
            state[f"bias_ih_l0{suffix}"] = _gates(node.op, own, hidden)
            state[f"bias_hh_l0{suffix}"] = _gates(node.op, back, hidden)
    inner.load_state_dict(state)
    return Layer(Recurrent(inner), (0, 5, 6) if node.op == "LSTM" else (0, 5))


def _usual(node: Node) -> bool:
    names = [text(name) for name in node.get("activations")]
    each = ["Sigmoid", "Tanh", "Tanh"] if node.op == "LSTM" else ["Sigmoid", "Tanh"]
    return names == each * (len(names) // len(each))


def _gates(op: str, stacked: Tensor, hidden: int) -> Tensor:
    parts = torch.split(stacked, hidden)
    return torch.cat([parts[place] for place in GATES[op]])


def _at(constants: Constants, index: int) -> Tensor | None:
    return constants[index] if index < len(constants) else None


LAYERS: dict[str, Callable[[Node, Constants, int | None], Layer | None]] = {
    "Conv": _convolution, "ConvTranspose": _transposed, "Gemm": _linear, "MatMul": _product,
    "BatchNormalization": _batch_norm, "LayerNormalization": _layer_norm, "Gather": _embedding,
    "PRelu": _prelu, "LSTM": _recurrent, "GRU": _recurrent,
}  # fmt: skip
"""How a node becomes a layer, given its constants and the rank of its input; None where it can't
and is computed as a function, if there is one."""
