"""Exports a float module as a graph: batch norms folded, dropout removed, any batch size. All
quantization starts here, so calibration, training and backends see the same graph.
"""

import copy
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.errors import InputError
from edgekd.network.calling import open_sizes
from edgekd.network.plain_weights import with_plain_weights
from edgekd.network.recurrent import packed_layer
from edgekd.quant.constant_folding import compute_constants
from edgekd.quant.constants import constant_of, is_constant, replace_constant
from edgekd.quant.export_errors import cause_of
from edgekd.quant.exports_kept import kept_or_made
from edgekd.quant.functional import functional
from edgekd.quant.gathers import gathers_to_selects
from edgekd.quant.merging import merge_branches
from edgekd.quant.open_sizes import open_dimensions
from edgekd.quant.products import products_to_linear
from edgekd.quant.recurrent import packed_sequence
from edgekd.values.tree import Tree, like, mapped, rows

aten = torch.ops.aten

_IDENTITIES = {
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
}


def export_graph(
    module: nn.Module, example: Tree, where: str = "quantize", *, keep_layers: bool = False
) -> fx.GraphModule:
    """The graph of `module` in eval mode, with a free batch size.

    Batch norms after a convolution or a linear layer are folded into it (Jacob et al. 2018, section
    3.2), which does not change the function. The module itself is not changed. Recurrent layers are
    unrolled; with `keep_layers`, those that ONNX has an operator for stay whole. Raises
    `InputError` if it can't be exported, or only for one batch size.
    """

    def made() -> fx.GraphModule:
        return _made(module, example, where, keep_layers)

    return kept_or_made(module, example, (keep_layers,), made)


def _made(module: nn.Module, example: Tree, where: str, keep_layers: bool) -> fx.GraphModule:
    plain = with_plain_weights(module)
    plain = copy.deepcopy(module) if plain is module else plain
    graph = functional(_export(plain.eval(), example, where), where, keep_layers=keep_layers)
    _remove_identities(graph)
    compute_constants(graph)
    gathers_to_selects(graph)
    products_to_linear(graph)
    fold_batch_norms(graph)
    merge_branches(graph)
    # Anew from its nodes: what they don't read (a folded norm's statistics) stays behind.
    return fx.GraphModule(graph, graph.graph)


def exported(
    module: nn.Module, example: Tree, *, fixed: bool = False
) -> torch.export.ExportedProgram:
    """The program of a module in eval mode, for any batch size. Its one argument is the tree of
    inputs. Sizes that the module or the graph leaves open stay so. If `fixed`, every size is that
    of the example, with a batch of one."""
    if fixed:
        with quiet():
            return torch.export.export(module, (rows(example, slice(0, 1)),))
    # Two samples, because the exporter takes a size of one for a constant.
    pair = mapped(lambda leaf: torch.cat([leaf[:1], leaf[:1]]), example)
    batch = torch.export.Dim("batch", min=1, max=65_536)
    free = like(example, [{0: batch, **more} for more in open_dimensions(module, example)])
    with quiet():
        return torch.export.export(module, (pair,), dynamic_shapes=(free,))


@contextmanager
def quiet() -> Iterator[None]:
    """A context that hides the exporter's own deprecation warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        # A recurrent layer's list of its own parameters, which it rebuilds when it is traced.
        warnings.filterwarnings("ignore", r"The tensor attributes? self\.(.|\n)*_flat_weights")
        yield


def switchable(graph: fx.GraphModule) -> fx.GraphModule:
    """The graph in eval mode, with `train` and `eval` restored, which the exporter disables."""
    whole: Any = graph
    whole.train = types.MethodType(_train, graph)
    whole.eval = types.MethodType(_eval, graph)
    return _train(graph, False)


def _train(self: fx.GraphModule, mode: bool = True) -> fx.GraphModule:
    """In an exported graph only observers behave differently in training."""
    for part in self.modules():
        part.training = mode
    return self


def _eval(self: fx.GraphModule) -> fx.GraphModule:
    return _train(self, False)


def _export(module: nn.Module, example: Tree, where: str) -> torch.export.ExportedProgram:
    try:
        return exported(module, example)
    except Exception as error:
        packed = packed_layer(module, example)
        if packed:
            raise packed_sequence(packed, where) from error
        raise InputError(
            f"torch.export can't trace this model: {cause_of(error)}",
            where=where,
            hint="forward() must not branch on tensor values or fix the batch size"
            + (", nor a size under [[dynamic]]" if open_sizes(module) else ""),
        ) from error


def _remove_identities(graph: fx.GraphModule) -> None:
    for node in list(graph.graph.nodes):
        copied = node.target is aten.clone.default and node.args[0].op == "placeholder"
        if node.op == "call_function" and (copied or node.target in _IDENTITIES):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def fold_batch_norms(graph: fx.GraphModule) -> None:
    """Fold each inference batch norm into the convolution or linear layer before it, if nothing
    else reads that layer's output. A layer and a norm that run together several times stay one."""
    folded: dict[tuple[Any, ...], tuple[fx.Node, fx.Node]] = {}
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target is not aten.batch_norm.default:
            continue
        source = node.args[0]
        if _makes_its_channels(graph, source) and len(source.users) == 1:
            _fold(graph, source, node, folded)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _makes_its_channels(graph: fx.GraphModule, source: fx.Node) -> bool:
    """Whether a batch norm after `source` normalizes the outputs of a constant weight.

    Those of a linear layer are in the last dimension, and a batch norm's in the second.
    """
    if source.op != "call_function" or source.target not in _FOLDABLE:
        return False
    if source.target is aten.linear.default and source.meta["val"].dim() != 2:
        return False
    return _constant(graph, source.args[1]) is not None


_TRANSPOSED = {aten.conv_transpose1d.default, aten.conv_transpose2d.input}
"""Layers whose weight is (in, out / groups, ...)."""

_FOLDABLE = _TRANSPOSED | {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.linear.default,
}


def _constant(graph: fx.GraphModule, node: object) -> Tensor | None:
    return constant_of(graph, node) if is_constant(node) else None  # type: ignore[arg-type]


def _fold(
    graph: fx.GraphModule,
    layer: fx.Node,
    norm: fx.Node,
    folded: dict[tuple[Any, ...], tuple[fx.Node, fx.Node]],
) -> None:
    names = (*layer.args[1:3], *norm.args[1:5], norm.args[7])
    key = (layer.target, *(each.target if isinstance(each, fx.Node) else each for each in names))
    if key not in folded:
        folded[key] = _folded(graph, layer, norm)
    layer.args = (layer.args[0], *folded[key], *layer.args[3:])
    norm.replace_all_uses_with(layer)
    graph.graph.erase_node(norm)


def _folded(graph: fx.GraphModule, layer: fx.Node, norm: fx.Node) -> tuple[fx.Node, fx.Node]:
    """The weight and the bias of a layer whose outputs a norm reads."""
    arguments: tuple[Any, ...] = norm.args
    _, gamma, beta, mean, variance, _, _, epsilon, *_ = arguments
    weight = _constant(graph, layer.args[1])
    running_mean, running_variance = _constant(graph, mean), _constant(graph, variance)
    assert weight is not None
    assert running_mean is not None
    assert running_variance is not None
    bias = _constant(graph, layer.args[2] if len(layer.args) > 2 else None)
    with torch.no_grad():
        factor = torch.rsqrt(running_variance + epsilon)
        scale = _constant(graph, gamma)
        shift = _constant(graph, beta)
        factor = factor if scale is None else factor * scale
        new_bias = -running_mean if bias is None else bias - running_mean
        new_bias = new_bias * factor + (0 if shift is None else shift)
        new_weight = _scaled(layer, weight, factor)
    weight_node = replace_constant(graph, layer.args[1], layer, new_weight)
    return weight_node, replace_constant(graph, None, layer, new_bias)


def _scaled(layer: fx.Node, weight: Tensor, factor: Tensor) -> Tensor:
    """A weight whose outputs are multiplied with `factor`, a number for each channel."""
    if layer.target not in _TRANSPOSED:
        return weight * factor.view(-1, *[1] * (weight.dim() - 1))
    groups = len(factor) // weight.shape[1]
    apart = weight.reshape(groups, -1, *weight.shape[1:])
    factors = factor.view(groups, 1, -1, *[1] * (weight.dim() - 2))
    return (apart * factors).reshape(weight.shape)
