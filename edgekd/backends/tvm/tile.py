"""The register tile: how much of a convolution's output one innermost loop nest computes.

`rows` x `columns` outputs by `vectors` vectors of channels are summed in registers at once, so
`rows * columns * vectors` accumulators, the vectors of weights and one broadcast input must fit.
"""

from dataclasses import dataclass

from edgekd.backends.tvm.isa import Isa


@dataclass(frozen=True, order=True)
class Tile:
    """`lanes` is the vector's width in elements; channels are blocked by `vectors * lanes`."""

    rows: int
    columns: int
    vectors: int
    lanes: int

    @property
    def block(self) -> int:
        """Number of channels that one tile covers."""
        return self.vectors * self.lanes

    @property
    def accumulators(self) -> int:
        """Number of vector registers that hold sums."""
        return self.rows * self.columns * self.vectors


SHAPES = (
    (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (1, 7), (1, 8), (1, 10), (1, 12), (1, 14),
    (2, 2), (2, 3), (2, 4), (2, 5), (2, 7), (3, 3), (3, 4), (4, 3),
)  # fmt: skip
"""(rows, columns) worth trying; the ranking below keeps a few of them."""


def candidates(height: int, width: int, channels: int, isa: Isa, lanes: int) -> list[Tile]:
    """Tiles for an output of that size, the most promising first.

    A tile that does not divide the output computes what is cropped afterwards; the ranking counts
    that waste, the loads that a multiply-add needs, and spilled registers.
    """
    tiles = []
    for vectors in (1, 2, 3, 4, 6, 8):
        if vectors > 1 and (vectors - 1) * lanes >= channels:
            continue
        for rows, columns in SHAPES:
            if rows > max(height, 1) or columns > max(width, 1):
                continue
            tile = Tile(rows, columns, vectors, lanes)
            if tile.accumulators <= isa.registers - 1:
                tiles.append(tile)
    return sorted(tiles, key=lambda tile: (_cost(tile, height, width, channels, isa), tile))


def _cost(tile: Tile, height: int, width: int, channels: int, isa: Isa) -> float:
    """Cycles for each useful multiply-add, for two units of latency four and two loads a cycle."""
    padded = _up(height, tile.rows) * _up(width, tile.columns) * _up(channels, tile.block)
    waste = padded / (height * width * channels)
    sums = tile.accumulators
    loads = tile.rows * tile.columns + tile.vectors
    live = sums + tile.vectors + 1
    spilled = max(0, live - isa.registers)
    cycles = max(sums / 2, 4.0, loads / 2) + 2 * spilled
    return waste * cycles / sums


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
