"""The register tile of an integer layer: by rule, or the fastest one measured here."""

import time
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np

from edgekd.backends.tvm.grid import key_of, timer
from edgekd.backends.tvm.integers.kernels import (
    Form,
    factors,
    folded_bias,
    packed_weight,
    weighted,
)
from edgekd.backends.tvm.integers.schedule import schedule_integer
from edgekd.backends.tvm.integers.steps import Weighted
from edgekd.backends.tvm.isa import Isa
from edgekd.backends.tvm.tile import Tile, candidates

TRIED = 6
"""How many tiles of a layer are built and timed."""

ROUNDS = 8


def by_rule(form: Form, isa: Isa) -> Tile:
    """The tile that the number of registers suggests, without measuring."""
    return ranked(form, isa)[0]


def ranked(form: Form, isa: Isa) -> list[Tile]:
    """Tiles that fit a layer, the most promising first."""
    height, width = form.layer.output
    lanes, channels = form.dot.lanes, form.layer.channels
    if form.layer.kind != "grouped":
        return candidates(height, width, channels, isa, lanes)
    each = channels // form.layer.groups
    while each % lanes:
        lanes //= 2
    tiles = candidates(height, width, each, isa, lanes)
    return [tile for tile in tiles if each % tile.block == 0]


@dataclass
class IntegerGrid:
    """Chooses tiles within `seconds`; the layers left get the rule's tile. `known` maps a layer's
    key to its tile, from now or from an earlier run."""

    isa: Isa
    target: Any
    seconds: float
    known: dict[str, list[int]] = field(default_factory=dict)
    used: float = 0.0

    def choose(self, form: Form, step: Weighted) -> Tile:
        """The tile of a layer; equal layers get equal tiles."""
        key = f"int8 {form.dot.name} {key_of(form.layer)}"
        if key not in self.known and self.used < self.seconds:
            begin = time.monotonic()
            self.known[key] = list(astuple(self._fastest(form, step)))
            self.used += time.monotonic() - begin
        known = self.known.get(key)
        return Tile(*known) if known else by_rule(form, self.isa)

    def _fastest(self, form: Form, step: Weighted) -> Tile:
        tiles = ranked(form, self.isa)[:TRIED]
        if len(tiles) == 1:
            return tiles[0]
        kernels = [_timed_kernel(form, tile, step, self.target) for tile in tiles]
        best = [float("inf")] * len(tiles)
        for _ in range(ROUNDS):  # interleaved; other programs only add time
            for index, run in enumerate(kernels):
                best[index] = min(best[index], run())
        return tiles[int(np.argmin(best))]


def _timed_kernel(form: Form, tile: Tile, step: Weighted, target: Any) -> Any:
    """A function that runs the layer's kernel and returns the seconds of one run."""
    import tvm
    from tvm import te

    shape = form.layer.input if form.layer.kind != "linear" else step.in_rows(step.source.shape)
    if len(step.source.shape) == 3 and form.layer.kind != "linear":
        shape = (shape[0], *shape[2:])
    arrays = [
        np.ones(shape, step.source.grid.dtype), packed_weight(form, step.weight, tile),
        folded_bias(step), factors(step),
    ]  # fmt: skip
    tensors = [te.placeholder(each.shape, str(each.dtype)) for each in arrays]
    result = weighted(form, tile, step, tensors)
    function = schedule_integer(te.create_prim_func([*tensors, result]), form.dot.lanes)
    output = np.zeros([int(size) for size in result.shape], step.result.grid.dtype)
    arguments = [tvm.runtime.tensor(each) for each in (*arrays, output)]
    return timer(tvm.compile(function, target=target)["main"], arguments)
