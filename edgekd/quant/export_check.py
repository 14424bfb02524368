"""Whether an exported float graph computes what its module does, and which layer does not.

Parity holds a file against the graph that it was made of, so a wrong graph would pass it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.data.samples import Samples
from edgekd.errors import InputError, ToolError, first_line
from edgekd.network.evaluation import evaluating, predict
from edgekd.network.fx_names import layer_of, module_paths
from edgekd.values.tree import Tree, chunks, count, leaves, mapped, rows

TOLERANCE = 1e-4
"""Of the largest output: float sums in another order differ by some 1e-6."""

_SMALLEST = 1e-3
"""The largest output is taken to be at least this large: smaller ones are as good as zero."""

_BATCH = 256

_LOOKED_AT = 4
"""Samples on which the layers are compared."""


def check_exported(
    graph: fx.GraphModule, module: nn.Module, samples: Samples | Tree, where: str = "quantize"
) -> None:
    """Compare an exported float graph with its module on samples (N, ...), a batch at a time.

    Raises `ToolError` with the first layer that differs, and `InputError` for a module whose
    outputs differ each time.
    """
    worst = _compared(module, graph, samples, where)
    if worst is None or worst.within:
        return
    again = _compared(module, module, samples, where)
    if again is not None and not again.within:
        raise InputError(
            "the network gives different outputs each time it runs, even in eval mode",
            where=where,
            hint="forward() must not draw random numbers where self.training is False",
        )
    layer = first_wrong_layer(graph, module, worst.inputs)
    which = "outputs differ" if worst.alone else f"values of output {worst.output} differ"
    raise ToolError(
        f"the exported graph differs from the network {layer}: the {which} "
        f"by {worst.difference:.3g} where {worst.allowed:.3g} is allowed",
        where=where,
        hint="this is a fault of the conversion, not of the training: please report the layer",
    )


@dataclass(eq=False)
class _Worst:
    """One output on all samples: its largest difference, its largest value, and the inputs around
    the sample that differs most. `alone` is whether it is the only output."""

    output: int
    alone: bool
    inputs: Tree
    difference: float = -1.0
    largest: float = _SMALLEST

    @property
    def allowed(self) -> float:
        return TOLERANCE * self.largest

    @property
    def within(self) -> bool:
        return self.difference <= self.allowed

    def add(self, expected: Tensor, found: Tensor, x: Tree) -> None:
        """Take a batch in."""
        self.largest = max(self.largest, _allowed(expected) / TOLERANCE)
        differences = _differences(expected, found)
        if float(differences.max()) <= self.difference:
            return
        self.difference = float(differences.max())
        start = max(0, min(int(differences.argmax()), len(differences) - _LOOKED_AT))
        self.inputs = rows(x, slice(start, start + _LOOKED_AT))


def _predicted(graph: nn.Module, x: Tree, where: str) -> Tree:
    try:
        return predict(graph, x)
    except Exception as error:  # an operator that the exporter made for one batch size
        raise InputError(
            f"the exported graph does not run on {count(x)} samples: {first_line(error)}",
            where=where,
            hint="forward() must not fix the batch size, nor work in place on a view of an unusual "
            "kind, such as unfold()",
        ) from error


def _compared(
    module: nn.Module, other: nn.Module, samples: Samples | Tree, where: str
) -> _Worst | None:
    """The output that is furthest beyond what is allowed; None without samples."""
    worst: list[_Worst] = []
    held = (
        samples.inputs.chunks(_BATCH) if isinstance(samples, Samples) else chunks(samples, _BATCH)
    )
    for x in held:
        if not count(x):
            continue
        expected, found = leaves(predict(module, x)), leaves(_predicted(other, x, where))
        worst = worst or [_Worst(number, len(expected) == 1, x) for number in range(len(expected))]
        for each, mine, theirs in zip(worst, expected, found, strict=True):
            each.add(mine, theirs, x)
    return max(worst, key=lambda each: each.difference / each.allowed, default=None)


def _differences(expected: Tensor, found: Tensor) -> Tensor:
    """(N,) the largest difference of each sample; infinite where only one of them is finite."""
    first, second = expected.flatten(1).double(), found.flatten(1).double()
    same = (first == second) | (first.isnan() & second.isnan())
    difference = torch.where(same, 0.0, (first - second).abs()).nan_to_num(nan=torch.inf)
    return difference.amax(1) if difference.shape[1] else difference.new_zeros(len(difference))


def _allowed(expected: Tensor) -> float:
    finite = expected[expected.isfinite()]
    largest = float(finite.abs().max()) if len(finite) else 0.0
    return TOLERANCE * max(_SMALLEST, largest)


def first_wrong_layer(graph: fx.GraphModule, module: nn.Module, x: Tree) -> str:
    """Where a graph leaves its module on samples x (N, ...): 'at layer ...' or 'after layer ...'.

    Every layer's last value in the graph must be the output of some layer in the module. It need
    not be the same layer: a folded norm's output is that of the convolution before it. What is
    rewritten, such as merged branches, may match none: it is right if a value that is computed from
    it is.
    """
    leaves = {name: part for name, part in module.named_modules() if not any(part.children())}
    outputs = _outputs_of(module, list(leaves.values()), x)
    last, judged = "", []
    for node, value in _values_of(graph, x):
        rivals = [each for each in outputs if each.shape == value.shape]
        if layer_of(node) in leaves and rivals:
            judged.append((node, any(_equal(each, value) for each in rivals)))
    excused = _sources_of([node for node, right in judged if right])
    for node, right in judged:
        if not right and node not in excused:
            return f"at layer '{layer_of(node)}'"
        last = layer_of(node)
    return f"after layer '{last}'" if last else "outside its layers"


def _sources_of(nodes: list[fx.Node]) -> set[fx.Node]:
    """Every node that these are computed from."""
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        fresh = [each for each in waiting.pop().all_input_nodes if each not in found]
        found.update(fresh)
        waiting += fresh
    return found


def _equal(expected: Tensor, found: Tensor) -> bool:
    return float(_differences(expected, found).max()) <= _allowed(expected)


def _outputs_of(module: nn.Module, layers: list[nn.Module], x: Tree) -> list[Tensor]:
    """The output of every call of the layers, which have no layers inside."""
    outputs: list[Tensor] = []

    def keep(_part: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.dim():
            outputs.append(output.detach().clone())  # the next layer may work in place

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        with evaluating(module), torch.no_grad():
            module(mapped(torch.clone, x))
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _values_of(graph: fx.GraphModule, x: Tree) -> list[tuple[fx.Node, Tensor]]:
    """The last value of each layer's call in a graph, in order."""
    values: list[tuple[fx.Node, Tensor]] = []

    class Kept(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, Tensor) and result.is_floating_point() and module_paths(n):
                if values and module_paths(values[-1][0]) == module_paths(n):
                    values.pop()
                values.append((n, result.clone()))
            return result

    with torch.no_grad():
        Kept(graph).run(mapped(torch.clone, x))
    return values
