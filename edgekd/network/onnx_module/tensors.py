"""Products, reductions, norms and look-ups of whole tensors."""

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from edgekd.network.onnx_module.table import Node, Value, operator
from edgekd.network.onnx_module.values import integer, integers, is_sizes, size, tensor


@operator("MatMul")
def _matmul(node: Node, a: Value, b: Value) -> Value:
    return tensor(a) @ tensor(b)


@operator("Gemm")
def _gemm(node: Node, a: Value, b: Value, c: Value = None) -> Value:
    left = a.transpose(0, 1) if node.get("transA", 0) else a
    right = b.transpose(0, 1) if node.get("transB", 0) else b
    product = node.get("alpha", 1.0) * (left @ right)
    return product if c is None else product + node.get("beta", 1.0) * c


@operator("Einsum")
def _einsum(node: Node, *values: Value) -> Value:
    equation = node.get("equation")
    return torch.einsum(equation.decode() if isinstance(equation, bytes) else equation, *values)


REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2",
              "ReduceL1", "ReduceSumSquare", "ReduceLogSumExp")  # fmt: skip


@operator(*REDUCTIONS)
def _reduce(node: Node, x: Value, axes: Value = None) -> Value:
    if is_sizes(x):
        functions: dict[str, Any] = {"ReduceProd": math.prod, "ReduceSum": sum, "ReduceMax": max,
                                     "ReduceMin": min}  # fmt: skip
        found = functions[node.op](integers(x))
        return size(found) if not node.get("keepdims", 1) else np.asarray([found])
    places = integers(axes) if axes is not None else list(node.get("axes") or ())
    if not places:
        if node.get("noop_with_empty_axes", 0):
            return x
        places = list(range(x.dim()))
    return _reduced(node.op, x, places, bool(node.get("keepdims", 1)))


def _reduced(op: str, x: Any, axes: list[int], keep: bool) -> Any:
    if op == "ReduceProd":
        for axis in sorted((each % x.dim() for each in axes), reverse=True):
            x = x.prod(axis, keepdim=keep)
        return x
    if op == "ReduceL2":
        return torch.linalg.vector_norm(x, 2, axes, keep)
    functions: dict[str, Any] = {
        "ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax,
        "ReduceMin": torch.amin, "ReduceLogSumExp": torch.logsumexp,
        "ReduceL1": lambda v, *rest: torch.sum(v.abs(), *rest),
        "ReduceSumSquare": lambda v, *rest: torch.sum(v * v, *rest),
    }  # fmt: skip
    return functions[op](x, axes, keep)


@operator("Softmax", "LogSoftmax")
def _softmax(node: Node, x: Value) -> Value:
    function = functional.softmax if node.op == "Softmax" else functional.log_softmax
    if node.opset >= 13:
        return function(x, node.get("axis", -1))
    axis = node.get("axis", 1) % x.dim()
    if axis == x.dim() - 1:
        return function(x, -1)
    return function(x.flatten(axis), -1).reshape(x.shape)


@operator("ArgMax", "ArgMin")
def _argmax(node: Node, x: Value) -> Value:
    function = torch.argmax if node.op == "ArgMax" else torch.argmin
    return function(x, node.get("axis", 0), bool(node.get("keepdims", 1)))


@operator("TopK")
def _top_k(node: Node, x: Value, k: Value) -> Value:
    largest, ordered = bool(node.get("largest", 1)), bool(node.get("sorted", 1))
    return tuple(torch.topk(x, integer(k), node.get("axis", -1), largest, ordered))


@operator("CumSum")
def _cumulative(node: Node, x: Value, axis: Value) -> Value:
    return torch.cumsum(tensor(x), integer(axis)).to(tensor(x).dtype)


@operator("GatherElements")
def _gather_elements(node: Node, x: Value, index: Value) -> Value:
    return torch.gather(x, node.get("axis", 0), tensor(index).long())


@operator("GatherND")
def _gather_nd(node: Node, x: Value, index: Value) -> Value:
    batch, index = node.get("batch_dims", 0), tensor(index)
    if batch:
        raise NotImplementedError("GatherND with batch_dims")
    return x[tuple(index.long().unbind(-1))]


@operator("OneHot")
def _one_hot(node: Node, index: Value, depth: Value, values: Value) -> Value:
    count, (off, on) = integer(depth), tensor(values).unbind(0)
    places = tensor(index).long().unsqueeze(-1) == torch.arange(count)
    found = torch.where(places, on, off)
    return found.movedim(-1, node.get("axis", -1))


@operator("Trilu")
def _triangle(node: Node, x: Value, k: Value = None) -> Value:
    function = torch.triu if node.get("upper", 1) else torch.tril
    return function(tensor(x), 0 if k is None else integer(k))


@operator("LayerNormalization")
def _layer_norm(node: Node, x: Value, weight: Value, bias: Value = None) -> Value:
    shape = list(x.shape[node.get("axis", -1) % x.dim() :])
    return functional.layer_norm(x, shape, weight, bias, node.get("epsilon", 1e-5))


@operator("BatchNormalization")
def _batch_norm(
    node: Node, x: Value, weight: Value, bias: Value, mean: Value, variance: Value
) -> Value:
    return functional.batch_norm(
        x, mean, variance, weight, bias, False, 0.0, node.get("epsilon", 1e-5)
    )


@operator("InstanceNormalization")
def _instance_norm(node: Node, x: Value, weight: Value, bias: Value) -> Value:
    return functional.instance_norm(
        x, None, None, weight, bias, True, 0.0, node.get("epsilon", 1e-5)
    )


@operator("GroupNormalization")
def _group_norm(node: Node, x: Value, weight: Value, bias: Value) -> Value:
    groups = node.get("num_groups")
    if node.opset < 21:
        weight, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (weight, bias))
    return functional.group_norm(x, groups, weight, bias, node.get("epsilon", 1e-5))


@operator("LpNormalization")
def _normalized(node: Node, x: Value) -> Value:
    return functional.normalize(x, float(node.get("p", 2)), node.get("axis", -1))
