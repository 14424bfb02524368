"""Steps for cores with vectors of 128 bits (Helium, MVE): the file's own weights, in C intrinsics.

A step of plain C becomes one of `conv_2d_helium`, `depthwise_helium` or `fully_connected_helium`
where its shape and its numbers allow. Results do not change.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgekd.firmware.memory import aligned
from edgekd.firmware.packed import as_planes
from edgekd.firmware.step import Step, Table
from edgekd.firmware.trailing import ahead_of
from edgekd.firmware.weighted import NEEDS, Weighted, replaced

LEAST_CHANNELS = 16
"""Depthwise convolutions of fewer channels than a vector has are faster one by one."""

MOST_TAPS = 25
"""DEPTHWISE_HELIUM_TAPS in depthwise_helium.c."""


def with_vectors(steps: Sequence[Step]) -> list[Step]:
    """The same steps, with a faster kernel for each one that has one."""
    return replaced(steps, {"row": _one_row, "columns": _columns, "channels": _depthwise})


def _depthwise(step: Step, layer: Weighted) -> Step:
    if len(layer.weights) < LEAST_CHANNELS:
        planes = as_planes(step, layer)
        if planes is not None:
            return planes
    return _channels(step, layer) if layer.weights.shape[1] <= MOST_TAPS else step


def _one_row(step: Step, layer: Weighted) -> Step:
    parameters = {
        "weights": _rows_of(layer),
        **_in_fours(layer),
        **{name: layer.values[name] for name in ("inputs", "outputs")},
        **{name: layer.ends[name] for name in ("output_offset", "low", "high")},
    }
    needs = (*NEEDS, "helium")
    return replace(
        step, kernel="fully_connected_helium", parameters=parameters, needs=needs, ahead=None
    )


def _columns(step: Step, layer: Weighted) -> Step:
    return replace(
        step,
        kernel="conv_2d_helium",
        parameters={
            "weights": _rows_of(layer),
            **_in_fours(layer),
            **layer.image,
            "pointwise": int(layer.is_pointwise),
            **layer.ends,
        },
        needs=(*NEEDS, "helium", "window"),
        scratch=0 if layer.is_pointwise else 4 * aligned(layer.weights.shape[1]),
        on_stack=True,
        ahead=ahead_of(layer.image, len(layer.weights), 4, copied=not layer.is_pointwise),
    )


def _channels(step: Step, layer: Weighted) -> Step:
    image = {name: value for name, value in layer.image.items() if name != "output_channels"}
    image["channels"] = image.pop("input_channels")
    return replace(
        step,
        kernel="depthwise_helium",
        parameters={
            "weights": layer.values["weights"],
            **_in_fours(layer),
            **image,
            "dilation_x": layer.values["dilation_x"],
            **layer.ends,
        },
        needs=(*NEEDS, "helium"),
        scratch=layer.values["input_channels"],
        on_stack=True,
        ahead=ahead_of(layer.image, len(layer.weights), 1, copied=False),
    )


def _in_fours(layer: Weighted) -> dict[str, Table]:
    """Bias, multipliers and shifts up to whole fours, which are loaded at once."""
    rest = -len(layer.weights) % 4
    if not rest:
        return dict(layer.sums)
    return {
        name: Table(np.pad(table.values, (0, rest), mode="edge"), (*table.key, "fours"))
        for name, table in layer.sums.items()
    }


def _rows_of(layer: Weighted) -> Table:
    """The weights as (outputs, values), which those of most layers already are."""
    table: Table = layer.values["weights"]
    if np.array_equal(table.values, layer.weights.reshape(-1)):
        return table
    return Table(np.ascontiguousarray(layer.weights).reshape(-1), (table.key, "rows"))
