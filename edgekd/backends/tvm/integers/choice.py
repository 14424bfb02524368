"""The register tile of an integer layer."""

from edgekd.backends.tvm.integers.kernels import Form
from edgekd.backends.tvm.isa import Isa
from edgekd.backends.tvm.tile import Tile, candidates


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
