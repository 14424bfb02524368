"""Which layers of two networks are compared, chosen by depth: `layers = "auto"`.

A network's blocks are the composite layers of a kind that repeats (residual blocks, encoder
blocks), the outermost of them; in a plain stack they are the convolutions or, if there are none,
the linear layers, or the recurrent ones. Jiao et al. 2020 (TinyBERT, section 4.3) compare three
maps of M student blocks onto N teacher blocks: m -> m N / M (uniform), m -> m (front),
m -> m + N - M (back).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from edgekd.errors import InputError
from edgekd.network.taps import WEIGHTS, layer_kinds, layer_names

Map = Literal["uniform", "front", "back"]
Pair = tuple[str, str]
"""A layer of the student and the teacher's that it is compared with."""

CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")
PLAIN = (("Conv1d", "Conv2d", "Conv3d"), ("Linear",))
RECURRENT = ("LSTM", "GRU", "RNN")
ATTENTION = ("Softmax", "MultiheadAttention")
VALUES = ("value", "values", "v_proj", "v_lin", "to_v", "v", "w_v")


@dataclass(frozen=True)
class Pairing:
    """What a recipe asks for: the map, and the maximum number of pairs (None: all)."""

    map: Map = "uniform"
    pairs: int | None = None


def blocks_of(module: nn.Module) -> list[str]:
    """The names of a network's blocks, from its input to its output."""
    kinds = layer_kinds(module)
    inner = {name.rpartition(".")[0] for name in kinds}
    composite = [n for n, kind in kinds.items() if n in inner and kind not in CONTAINERS]
    counted = Counter(kinds[name] for name in composite)
    repeated = [name for name in composite if counted[kinds[name]] > 1]
    listed = [name for name in repeated if kinds.get(name.rpartition(".")[0]) in CONTAINERS]
    repeated = [  # an encoder and a decoder of one class are not blocks if lists in them have some
        name
        for name in repeated
        if name in listed or not any(inner.startswith(f"{name}.") for inner in listed)
    ]
    if repeated:
        depth = {name: sum(name.startswith(f"{other}.") for other in repeated) for name in repeated}
        return [name for name in repeated if depth[name] == 0]
    for plain in PLAIN:
        layers = [name for name, kind in kinds.items() if kind in plain]
        if len(layers) > 1:
            return layers
    return [name for name, kind in kinds.items() if kind in RECURRENT]


def pairs_of(student: nn.Module, teacher: nn.Module, asked: Pairing, where: str) -> list[Pair]:
    """Blocks of the student with the teacher's at the same depth; `InputError` where a network has
    no blocks."""
    mine, theirs = blocks_of(student), blocks_of(teacher)
    for side, found in (("student", mine), ("teacher", theirs)):
        if not found:
            raise InputError(
                f"the {side} has no repeated blocks",
                where=where,
                hint="name the layers: student = ..., teacher = ...",
            )
    count = min(len(mine), len(theirs), asked.pairs or len(mine))
    return list(zip(_taken(mine, count, asked.map), _taken(theirs, count, asked.map), strict=True))


def _taken(names: Sequence[str], count: int, by: Map) -> list[str]:
    """`count` of the names: evenly up to the last one, or the first or last ones."""
    if by == "front":
        return list(names[:count])
    if by == "back":
        return list(names[len(names) - count :])
    return [names[round((number + 1) * len(names) / count) - 1] for number in range(count)]


def attention_in(module: nn.Module, block: str, where: str) -> str:
    """The layer within a block that gives its attention weights (B, heads, L, L)."""
    for name, kind in layer_kinds(module).items():
        if name.startswith(f"{block}.") and kind in ATTENTION:
            return f"{name}.weights" if kind == "MultiheadAttention" else name
    for name in layer_names(module):
        if name.startswith(f"{block}.") and name.endswith(WEIGHTS):
            return name
    raise InputError(
        f"no attention weights within '{block}'",
        where=where,
        allowed="a softmax layer, nn.MultiheadAttention, or attention that returns its weights",
        hint="name the layers: student = [...], teacher = [...]",
    )


def values_in(module: nn.Module, block: str, where: str) -> str:
    """The layer within a block that projects its attention's values (B, L, D)."""
    for name in layer_kinds(module):
        if name.startswith(f"{block}.") and name.rpartition(".")[2] in VALUES:
            return name
    raise InputError(
        f"no attention value layer within '{block}'",
        where=where,
        allowed=", ".join(VALUES),
        hint="name the layers: student = [...], teacher = [...]",
    )


def embedding_of(module: nn.Module, where: str) -> str:
    """The layer before the first block, whose output the first block reads."""
    first = blocks_of(module)[0]
    names = list(layer_kinds(module))
    parents = {first[: first.find(".", at)] for at in range(len(first)) if first.find(".", at) > 0}
    before = [name for name in names[: names.index(first)] if name not in parents]
    if not before:
        raise InputError(f"no layer before '{first}' to take embeddings from", where=where)
    top = [n for n in before if not any(n.startswith(f"{o}.") for o in before if o != n)]
    return top[-1]
