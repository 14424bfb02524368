"""How far ahead of its input an output has to begin, so that it may overwrite it as it is read.

A convolution reads its input from the beginning to the end and writes its output in the same order.
Where the output begins `ahead` bytes before the input, each value is written only when what was
there has been read for the last time (Blacker, Bridges, Hadfield 2019, "Rapid prototyping of neural
networks on embedded systems": diagonal memory optimisation).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

MOST_POSITIONS = 1 << 18


def ahead_of(values: Mapping[str, Any], channels: int, group: int, copied: bool) -> int | None:
    """The least number of bytes, or nothing if it is not known.

    `values` are the sizes, strides and padding of a convolution with that many output channels.
    `group` positions are written together: after all of them have been `copied`, or while they are
    still read.
    """
    positions = values["output_height"] * values["output_width"]
    if values["batches"] != 1 or positions > MOST_POSITIONS:
        return None
    place = np.arange(positions)
    row = place // values["output_width"] * values["stride_y"] - values["pad_top"]
    column = place % values["output_width"] * values["stride_x"] - values["pad_left"]
    first = np.maximum(row, 0) * values["input_width"] + np.maximum(column, 0)
    reads = np.append(first * values["input_channels"], values["input_height"] *
                      values["input_width"] * values["input_channels"])  # fmt: skip
    to_come = np.minimum.accumulate(reads[::-1])[::-1]
    begin = np.arange(0, positions, group)
    end = np.minimum(begin + group, positions)
    still_read = to_come[end] if copied else to_come[begin]
    distance = end * channels - still_read
    if copied:
        distance = distance[:-1]
    return int(max(0, distance.max(initial=0)))
