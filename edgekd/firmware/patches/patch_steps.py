"""The steps that compute one patch of a segment.

Each node is lowered as if the patch were an image of its own, whose padding is only what the whole
image has there. Convolutions and pools read a part of an image where it stands, by a negative
padding; other nodes read a copy.
"""

from collections.abc import Callable
from dataclasses import replace

from edgekd.firmware.graph import Array, Node
from edgekd.firmware.patches.intervals import NEAREST, PADS, Interval, enlarged
from edgekd.firmware.patches.segments import Grid
from edgekd.firmware.step import Step, about
from edgekd.firmware.windows import VALID

Lower = Callable[[Node], list[Step]]

FRESH = 1 << 24
"""The indices of arrays that the file does not have begin here, `PLACES` for each node."""

PLACES = 1 << 12
IN_PLACE = ("CONV_2D", "AVERAGE_POOL_2D", "MAX_POOL_2D")
"""The nodes that read a part of an image where it stands."""

Region = tuple[Interval, Interval]
"""Rows and columns."""


def patch_steps(grid: Grid, at: tuple[int, int], lower: Lower) -> list[Step]:
    """The steps of the patch at that place, from the whole source to the whole output."""
    segment = grid.segment
    steps: list[Step] = []
    for number, node in enumerate(segment.nodes):
        if node.kind in PADS:
            output, scatter = _output(grid, at, number)
            steps += [_padded(grid, at, number, output, lower), *scatter]
            continue
        if node.kind == NEAREST:
            output, scatter = _output(grid, at, number)
            steps += [_enlarged(grid, at, number, output), *scatter]
            continue
        inputs = list(node.inputs)
        pads: dict[str, tuple[int, int]] = {}
        for place, array in enumerate(node.inputs):
            if array is None or array.values is not None:
                continue
            fresh = FRESH + PLACES * (segment.begin + number) + place
            inputs[place], pads, copies = _input(grid, at, (number, place), array, fresh)
            steps += copies
        output, scatter = _output(grid, at, number)
        options = {**node.options, "Padding": VALID, **pads} if pads else node.options
        part = replace(node, inputs=tuple(inputs), outputs=(output,), options=options)
        steps += [*lower(part), *scatter]
    return steps


def _input(
    grid: Grid, at: tuple[int, int], reader: tuple[int, int], array: Array, fresh: int
) -> tuple[Array, dict[str, tuple[int, int]], list[Step]]:
    """The array that a node reads, the padding around what it reads, and the copy before it."""
    node = grid.segment.nodes[reader[0]]
    reads = grid.rows.patches[at[0]].reads[reader], grid.columns.patches[at[1]].reads[reader]
    wanted = reads[0].interval, reads[1].interval
    held = _held(grid, at, array)
    part = _part(array, held)
    before, behind = [one.before for one in reads], [one.behind for one in reads]
    if node.kind in IN_PLACE:
        before = [b - (w[0] - h[0]) for b, w, h in zip(before, wanted, held, strict=True)]
        behind = [b - (h[1] - w[1]) for b, w, h in zip(behind, wanted, held, strict=True)]
    pads = {"PadY": (before[0], behind[0]), "PadX": (before[1], behind[1])}
    if node.kind in IN_PLACE or wanted == held:
        return part, pads, []
    copy = replace(_part(array, wanted), index=fresh)
    return copy, pads, [_rectangle(node, (part, held), (copy, wanted), wanted)]


def _padded(grid: Grid, at: tuple[int, int], number: int, output: Array, lower: Lower) -> Step:
    """The patch of a padded image: its part of the image, and the padding's value around that."""
    node = grid.segment.nodes[number]
    source = node.computed(0)
    (whole,) = lower(node)
    rows, columns = grid.rows.patches[at[0]], grid.columns.patches[at[1]]
    reads = rows.reads[number, 0], columns.reads[number, 0]
    wanted = reads[0].interval, reads[1].interval
    begins = wanted[0][0] - reads[0].before, wanted[1][0] - reads[1].before
    held = _held(grid, at, source)
    to = (begins[0], begins[0] + output.shape[1]), (begins[1], begins[1] + output.shape[2])
    copied = _rectangle(node, (_part(source, held), held), (output, to), wanted)
    fields = {f"copied.{name}": value for name, value in copied.parameters.items()}
    return replace(
        copied,
        kernel="pad_rectangle",
        parameters={**fields, "to_height": output.shape[1], "value": whole.parameters["value"]},
        about=about(replace(node, outputs=(output,)), _part(source, held)),
        needs=(*copied.needs, "rectangle"),
    )


def _enlarged(grid: Grid, at: tuple[int, int], number: int, output: Array) -> Step:
    """The patch of an image whose pixels are repeated."""
    node = grid.segment.nodes[number]
    source = node.computed(0)
    held = _held(grid, at, source)
    part = _part(source, held)
    (top, _), (left, _) = _patch_of(grid, at, node.output)
    up, right = enlarged(node, "Y"), enlarged(node, "X")
    fields = {
        "rows": output.shape[1],
        "columns": output.shape[2],
        "channels": output.shape[3],
        "up": up,
        "right": right,
        "from_row": top - up * held[0][0],
        "from_column": left - right * held[1][0],
        "from_width": part.shape[2],
    }
    text = about(replace(node, outputs=(output,)), part)
    return Step("nearest_rectangle", fields, (part,), output, text, needs=("copy_words",))


def _output(grid: Grid, at: tuple[int, int], number: int) -> tuple[Array, list[Step]]:
    """The array that a node writes, and the copy behind the last node into the whole output."""
    segment = grid.segment
    output = segment.nodes[number].output
    held = (
        grid.rows.patches[at[0]].held[output.index],
        grid.columns.patches[at[1]].held[output.index],
    )
    part = _part(output, held)
    if output is not segment.output:
        return part, []
    part = replace(part, index=FRESH + PLACES * (segment.begin + number) + PLACES - 1)
    return part, [_rectangle(segment.nodes[number], (part, held), (output, _whole(output)), held)]


def _held(grid: Grid, at: tuple[int, int], array: Array) -> Region:
    """What is in memory of a tensor: all of the segment's source."""
    if array is grid.segment.source:
        return _whole(array)
    return _patch_of(grid, at, array)


def _patch_of(grid: Grid, at: tuple[int, int], array: Array) -> Region:
    rows, columns = grid.rows.patches[at[0]], grid.columns.patches[at[1]]
    return rows.held[array.index], columns.held[array.index]


def _whole(array: Array) -> Region:
    return (0, array.shape[1]), (0, array.shape[2])


def _part(array: Array, region: Region) -> Array:
    (top, bottom), (left, right) = region
    return replace(array, shape=(1, bottom - top, right - left, array.shape[3]))


def _rectangle(
    node: Node, source: tuple[Array, Region], output: tuple[Array, Region], region: Region
) -> Step:
    """The copy of a region of the image, from an array to another that each hold a part of it."""
    (rows, columns), (_, from_held), (_, to_held) = region, source, output
    fields = {
        "rows": rows[1] - rows[0],
        "columns": columns[1] - columns[0],
        "channels": source[0].shape[3],
        "from_row": rows[0] - from_held[0][0],
        "from_column": columns[0] - from_held[1][0],
        "from_width": source[0].shape[2],
        "to_row": rows[0] - to_held[0][0],
        "to_column": columns[0] - to_held[1][0],
        "to_width": output[0].shape[2],
    }
    moved = replace(node, kind="COPY", outputs=(output[0],))
    text = about(moved, source[0])
    return Step("rectangle", fields, (source[0],), output[0], text, needs=("copy_words",))
