"""The per-layer grid: times each layer's most promising tiles here and keeps the best."""

import time
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

import numpy as np

from edgekd.backends.tvm.isa import Isa
from edgekd.backends.tvm.layers import Layer, expression, linear_expression, pack
from edgekd.backends.tvm.tile import Tile, candidates
from edgekd.backends.tvm.tiled_sum import schedule_sum

TRIED = 10
"""How many tiles of a layer are built and timed; the ranking puts the best among these."""


def by_rule(layer: Layer, isa: Isa) -> Tile:
    """The tile that the number of registers suggests, without measuring."""
    return ranked(layer, isa)[0]


def ranked(layer: Layer, isa: Isa) -> list[Tile]:
    """Tiles that fit a layer, the most promising first."""
    height, width = layer.output
    lanes = isa.lanes * (2 if layer.dtype == "float16" else 1)
    channels = layer.channels
    if layer.kind == "grouped":
        each = channels // layer.groups
        while each % lanes:
            lanes //= 2
        tiles = candidates(height, width, each, isa, lanes)
        return [tile for tile in tiles if each % tile.block == 0]
    return candidates(height, width, channels, isa, lanes)


@dataclass
class Grid:
    """Chooses a layer's tile: the fastest one measured now or earlier, or one by rule.

    `known` maps a layer's key to its tile and is what a later run can start from. Measuring ends
    when `seconds` are used up; the layers left get the rule's tile.
    """

    isa: Isa
    target: Any
    seconds: float
    known: dict[str, list[int]] = field(default_factory=dict)
    used: float = 0.0

    def choose(self, layer: Layer) -> Tile:
        """The tile of a layer, by measurement or by rule; equal layers get equal tiles."""
        known = self.known.get(key_of(layer))
        return Tile(*known) if known else by_rule(layer, self.isa)

    def measure(self, layers: Iterable[Layer]) -> None:
        """Time the tiles of layers not measured before, the most expensive first, until time
        runs out."""
        new = {key_of(layer): layer for layer in layers if key_of(layer) not in self.known}
        for key, layer in sorted(new.items(), key=lambda pair: (-pair[1].multiply_adds, pair[0])):
            if self.used >= self.seconds:
                return
            self.known[key] = list(astuple(self._measured(layer)))

    def _measured(self, layer: Layer) -> Tile:
        begin = time.monotonic()
        tiles = ranked(layer, self.isa)[:TRIED]
        kernels = [_timed_kernel(layer, tile, self.target) for tile in tiles]
        best = [float("inf")] * len(tiles)
        for _ in range(12):  # interleaved; the minimum counts, since other programs only add time
            for index, run in enumerate(kernels):
                best[index] = min(best[index], run())
        self.used += time.monotonic() - begin
        return tiles[int(np.argmin(best))]


def key_of(layer: Layer) -> str:
    """A layer's geometry as text, a key."""
    return " ".join(f"{name}={value}" for name, value in asdict(layer).items())


def _timed_kernel(layer: Layer, tile: Tile, target: Any) -> Any:
    """A function that runs the layer's kernel for about half a millisecond and returns the
    seconds of one run."""
    import tvm
    from tvm import te
    from tvm.s_tir import Schedule

    weight_shape = (*layer.kernel, layer.input[3] // layer.groups, layer.channels)
    weight = pack(layer, np.ones(weight_shape, layer.dtype), tile)
    shape = (layer.input[0], *layer.input[2:]) if layer.kind == "linear" else layer.input
    data = te.placeholder(shape, layer.dtype, name="data")
    packed = te.placeholder(weight.shape, layer.dtype, name="packed")
    if layer.kind == "linear":
        result = linear_expression(layer, tile, 3, data, packed)
    else:
        result = expression(layer, tile, data, packed)
    schedule = Schedule(te.create_prim_func([data, packed, result]))
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    at = next(i for i, b in enumerate(blocks) if "edgekd_tile" in schedule.get(b).annotations)
    schedule_sum(schedule, blocks, at)
    function = tvm.compile(schedule.mod, target=target)["main"]
    arguments = [
        tvm.runtime.tensor(np.ones(shape, layer.dtype)),
        tvm.runtime.tensor(weight),
        tvm.runtime.tensor(np.zeros([int(size) for size in result.shape], layer.dtype)),
    ]
    return timer(function, arguments)


def timer(function: Any, arguments: list[Any]) -> Any:
    """A function that runs a kernel for about half a millisecond and returns the seconds of one
    run."""
    function(*arguments)
    begin = time.perf_counter()
    function(*arguments)
    count = max(2, min(200, int(5e-4 / (time.perf_counter() - begin))))

    def run() -> float:
        begin = time.perf_counter()
        for _ in range(count):
            function(*arguments)
        return (time.perf_counter() - begin) / count

    return run
