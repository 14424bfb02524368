"""Steps for cores with DSP instructions: weights packed ahead of time, zero points in the bias.

A step of plain C becomes one of `conv_2d_packed`, `depthwise_3x3` or `fully_connected_packed` where
its shape and its numbers allow; the C files say how they compute. Results do not change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgekd.firmware.quantization import INT8_MAX, INT32_MAX
from edgekd.firmware.step import Step, Table

ORDER = (0, 2, 1, 3)
"""Four values as SXTB16 widens them: first the even bytes, then the odd ones."""

SUM_LIMIT = 1 << 30
COMMON = ("requantize", "simd", "fast_requantize")


def with_packed_weights(steps: Sequence[Step]) -> list[Step]:
    """The same steps, with a faster kernel for each one that has one."""
    return [_packed(step) for step in steps]


def _packed(step: Step) -> Step:
    values = step.parameters
    if step.kernel == "fully_connected":
        return _fully_connected(step, values) or step
    if step.kernel == "conv_2d":
        return _convolution(step, values) or step
    if step.kernel == "depthwise_conv_2d":
        return _depthwise(step, values) or step
    return step


def _fully_connected(step: Step, values: Mapping[str, Any]) -> Step | None:
    weights = values["weights"].values.reshape(values["outputs"], values["inputs"])
    if values["rows"] == 1:
        return _one_row(step, values, weights)
    image = {
        "batches": 1,
        "input_height": 1,
        "input_width": values["rows"],
        "input_channels": values["inputs"],
        "filter_height": 1,
        "filter_width": 1,
        "output_height": 1,
        "output_width": values["rows"],
        "output_channels": values["outputs"],
        **dict.fromkeys(("stride_y", "stride_x", "dilation_y"), 1),
        **dict.fromkeys(("pad_top", "pad_left"), 0),
    }
    return _columns(step, {**values, **image}, weights)


def _convolution(step: Step, values: Mapping[str, Any]) -> Step | None:
    if values["group_inputs"] != values["input_channels"] or values["dilation_x"] != 1:
        return None
    weights = values["weights"].values.reshape(values["output_channels"], -1)
    if _is_one_row(values):
        row = {"inputs": weights.shape[1], "outputs": len(weights), "step": 1}
        return _one_row(step, {**values, **row}, weights)
    return _columns(step, values, weights)


def _is_one_row(values: Mapping[str, Any]) -> bool:
    """Whether the filter is as large as the input, and applied once."""
    return (
        all(values[name] == 1 for name in ("batches", "output_height", "output_width"))
        and not any(_padding(values))
        and values["filter_height"] == values["input_height"]
        and values["filter_width"] == values["input_width"]
        and values["dilation_y"] == 1
    )


def _depthwise(step: Step, values: Mapping[str, Any]) -> Step | None:
    if values["input_channels"] == 1 and values["depth"] > 1 and values["dilation_x"] == 1:
        by_tap = values["weights"].values.reshape(-1, values["output_channels"])
        return _columns(step, values, by_tap.T)
    window = [values[name] for name in ("filter_height", "filter_width", "stride_y")]
    simple = all(values[name] == 1 for name in ("depth", "dilation_y", "dilation_x"))
    if simple and window in ([3, 3, 1], [3, 3, 2]) and values["stride_y"] == values["stride_x"]:
        return _planes(step, values)
    return None


def _columns(step: Step, values: Mapping[str, Any], weights: np.ndarray) -> Step | None:
    """conv_2d_packed, whose weights are (outputs, values of a column)."""
    sums = _sums(values, weights)
    if sums is None:
        return None
    packed = packed_pairs(weights)
    words = packed.shape[1]
    names = (
        "batches", "input_height", "input_width", "input_channels", "filter_height",
        "filter_width", "output_height", "output_width", "output_channels", "stride_y",
        "stride_x", "dilation_y", "pad_top", "pad_left",
    )  # fmt: skip
    return replace(
        step,
        kernel="conv_2d_packed",
        parameters={
            "weights": _table(values["weights"], packed, "pairs"),
            **sums,
            **{name: values[name] for name in names},
            "column_words": words,
            "pointwise": int(_is_pointwise(values)),
            **_ends(values),
        },
        needs=COMMON,
        scratch=12 * words + (2 * words if values["input_channels"] % 4 else 0),
        on_stack=True,
    )


def _is_pointwise(values: Mapping[str, Any]) -> bool:
    window = values["filter_height"], values["filter_width"]
    unpadded = not any(_padding(values))
    return window == (1, 1) and unpadded and int(values["input_channels"]) % 4 == 0


def _padding(values: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether a window begins before the input, or ends behind it."""
    behind = (
        (values[f"output_{size}"] - 1) * values[f"stride_{axis}"] + values[f"filter_{size}"]
        - values[f"pad_{side}"] > values[f"input_{size}"]
        for size, axis, side in (("height", "y", "top"), ("width", "x", "left"))
    )  # fmt: skip
    return values["pad_top"] + values["pad_left"] > 0, any(behind)


def _one_row(step: Step, values: Mapping[str, Any], weights: np.ndarray) -> Step | None:
    """fully_connected_packed, whose weights are (outputs, inputs)."""
    sums = _sums(values, weights, shared=not values["step"])
    if sums is None:
        return None
    parameters = {
        "weights": _table(values["weights"], packed_fours(weights), "fours"),
        **sums,
        **{name: values[name] for name in ("inputs", "outputs", "step")},
        **_ends(values),
    }
    del parameters["input_zero"]
    return replace(step, kernel="fully_connected_packed", parameters=parameters, needs=COMMON)


def _planes(step: Step, values: Mapping[str, Any]) -> Step | None:
    """depthwise_3x3."""
    by_channel = values["weights"].values.reshape(9, -1).T
    sums = _sums(values, by_channel)
    if sums is None:
        return None
    stride = values["stride_y"]
    pairs = (values["output_width"] + 1) // 2
    height = max((values["output_height"] - 1) * stride + 3, values["pad_top"])
    width = max(2 * stride * pairs + 2, values["pad_left"])
    width += width % 2
    names = (
        "batches", "input_height", "input_width", "input_channels", "output_height", "output_width"
    )  # fmt: skip
    shape = {name.replace("input_channels", "channels"): values[name] for name in names}
    return replace(
        step,
        kernel="depthwise_3x3",
        parameters={
            "weights": _table(values["weights"], packed_rows(by_channel), "rows"),
            **sums,
            **shape,
            "stride": stride,
            "pad_top": values["pad_top"],
            "pad_left": values["pad_left"],
            "plane_height": height,
            "plane_width": width,
            **_ends(values),
        },
        needs=COMMON,
        scratch=2 * height * width,
        on_stack=True,
        in_place=(0,),
    )


def _ends(values: Mapping[str, Any]) -> dict[str, int]:
    kept = {name: values[name] for name in ("output_offset", "low", "high")}
    return {"input_zero": -values["input_offset"], **kept}


def _sums(
    values: Mapping[str, Any], weights: np.ndarray, shared: bool = False
) -> dict[str, Table] | None:
    """Bias, multipliers and shifts for the fast requantization, or nothing if they do not suit it.

    The sum of input - zero point times weight is that of input times weight, less a constant.
    """
    wide = weights.astype(np.int64)
    if len(wide) == 0 or wide.min() < -INT8_MAX:
        return None
    bias = values["bias"].values.astype(np.int64) + values["input_offset"] * wide.sum(axis=1)
    farthest = np.abs(bias) + 128 * np.abs(wide).sum(axis=1)
    multiplier = values["multiplier"].values.astype(np.int64)
    stored = values["shift"].values.astype(np.int64)
    shift = np.where(multiplier == 0, 1, -stored)
    if farthest.max() >= SUM_LIMIT or shift.min() < 1:
        return None
    high = (farthest * multiplier >> 31) + 2
    if (high + (abs(2 * values["output_offset"] + 1) << (shift - 1))).max() > INT32_MAX:
        return None
    key = (values["bias"].key, values["weights"].key, values["input_offset"])
    folded = Table(bias.astype(np.int32), (*key, "folded"))
    right = Table(shift.astype(np.int8), (values["shift"].key, "right"))
    if not shared and len(shift) != len(wide):
        spread = len(wide)
        multiplier = np.repeat(values["multiplier"].values, spread)
        right = Table(np.repeat(right.values, spread), (*right.key, spread))
        each = Table(multiplier, (values["multiplier"].key, spread))
        return {"bias": folded, "multiplier": each, "shift": right}
    return {"bias": folded, "multiplier": values["multiplier"], "shift": right}


def _table(source: Table, words: np.ndarray, kind: str) -> Table:
    return Table(words.reshape(-1), (source.key, kind))


def packed_pairs(weights: np.ndarray) -> np.ndarray:
    """(outputs, values) int8 to (pairs of outputs, words) int32, in the order of a widened column,
    with zeros up to whole pairs and whole eights."""
    outputs, count = weights.shape
    padded = np.pad(weights, ((0, outputs % 2), (0, -count % 8)))
    ordered = padded.reshape(len(padded), -1, 4)[:, :, ORDER].reshape(len(padded), -1)
    return _words(_halves(ordered[0::2], ordered[1::2]))


def packed_fours(weights: np.ndarray) -> np.ndarray:
    """(outputs, inputs) int8 to (fours of outputs, fours of inputs, 4) int32: both pairs of outputs
    with the even inputs, then with the odd ones."""
    outputs, count = weights.shape
    padded = np.pad(weights, ((0, -outputs % 4), (0, -count % 4)))
    ordered = padded.reshape(len(padded), -1, 4)[:, :, ORDER].reshape(len(padded), -1)
    words = _words(_halves(ordered[0::2], ordered[1::2]))
    by_pair = words.reshape(len(padded) // 4, 2, -1, 2)
    return by_pair.transpose(0, 2, 3, 1).reshape(len(padded) // 4, -1, 4)


def packed_rows(weights: np.ndarray) -> np.ndarray:
    """(channels, 9) int8 to (channels, 3) int32: the bytes w0, w1, w1, w2 of each row."""
    rows = weights.reshape(len(weights), 3, 3)[:, :, (0, 1, 1, 2)]
    return np.ascontiguousarray(rows).view("<i4").reshape(len(weights), 3).astype(np.int32)


def _halves(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """256 * second + first; within int16, as no weight is -128."""
    return 256 * second.astype(np.int32) + first.astype(np.int32)


def _words(halves: np.ndarray) -> np.ndarray:
    """Adjacent halves in one word, the first one lowest."""
    low, high = halves[:, 0::2].astype(np.int64), halves[:, 1::2].astype(np.int64)
    return ((high << 16) | (low & 0xFFFF)).astype(np.int32)
