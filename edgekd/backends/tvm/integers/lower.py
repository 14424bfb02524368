"""Writes the steps of a quantized graph as a Relax module of scheduled kernels."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import fx

from edgekd.backends.tvm.integers import expressions as te_of
from edgekd.backends.tvm.integers import steps
from edgekd.backends.tvm.integers.dot import Dot
from edgekd.backends.tvm.integers.expressions import Held
from edgekd.backends.tvm.integers.fusing import awaited_layers
from edgekd.backends.tvm.integers.graph import shape_of, value_of
from edgekd.backends.tvm.integers.islands import Island, island_of
from edgekd.backends.tvm.integers.kernels import (
    Form,
    factors,
    folded_bias,
    form_of,
    packed_weight,
    weighted,
)
from edgekd.backends.tvm.integers.reading import InFloat, read
from edgekd.backends.tvm.integers.schedule import INTEGER
from edgekd.backends.tvm.tile import Tile
from edgekd.values.tree import leaves

Choice = Callable[[Form, steps.Weighted], Tile]
"""Chooses a layer's tile."""

OPAQUE = 8
"""TVM's pattern kind of kernels that nothing is fused with."""


@dataclass(frozen=True)
class Kept:
    """A quantized tensor in the module: its variable, and how memory holds it."""

    variable: Any
    held: Held


@dataclass
class Writer:
    """The module being written: a Relax builder, and what has been computed so far.

    `calls` are the kernels in the order in which they run, each with its layer. Layers that are
    `awaited` by a sum are written with it, and `waiting` until then.
    """

    builder: Any
    graph: fx.GraphModule
    dot: Dot
    choose: Choice
    images: frozenset[str]
    awaited: frozenset[str]
    waiting: dict[str, steps.Weighted] = field(default_factory=dict)
    quantized: dict[str, Kept] = field(default_factory=dict)
    floats: dict[str, Any] = field(default_factory=dict)
    restored: dict[str, Any] = field(default_factory=dict)
    moved: dict[tuple[str, bool], Kept] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)

    def call(self, layer: str, kind: str, expression: Callable[..., Any], *arguments: Any) -> Any:
        """Emit a kernel; arrays among the arguments become constants."""
        from tvm import relax

        given = [relax.const(each) if isinstance(each, np.ndarray) else each for each in arguments]
        name = re.sub(r"\W+", "_", f"int8_{kind}_{layer}")
        attributes = {"op_pattern": OPAQUE, INTEGER: 1}
        call = self.builder.call_te(
            expression, *given, primfunc_name_hint=name, primfunc_attrs=attributes
        )
        self.calls.append((call.args[0].name_hint, layer))
        return self.builder.emit(call)

    def kept(self, value: steps.Value, last: bool | None = None) -> Kept:
        """A tensor in memory, in the order asked for or in any."""
        from tvm import relax

        if value.constant is not None:
            return Kept(relax.const(value.constant), Held(value.shape, last=False))
        kept = self.quantized[value.name]
        if last is None or last == kept.held.last:
            return kept
        if (value.name, last) not in self.moved:
            self.moved[value.name, last] = self._reordered(value, kept, last)
        return self.moved[value.name, last]

    def _reordered(self, value: steps.Value, kept: Kept, last: bool) -> Kept:
        from tvm import relax

        held = Held(value.shape, last)
        if value.shape[1] == 1 or all(size == 1 for size in value.shape[2:]):
            shape = relax.ShapeExpr(held.memory)
            return Kept(self.builder.emit(relax.op.reshape(kept.variable, shape)), held)

        def expression(tensor: Any) -> Any:
            return te_of.computed(held, te_of.broadcast(kept.held, tensor))

        return Kept(self.call(value.name, "order", expression, kept.variable), held)

    def real(self, node: fx.Node) -> Any:
        """The variable of a float tensor, dequantized if necessary."""
        if node.name in self.floats:
            return self.floats[node.name]
        if node.name not in self.restored:
            value = value_of(self.graph, node)
            assert value is not None
            kept = self.kept(value)

            def expression(tensor: Any) -> Any:
                return te_of.dequantized(kept.held, value.grid, tensor)

            self.restored[node.name] = self.call(
                value.name, "dequantize", expression, kept.variable
            )
        return self.restored[node.name]


def written(graph: fx.GraphModule, dot: Dot, choose: Choice) -> tuple[Any, list[tuple[str, str]]]:
    """The Relax module of a quantized graph for one sample, and its kernels in order, each with its
    layer (see `Writer.calls`)."""
    from tvm import relax

    parts = list(read(graph))
    nodes = list(graph.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    writer = Writer(
        relax.BlockBuilder(), graph, dot, choose, _images(parts), awaited_layers(graph, parts)
    )
    variables = [relax.Var(node.name, _type(node)) for node in inputs]
    builder = writer.builder
    with builder.function("main", variables):
        with builder.dataflow():
            for node, variable in zip(inputs, variables, strict=True):
                writer.floats[node.name] = variable
            for part in parts:
                if isinstance(part, InFloat):
                    _write_island(writer, island_of(graph, part))
                else:
                    kept = WRITERS[type(part)](writer, part)
                    if kept is not None:
                        writer.quantized[part.result.name] = kept
            results = [writer.real(node) for node in _outputs(nodes[-1])]
            returned = results[0] if len(results) == 1 else relax.Tuple(results)
            output = builder.emit_output(returned)
        builder.emit_func_output(output)
    module = relax.transform.InlinePrivateFunctions()(builder.get())
    return module, writer.calls


def _outputs(node: fx.Node) -> list[Any]:
    return leaves(node.args)


def _type(node: fx.Node) -> Any:
    from tvm import relax

    tensor = node.meta["val"]
    return relax.TensorType(shape_of(node), str(tensor.dtype).removeprefix("torch."))


def _images(parts: list[Any]) -> frozenset[str]:
    """The tensors that are read as images, and are so best held with their channels last."""
    names = set()
    for part in parts:
        convolves = isinstance(part, steps.Weighted) and part.geometry.kind != "linear"
        if convolves or isinstance(part, steps.Pooled):
            names.add(part.source.name)
    return frozenset(names)


def _write_island(writer: Writer, island: Island) -> None:
    from tvm import relax

    function = island.function().without_attr("global_symbol")
    name = writer.builder.add_func(function, island.name)
    call = relax.Call(name, [writer.real(node) for node in island.inputs])
    result = writer.builder.emit(call)
    if len(island.outputs) == 1:
        writer.floats[island.outputs[0].name] = result
        return
    for place, node in enumerate(island.outputs):
        writer.floats[node.name] = writer.builder.emit(relax.TupleGetItem(result, place))


def _quantized(writer: Writer, step: steps.Quantized) -> Kept:
    held = Held(step.result.shape, last=step.result.name in writer.images)
    node = next(node for node in writer.graph.graph.nodes if node.name == step.source)

    def expression(tensor: Any) -> Any:
        return te_of.quantized(held, step.result.grid, tensor)

    return Kept(writer.call(step.layer, "quantize", expression, writer.real(node)), held)


def _weighted(writer: Writer, step: steps.Weighted) -> Kept | None:
    if step.result.name in writer.awaited:
        writer.waiting[step.result.name] = step
        return None
    return _layer(writer, step)


def _layer(
    writer: Writer, step: steps.Weighted, then: tuple[steps.Arithmetic, steps.Value] | None = None
) -> Kept:
    """A layer's kernel, and in it the sum of its result and another tensor."""
    last = step.geometry.kind != "linear"
    source = writer.kept(step.source, last)
    form = form_of(step.geometry, writer.dot, step.weight)
    tile = writer.choose(form, step)
    constants = (packed_weight(form, step.weight, tile), folded_bias(step), factors(step))
    data = _shaped(writer, source.variable, step.in_rows(step.source.shape), step.source.shape)
    shape = step.result.shape
    rows = step.in_rows(shape)
    others = []
    if then is not None:
        others = [_shaped(writer, writer.kept(then[1], last).variable, rows, shape)]

    def expression(*tensors: Any) -> Any:
        if then is None:
            return weighted(form, tile, step, tensors)
        sum_of, other = then[0], tensors[-1]

        def after(value: Any, at: tuple[Any, ...]) -> Any:
            added = other(*at)
            pair = (value, added) if sum_of.right == then[1] else (added, value)
            return te_of.combined(sum_of, *pair)

        return weighted(form, tile, step, tensors[:-1], after)

    kind = step.geometry.kind if then is None else f"{step.geometry.kind}_{then[0].kind}"
    variable = writer.call(step.layer, kind, expression, data, *constants, *others)
    return Kept(_shaped(writer, variable, shape, rows), Held(shape, last))


def _shaped(writer: Writer, variable: Any, wanted: tuple[int, ...], have: tuple[int, ...]) -> Any:
    from tvm import relax

    if wanted == have:
        return variable
    return writer.builder.emit(relax.op.reshape(variable, relax.ShapeExpr(wanted)))


def _table(writer: Writer, step: steps.Table) -> Kept:
    source = writer.kept(step.source)
    held = Held(step.result.shape, source.held.last)

    def expression(tensor: Any, entries: Any) -> Any:
        return te_of.looked_up(held, source.held, step.source.grid.dtype, tensor, entries)

    variable = writer.call(step.layer, "table", expression, source.variable, step.entries)
    return Kept(variable, held)


def _arithmetic(writer: Writer, step: steps.Arithmetic) -> Kept:
    for own, other in ((step.left, step.right), (step.right, step.left)):
        if own.name in writer.waiting:
            return _layer(writer, writer.waiting.pop(own.name), (step, other))
    sides = [writer.kept(each) for each in (step.left, step.right)]
    last = any(each.held.last and each.held.shape == step.result.shape for each in sides)
    held = Held(step.result.shape, last)

    def expression(left: Any, right: Any) -> Any:
        readers = [
            te_of.broadcast(side.held, tensor)
            for side, tensor in zip(sides, (left, right), strict=True)
        ]
        return te_of.arithmetic(step, held, *readers)

    return Kept(writer.call(step.layer, step.kind, expression, *[s.variable for s in sides]), held)


def _joined(writer: Writer, step: steps.Joined) -> Kept:
    parts = [writer.kept(each) for each in step.sources]
    held = Held(step.result.shape, last=all(part.held.last for part in parts))

    def expression(*tensors: Any) -> Any:
        readers = [
            te_of.broadcast(part.held, tensor) for part, tensor in zip(parts, tensors, strict=True)
        ]
        return te_of.joined(step, held, readers)

    return Kept(writer.call(step.layer, "join", expression, *[p.variable for p in parts]), held)


def _pooled(writer: Writer, step: steps.Pooled) -> Kept:
    source = writer.kept(step.source, last=True)
    held = Held(step.result.shape, last=True)

    def expression(tensor: Any) -> Any:
        return te_of.pooled(step, held, tensor)

    return Kept(writer.call(step.layer, f"{step.kind}_pool", expression, source.variable), held)


def _reshaped(writer: Writer, step: steps.Reshaped) -> Kept:
    from tvm import relax

    source = writer.kept(step.source)
    if step.source.shape == step.result.shape:
        return source
    held = Held(step.result.shape, last=False)
    shape = step.source.shape
    if source.held.last and shape[1] > 1 and any(size > 1 for size in shape[2:]):

        def expression(tensor: Any) -> Any:
            return te_of.reshaped(held, source.held, tensor)

        return Kept(writer.call(step.layer, "reshape", expression, source.variable), held)
    target = relax.ShapeExpr(step.result.shape)
    return Kept(writer.builder.emit(relax.op.reshape(source.variable, target)), held)


TO_LAST, FROM_LAST = (0, 2, 3, 1), (0, 3, 1, 2)


def _permuted(writer: Writer, step: steps.Permuted) -> Kept:
    source = writer.kept(step.source)
    if source.held.last and step.order == TO_LAST:
        return Kept(source.variable, Held(step.result.shape, last=False))
    if not source.held.last and step.order == FROM_LAST:
        return Kept(source.variable, Held(step.result.shape, last=True))
    return _rewritten(writer, step, source, "permute", last=False)


def _sliced(writer: Writer, step: steps.Sliced) -> Kept:
    source = writer.kept(step.source)
    last = source.held.last and step.selected is None
    return _rewritten(writer, step, source, "slice", last)


def _padded(writer: Writer, step: steps.Padded) -> Kept:
    source = writer.kept(step.source)
    return _rewritten(writer, step, source, "pad", source.held.last)


def _reduced(writer: Writer, step: steps.Reduced) -> Kept:
    return _rewritten(writer, step, writer.kept(step.source), step.kind, last=False)


EXPRESSIONS: dict[Any, Any] = {
    steps.Permuted: te_of.permuted,
    steps.Sliced: te_of.sliced,
    steps.Padded: te_of.padded,
    steps.Reduced: te_of.reduced,
}


def _rewritten(writer: Writer, step: Any, source: Kept, kind: str, last: bool) -> Kept:
    held = Held(step.result.shape, last)

    def expression(tensor: Any) -> Any:
        return EXPRESSIONS[type(step)](step, held, te_of.broadcast(source.held, tensor))

    return Kept(writer.call(step.layer, kind, expression, source.variable), held)


def _multiplied(writer: Writer, step: steps.Multiplied) -> Kept:
    sides = [writer.kept(each, last=False) for each in (step.left, step.right)]
    held = Held(step.result.shape, last=False)

    def expression(left: Any, right: Any) -> Any:
        readers = [
            te_of.broadcast(side.held, tensor)
            for side, tensor in zip(sides, (left, right), strict=True)
        ]
        return te_of.multiplied(step, held, *readers)

    return Kept(writer.call(step.layer, "product", expression, *[s.variable for s in sides]), held)


WRITERS: dict[Any, Callable[[Writer, Any], Kept | None]] = {
    steps.Quantized: _quantized,
    steps.Weighted: _weighted,
    steps.Table: _table,
    steps.Arithmetic: _arithmetic,
    steps.Joined: _joined,
    steps.Pooled: _pooled,
    steps.Reduced: _reduced,
    steps.Reshaped: _reshaped,
    steps.Permuted: _permuted,
    steps.Sliced: _sliced,
    steps.Padded: _padded,
    steps.Multiplied: _multiplied,
}
