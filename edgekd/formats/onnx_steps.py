"""Stores the steps of an unrolled recurrent layer once in an ONNX file.

Operators that repeat with the same weights become a local function that is called once for each
step. ONNX Runtime inlines the calls when it loads the file, so it computes the same as before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DOMAIN = "edgekd.steps"

_LONGEST = 400
"""The most operators of one step."""

_SHORTEST = 6
_FEWEST = 3
"""The fewest operators of a step, and the fewest steps, that are worth a function."""

_SMALL = 64
"""Constants of up to this many bytes are stored in the function."""


@dataclass(frozen=True)
class _Run:
    """`count` repetitions of `period` operators, the first at `start`."""

    start: int
    period: int
    count: int

    @property
    def saved(self) -> int:
        """The operators that need not be stored."""
        return self.period * (self.count - 1) - self.count


def fold_steps(model: Any) -> None:
    """Move the steps of a model's recurrent layers into local functions."""
    number = 0
    while (run := _longest_run(model.graph)) is not None:
        _fold(model, run, f"step{number}")
        number += 1
    if number:
        _remove_unused(model.graph)


def unfold_steps(model: Any) -> Any:
    """The model without the functions of `fold_steps`; the same model if it has none."""
    names = [(DOMAIN, function.name) for function in model.functions if function.domain == DOMAIN]
    if not names:
        return model
    from onnx import inliner

    return inliner.inline_selected_functions(model, names)


def _longest_run(graph: Any) -> _Run | None:
    """The repetition that saves the most operators."""
    kinds = [_kind(node) for node in graph.node]
    made = {name: place for place, node in enumerate(graph.node) for name in node.output}
    best: _Run | None = None
    for period in range(_SHORTEST, min(_LONGEST, len(kinds) // _FEWEST) + 1):
        for run in _runs(graph, kinds, made, period):
            better = best is None or run.saved > best.saved
            if run.count >= _FEWEST and better and _shares_weights(graph, made, run):
                best = run
    return best


def _shares_weights(graph: Any, made: dict[str, int], run: _Run) -> bool:
    """Whether the repetitions multiply with the same weights: blocks of a network that only look
    alike stay as they are."""
    first, second = (
        graph.node[run.start + number * run.period :][: run.period] for number in (0, 1)
    )
    return any(
        _origin(graph, made, node.input[1]) == _origin(graph, made, again.input[1])
        for node, again in zip(first, second, strict=True)
        if node.op_type in ("Gemm", "MatMul")
    )


def _origin(graph: Any, made: dict[str, int], name: str) -> str:
    """The name of the value that a weight is made of by dequantizing or transposing."""
    while name in made and graph.node[made[name]].op_type in ("DequantizeLinear", "Transpose"):
        name = graph.node[made[name]].input[0]
    return name


def _kind(node: Any) -> Any:
    """What a node computes; None for one that is not to be repeated."""
    if node.domain == DOMAIN or len(node.output) != 1:
        return None
    attributes = tuple(sorted(one.SerializeToString() for one in node.attribute))
    return node.op_type, node.domain, len(node.input), attributes


def _runs(graph: Any, kinds: list[Any], made: dict[str, int], period: int) -> Iterator[_Run]:
    """Every repetition with this period."""
    start, equal = 0, 0
    for place in range(period, len(kinds) + 1):
        if (
            place < len(kinds)
            and kinds[place] is not None
            and kinds[place] == kinds[place - period]
            and _reads_alike(graph, made, place, period)
        ):
            start = start if equal else place - period
            equal += 1
            continue
        if equal >= period:
            yield _Run(start, period, equal // period + 1)
        equal = 0


def _reads_alike(graph: Any, made: dict[str, int], place: int, period: int) -> bool:
    """Whether a node reads what the node one period before it read: the same, or constants, or
    values that were computed one period later."""
    pairs = zip(graph.node[place].input, graph.node[place - period].input, strict=True)
    for name, earlier in pairs:
        if name == earlier:
            continue
        sources = made.get(name), made.get(earlier)
        if sources == (None, None):
            continue
        if None in sources or sources[0] - sources[1] != period:  # type: ignore[operator]
            return False
    return True


def _fold(model: Any, run: _Run, name: str) -> None:
    """Replace the repetitions of a run by calls of a function."""
    import onnx

    graph = model.graph
    nodes = list(graph.node)
    end = run.start + run.period * run.count
    blocks = [nodes[first : first + run.period] for first in range(run.start, end, run.period)]
    body = _Body(graph, blocks)
    model.functions.append(body.function(name, model.opset_import))
    outputs = body.outputs
    renamed: dict[str, str] = {}
    calls = []
    kept = {value.name for value in graph.output}
    for number, block in enumerate(blocks):
        for place in outputs:
            old = block[place].output[0]
            renamed[old] = old if old in kept else f"{name}.{number}.{place}"
        results = [renamed[block[place].output[0]] for place in outputs]
        inputs = [names[number] for names in body.inputs]
        calls.append(onnx.helper.make_node(name, inputs, results, domain=DOMAIN))
    del graph.node[:]
    graph.node.extend([*nodes[: run.start], *calls, *nodes[end:]])
    for node in graph.node:
        node.input[:] = [renamed.get(value, value) for value in node.input]
    if DOMAIN not in [entry.domain for entry in model.opset_import]:
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))


class _Body:
    """The function of equal blocks of nodes: `inputs` are the names that each block passes in, and
    `outputs` the places of the nodes whose values are read outside of their block."""

    def __init__(self, graph: Any, blocks: list[list[Any]]) -> None:
        self.blocks = blocks
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.places = [
            {node.output[0]: place for place, node in enumerate(block)} for block in blocks
        ]
        self.inputs: list[tuple[str, ...]] = []
        self.outputs = self._read_outside(graph)
        self.stored: dict[str, str] = {}

    def _read_outside(self, graph: Any) -> list[int]:
        """The places whose values are read by other blocks or other nodes."""
        owner = {name: (number, place) for number, places in enumerate(self.places)
                 for name, place in places.items()}  # fmt: skip
        block_of = {
            node.output[0]: number for number, block in enumerate(self.blocks) for node in block
        }
        read = {value.name for value in graph.output} & set(owner)
        for node in graph.node:
            reader = block_of.get(node.output[0])
            read |= {name for name in node.input if name in owner and owner[name][0] != reader}
        return sorted({owner[name][1] for name in read})

    def function(self, name: str, opsets: Any) -> Any:
        """The `FunctionProto`."""
        import onnx

        nodes = []
        for place, node in enumerate(self.blocks[0]):
            inputs = [self._operand(place, slot) for slot in range(len(node.input))]
            copied = onnx.helper.make_node(
                node.op_type, inputs, [f"v{place}"], domain=node.domain or None
            )
            copied.attribute.extend(node.attribute)
            nodes.append(copied)
        constants = [
            onnx.helper.make_node("Constant", [], [inner], value=self.constants[outer])
            for outer, inner in self.stored.items()
        ]
        return onnx.helper.make_function(
            DOMAIN,
            name,
            [f"a{number}" for number in range(len(self.inputs))],
            [f"v{place}" for place in self.outputs],
            [*constants, *nodes],
            [entry for entry in opsets if entry.domain != DOMAIN],
        )

    def _operand(self, place: int, slot: int) -> str:
        """The name inside the function of what a node reads."""
        names = tuple(block[place].input[slot] for block in self.blocks)
        if names[0] in self.places[0]:
            return f"v{self.places[0][names[0]]}"
        if not names[0]:
            return ""
        constant = self.constants.get(names[0])
        if len(set(names)) == 1 and constant is not None and constant.ByteSize() <= _SMALL:
            return self.stored.setdefault(names[0], f"c{len(self.stored)}")
        if names not in self.inputs:
            self.inputs.append(names)
        return f"a{self.inputs.index(names)}"


def _remove_unused(graph: Any) -> None:
    """Remove the constants that only the repeated operators read."""
    used = {name for node in graph.node for name in node.input}
    used |= {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
