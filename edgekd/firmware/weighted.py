"""The three forms in which layers with weights are computed fast, and their sums and rescaling.

A layer is one row of inputs, columns of inputs (a convolution of one group), or channels (a
depthwise convolution). Its zero point is folded into the bias.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgekd.firmware.quantization import INT8_MAX, INT32_MAX
from edgekd.firmware.step import Step, Table

SUM_LIMIT = 1 << 30
NEEDS = ("requantize", "inlining", "simd", "fast_requantize")

IMAGE = (
    "batches", "input_height", "input_width", "input_channels", "filter_height", "filter_width",
    "output_height", "output_width", "output_channels", "stride_y", "stride_x", "dilation_y",
    "pad_top", "pad_left",
)  # fmt: skip


Form = Literal["row", "columns", "channels"]


@dataclass(frozen=True, eq=False)
class Weighted:
    """A layer with weights: `weights` are (outputs, values of a row or column), or (channels,
    taps); `values` are the parameters of its step, as a convolution has them if it is not one
    row; `sums` are its bias, multipliers and right shifts."""

    form: Form
    values: Mapping[str, Any]
    weights: np.ndarray
    sums: Mapping[str, Table]

    @property
    def image(self) -> dict[str, int]:
        """The sizes, strides and padding of a convolution."""
        return {name: self.values[name] for name in IMAGE}

    @property
    def ends(self) -> dict[str, int]:
        """The zero points and the range of the outputs."""
        kept = {name: self.values[name] for name in ("output_offset", "low", "high")}
        return {"input_zero": -self.values["input_offset"], **kept}

    @property
    def is_pointwise(self) -> bool:
        """Whether a column is one pixel, and always within the input."""
        window = self.values["filter_height"], self.values["filter_width"]
        return window == (1, 1) and not _is_padded(self.values)


def weighted(step: Step) -> Weighted | None:
    """The form of a step of plain C, or nothing if it has none or its numbers do not suit the fast
    requantization."""
    values = step.parameters
    if step.kernel == "fully_connected":
        return _fully_connected(values)
    if step.kernel == "conv_2d":
        return _convolution(values)
    if step.kernel == "depthwise_conv_2d":
        return _depthwise(values)
    return None


def replaced(
    steps: Sequence[Step], by: Mapping[Form, Callable[[Step, Weighted], Step]]
) -> list[Step]:
    """The same steps, with what `by` makes of each layer with weights, by its form."""
    layers = [(step, weighted(step)) for step in steps]
    return [step if layer is None else by[layer.form](step, layer) for step, layer in layers]


def _fully_connected(values: Mapping[str, Any]) -> Weighted | None:
    weights = values["weights"].values.reshape(values["outputs"], values["inputs"])
    if values["rows"] == 1:
        return _formed("row", values, weights)
    sizes = {
        "input_width": values["rows"],
        "output_width": values["rows"],
        "input_channels": values["inputs"],
        "output_channels": values["outputs"],
        "pad_top": 0,
        "pad_left": 0,
    }
    return _formed("columns", {**values, **dict.fromkeys(IMAGE, 1), **sizes}, weights)


def _convolution(values: Mapping[str, Any]) -> Weighted | None:
    if values["group_inputs"] != values["input_channels"] or values["dilation_x"] != 1:
        return None
    weights = values["weights"].values.reshape(values["output_channels"], -1)
    if _is_one_row(values):
        row = {"inputs": weights.shape[1], "outputs": len(weights)}
        return _formed("row", {**values, **row}, weights)
    return _formed("columns", values, weights)


def _is_one_row(values: Mapping[str, Any]) -> bool:
    """Whether the filter is as large as the input, and applied once."""
    return (
        all(values[name] == 1 for name in ("batches", "output_height", "output_width"))
        and not _is_padded(values)
        and values["filter_height"] == values["input_height"]
        and values["filter_width"] == values["input_width"]
        and values["dilation_y"] == 1
    )


def _depthwise(values: Mapping[str, Any]) -> Weighted | None:
    weights = values["weights"].values.reshape(-1, values["output_channels"]).T
    if values["depth"] == 1:
        return _formed("channels", values, weights)
    if values["input_channels"] == 1 and values["dilation_x"] == 1:
        return _formed("columns", values, weights)
    return None


def _is_padded(values: Mapping[str, Any]) -> bool:
    """Whether a window begins before the input, or ends behind it."""
    behind = (
        (values[f"output_{size}"] - 1) * values[f"stride_{axis}"] + values[f"filter_{size}"]
        - values[f"pad_{side}"] > values[f"input_{size}"]
        for size, axis, side in (("height", "y", "top"), ("width", "x", "left"))
    )  # fmt: skip
    return max(values["pad_top"], values["pad_left"]) > 0 or any(behind)


def _formed(
    form: Literal["row", "columns", "channels"], values: Mapping[str, Any], weights: np.ndarray
) -> Weighted | None:
    sums = _sums(values, weights)
    return Weighted(form, values, weights, sums) if sums is not None else None


def _sums(values: Mapping[str, Any], weights: np.ndarray) -> dict[str, Table] | None:
    """Bias, multipliers and shifts for the fast requantization, or nothing if they do not suit it.

    The sum of input - zero point times weight is that of input times weight, less a constant.
    """
    wide = weights.astype(np.int64)
    if len(wide) == 0 or wide.min() < -INT8_MAX:
        return None
    bias = values["bias"].values.astype(np.int64) + values["input_offset"] * wide.sum(axis=1)
    farthest = np.abs(bias) + 128 * np.abs(wide).sum(axis=1)
    multiplier = values["multiplier"].values.astype(np.int64)
    shift = np.where(multiplier == 0, 1, -values["shift"].values.astype(np.int64))
    if farthest.max() >= SUM_LIMIT or shift.min() < 1:
        return None
    high = (farthest * multiplier >> 31) + 2
    if (high + (abs(2 * values["output_offset"] + 1) << (shift - 1))).max() > INT32_MAX:
        return None
    key = (values["bias"].key, values["weights"].key, values["input_offset"])
    return {
        "bias": Table(bias.astype(np.int32), (*key, "folded")),
        "multiplier": _for_each(values["multiplier"], len(wide)),
        "shift": _for_each(Table(shift.astype(np.int8), (values["shift"].key, "right")), len(wide)),
    }


def _for_each(table: Table, outputs: int) -> Table:
    """A number for each output, also where all share one."""
    if len(table.values) == outputs:
        return table
    return Table(np.repeat(table.values, outputs), (table.key, outputs))
