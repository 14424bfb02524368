"""Graphs whose weights are narrow and whose activations stay in float.

In training, each weight passes through a `NarrowWeight`; a finished graph has the codes as int8
tensors followed by a dequantize op, and backends store them in as many bits as the codes need.
"""

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from edgekd.network.fx_names import layer_of
from edgekd.quant import ops
from edgekd.quant.clusters import SharedWeight
from edgekd.quant.constants import (
    constant_of,
    is_constant,
    replace_constant,
)
from edgekd.quant.export import switchable
from edgekd.quant.narrow import BITS, Narrow, NarrowWeight
from edgekd.quant.rewrite import DEQUANTIZE_GROUPS

aten = torch.ops.aten
WIDEN = aten.to.dtype


def weighted_layers(graph: fx.GraphModule) -> dict[str, fx.Node]:
    """The convolutions and linear layers with constant weights, by the name of their module; the
    first of those that read the same weight. A further weight of the module, as a recurrent layer
    has, is listed below the module's name."""
    found: dict[str, fx.Node] = {}
    seen: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node.target in ops.WEIGHTED and is_constant(node.args[1]) and node.args[1] not in seen:
            seen.add(node.args[1])
            found[_free(layer_of(node), node, found)] = node
    return found


def _free(name: str, node: fx.Node, taken: Mapping[str, Any]) -> str:
    return f"{name}.{node.name}" if name in taken else name


def narrowed(
    graph: fx.GraphModule,
    dtypes: Mapping[str, Narrow],
    groups: int | Mapping[str, int],
    *,
    learned: bool = False,
    search: bool = False,
) -> fx.GraphModule:
    """A copy in which the weight of each named layer passes through a `NarrowWeight`. `groups` says
    how many weights share a scale, everywhere or by layer."""
    prepared = copy.deepcopy(graph)
    for parameter in prepared.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    for name, node in weighted_layers(prepared).items():
        if name not in dtypes:
            continue
        dtype, weight = dtypes[name], constant_of(prepared, _weight(node))
        # Single weights have scales of their own only where they are few bits.
        group = groups if isinstance(groups, int) else groups[name]
        size = 0 if dtype == "int8" else group
        lsq = learned and dtype in ("int8", "int4")
        module = NarrowWeight(weight, dtype, size, learned=lsq, search=search)
        _insert(prepared, node, module)
    prepared.recompile()
    return switchable(prepared)


def narrow_weights(graph: fx.GraphModule) -> dict[str, NarrowWeight]:
    """The fake quantizers of a prepared graph by their layers' names."""
    weights: dict[str, NarrowWeight] = {}
    for node in graph.graph.nodes:
        source: Any = node.args[1] if node.target in ops.WEIGHTED else None
        if isinstance(source, fx.Node) and source.op == "call_module":
            module = graph.get_submodule(str(source.target))
            if isinstance(module, NarrowWeight) and module not in weights.values():
                weights[_free(layer_of(node), node, weights)] = module
    return weights


def finish_narrow(graph: fx.GraphModule) -> fx.GraphModule:
    """The graph with codes and scales in place of fake quantization."""
    finished = copy.deepcopy(graph)
    for node in list(finished.graph.nodes):
        if node.op != "call_module":
            continue
        module = finished.get_submodule(node.target)
        if isinstance(module, NarrowWeight):
            _store(finished, node, module)
        elif isinstance(module, SharedWeight):
            _share(finished, node, module)
        else:
            continue
        finished.delete_submodule(node.target)
    return _cleaned(finished)


def _store(graph: fx.GraphModule, node: fx.Node, module: NarrowWeight) -> None:
    weight = constant_of(graph, cast(fx.Node, node.args[0])).detach()
    with torch.no_grad():
        codes, scales = module.coded(weight.reshape(weight.shape[0], -1, module.size))
    stem = str(node.target)
    graph.register_buffer(f"{stem}_codes", codes.to(torch.int8).flatten(1))
    graph.register_buffer(f"{stem}_scales", scales.squeeze(2).float().contiguous())
    with graph.graph.inserting_before(node):
        parts = [graph.graph.get_attr(f"{stem}_{part}") for part in ("codes", "scales")]
        limit = module.limit
        plain = (*parts, None, -limit, limit, torch.int8, module.size, torch.float32)
        value = graph.graph.call_function(DEQUANTIZE_GROUPS, plain)
        if weight.dim() > 2:
            value = graph.graph.call_function(aten.view.default, (value, list(weight.shape)))
    value.meta["val"] = node.meta.get("val")
    node.replace_all_uses_with(value)
    graph.graph.erase_node(node)


def as_bfloat16(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy whose weights are stored in bfloat16 and widened where they are used."""
    finished = copy.deepcopy(graph)
    for node in list(finished.graph.nodes):
        if node.target not in ops.WEIGHTED or not is_constant(node.args[1]):
            continue
        weight = node.args[1]
        value = constant_of(finished, weight).detach().to(torch.bfloat16)
        name = f"{node.name}_bfloat16"
        finished.register_buffer(name, value)
        with finished.graph.inserting_before(node):
            constant = finished.graph.get_attr(name)
            wide = finished.graph.call_function(WIDEN, (constant, torch.float32))
        wide.meta["val"] = weight.meta.get("val")
        node.args = (node.args[0], wide, *node.args[2:])
    return _cleaned(finished)


def shared(graph: fx.GraphModule, layers: Collection[str], bits: int) -> fx.GraphModule:
    """A copy in which the weight of each named layer passes through a `SharedWeight`."""
    prepared = copy.deepcopy(graph)
    for parameter in prepared.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    for name, node in weighted_layers(prepared).items():
        if name in layers:
            _insert(prepared, node, SharedWeight(constant_of(prepared, _weight(node)), bits))
    prepared.recompile()
    return switchable(prepared)


def _weight(layer: fx.Node) -> fx.Node:
    return cast(fx.Node, layer.args[1])


def _insert(graph: fx.GraphModule, layer: fx.Node, module: nn.Module) -> None:
    """Pass a layer's weight through a module, also where other layers read it."""
    weight, place = _weight(layer), f"narrow_{layer.name}"
    graph.add_submodule(place, module)
    with graph.graph.inserting_before(layer):
        narrow = graph.graph.call_module(place, (weight,))
    narrow.meta["val"] = weight.meta.get("val")
    for reader in list(weight.users):
        if reader.target in ops.WEIGHTED and reader.args[1] is weight:
            reader.args = (reader.args[0], narrow, *reader.args[2:])


def _share(graph: fx.GraphModule, node: fx.Node, module: SharedWeight) -> None:
    stem = str(node.target)
    graph.register_buffer(f"{stem}_index", module.index.clone())
    graph.register_buffer(f"{stem}_centroids", module.table().detach().clone())
    with graph.graph.inserting_before(node):
        table = graph.graph.get_attr(f"{stem}_centroids")
        index = graph.graph.get_attr(f"{stem}_index")
        wide = graph.graph.call_function(WIDEN, (index, torch.int64))
        flat = graph.graph.call_function(aten.flatten.using_ints, (wide,))
        picked = graph.graph.call_function(aten.index_select.default, (table, 0, flat))
        value = graph.graph.call_function(aten.view.default, (picked, list(module.index.shape)))
    value.meta["val"] = node.meta.get("val")
    node.replace_all_uses_with(value)
    graph.graph.erase_node(node)


def _cleaned(graph: fx.GraphModule) -> fx.GraphModule:
    graph.graph.eliminate_dead_code()
    finished = fx.GraphModule(graph, graph.graph)
    for parameter in finished.parameters():
        parameter.requires_grad_(False)
    return finished.eval()


@dataclass(frozen=True, eq=False)
class Stored:
    """One weight as a finished graph stores it, and its value. `value` is float32 in the layer's
    shape. Integer weights have `codes` (o, k), `scales` (o, groups) and `limit`, the largest code;
    bfloat16 has none of these. Clustered weights have `codes` of the layer's shape that index
    `centroids`.
    """

    value: Tensor
    codes: Tensor | None = None
    scales: Tensor | None = None
    limit: int = 0
    centroids: Tensor | None = None

    @property
    def dtype(self) -> str:
        """The type's name in a recipe."""
        if self.centroids is not None:
            return "clustered"
        if self.codes is None:
            return "bf16"
        if self.limit == 1:
            return "ternary" if bool((self.codes == 0).any()) else "binary"
        return {127: "int8", 7: "int4"}[self.limit]

    @property
    def bits(self) -> int:
        """Its size in a file in bits, including scales and centroids."""
        if self.codes is not None and self.centroids is not None:
            return 8 * self.codes.numel() + 32 * self.centroids.numel()
        if self.codes is None or self.scales is None:
            return 16 * self.value.numel()
        return BITS[self.limit] * self.codes.numel() + 32 * self.scales.numel()


def stored_weights(graph: fx.GraphModule) -> list[tuple[fx.Node, Stored]]:
    """Every narrow weight, with the node that passes its value to the layer."""
    return list(_stored(graph))


def _stored(graph: fx.GraphModule) -> Iterator[tuple[fx.Node, Stored]]:
    for node in graph.graph.nodes:
        if node.target is WIDEN and is_constant(node.args[0]):
            value = constant_of(graph, node.args[0])
            if value.dtype is torch.bfloat16:
                yield node, Stored(value.float())
        elif node.target is aten.index_select.default:
            yield from _clustered(graph, node)
        elif node.target is DEQUANTIZE_GROUPS:
            codes, scales = (constant_of(graph, each) for each in node.args[:2])
            grid = codes.view(*scales.shape, -1).float() * scales.unsqueeze(2)
            users = list(node.users)
            view = users[0] if users and users[0].target is aten.view.default else None
            value = grid.view(codes.shape if view is None else cast(Any, view.args[1]))
            yield view or node, Stored(value, codes, scales, int(node.args[4]))


def _clustered(graph: fx.GraphModule, node: fx.Node) -> Iterator[tuple[fx.Node, Stored]]:
    source: Any = node.args[2]
    while isinstance(source, fx.Node) and source.args and not is_constant(source):
        source = source.args[0]
    if not (is_constant(node.args[0]) and is_constant(source)):
        return
    table, codes = constant_of(graph, cast(fx.Node, node.args[0])), constant_of(graph, source)
    if codes.dtype is torch.uint8:
        value = table[codes.long()]
        yield next(iter(node.users)), Stored(value, codes, centroids=table)


def stored_bytes(graph: fx.GraphModule) -> int:
    """The size of the parameters and buffers that the graph reads, with packed codes."""
    read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    stored = {**dict(graph.named_parameters()), **dict(graph.named_buffers())}
    tensors = [tensor for name, tensor in stored.items() if name in read]
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    for _, each in stored_weights(graph):
        if each.codes is not None and each.centroids is None:
            total -= each.codes.numel() - each.codes.numel() * BITS[each.limit] // 8
    return total


def as_float(graph: fx.GraphModule) -> tuple[fx.GraphModule, list[Stored]]:
    """A copy with float weights of the same values, and the storage of each of them."""
    floating = copy.deepcopy(graph)
    stored = []
    for node, each in stored_weights(floating):
        user = next(iter(node.users))
        constant = replace_constant(floating, None, user, each.value, "widened")
        node.replace_all_uses_with(constant)
        stored.append(each)
    return _cleaned(floating), stored
