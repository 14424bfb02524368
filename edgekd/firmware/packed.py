"""Steps for cores with DSP instructions: weights packed ahead of time, zero points in the bias.

A step of plain C becomes one of `conv_2d_packed`, `depthwise_3x3` or `fully_connected_packed` where
its shape and its numbers allow; the C files say how they compute. Results do not change.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgekd.firmware.step import Step, Table
from edgekd.firmware.trailing import ahead_of
from edgekd.firmware.weighted import NEEDS, Weighted, replaced

ORDER = (0, 2, 1, 3)
"""Four values as SXTB16 widens them: first the even bytes, then the odd ones."""


def with_packed_weights(steps: Sequence[Step]) -> list[Step]:
    """The same steps, with a faster kernel for each one that has one."""
    return replaced(steps, {"row": _one_row, "columns": _columns, "channels": _channels})


def _channels(step: Step, layer: Weighted) -> Step:
    return as_planes(step, layer) or step


def _columns(step: Step, layer: Weighted) -> Step:
    height, channels = layer.values["filter_height"], layer.values["input_channels"]
    by_word = channels % 4 == 0
    packed = packed_pairs(whole_words_first(layer.weights, height))
    words = packed.shape[1]
    rests, row = layer.weights.shape[1] // height % 4 * height, layer.weights.shape[1] // height
    ends = {name: layer.ends[name] for name in ("input_zero", "low", "high")}
    return replace(
        step,
        kernel="conv_2d_packed",
        parameters={
            "weights": _with_numbers(layer, packed),
            **layer.image,
            "column_words": words,
            **ends,
        },
        needs=(*NEEDS, "copy_words", "window"),
        scratch=12 * words + (0 if by_word else 3 * (rests + -rests % 4) + row),
        on_stack=True,
        ahead=ahead_of(layer.image, len(layer.weights), 3, copied=True),
    )


def _one_row(step: Step, layer: Weighted) -> Step:
    parameters = {
        "weights": _table(layer, packed_fours(layer.weights), "fours"),
        **layer.sums,
        **{name: layer.values[name] for name in ("inputs", "outputs")},
        **{name: layer.ends[name] for name in ("output_offset", "low", "high")},
    }
    return replace(
        step, kernel="fully_connected_packed", parameters=parameters, needs=NEEDS, ahead=None
    )


def as_planes(step: Step, layer: Weighted) -> Step | None:
    """A depthwise convolution of 3x3 taps with a stride of 1 or 2, or nothing for any other."""
    values = layer.values
    window = [values[name] for name in ("filter_height", "filter_width", "stride_y", "stride_x")]
    undilated = values["dilation_y"] == values["dilation_x"] == 1
    if not undilated or window not in ([3, 3, 1, 1], [3, 3, 2, 2]):
        return None
    stride = values["stride_y"]
    pairs = (values["output_width"] + 1) // 2
    height = max((values["output_height"] - 1) * stride + 3, values["pad_top"])
    width = max(2 * stride * pairs + 2, values["pad_left"])
    width += width % 2
    names = ("batches", "input_height", "input_width", "output_height", "output_width")
    return replace(
        step,
        kernel="depthwise_3x3",
        parameters={
            "weights": _table(layer, packed_rows(layer.weights), "rows"),
            **layer.sums,
            **{name: values[name] for name in names},
            "channels": values["output_channels"],
            "stride": stride,
            "pad_top": values["pad_top"],
            "pad_left": values["pad_left"],
            "plane_height": height,
            "plane_width": width,
            **layer.ends,
        },
        needs=NEEDS,
        scratch=2 * height * width,
        on_stack=True,
        in_place=(0,),
        ahead=None,
    )


def _with_numbers(layer: Weighted, packed: np.ndarray) -> Table:
    """The words of each pair of filters between the other numbers of both: conv_2d_packed.c has the
    order."""
    count = 2 * len(packed)
    bias, multiplier, shift = (
        np.pad(layer.sums[name].values.astype(np.int64), (0, count - len(layer.weights)))
        for name in ("bias", "multiplier", "shift")
    )
    shift = np.maximum(shift, 1)
    rounding = (2 * layer.ends["output_offset"] + 1) << (shift - 1)
    words = [
        bias[0::2, None], packed, 2 * bias[1::2, None],
        *(one[at::2, None] for at in (0, 1) for one in (multiplier, rounding)),
        shift[0::2, None] | shift[1::2, None] << 8,
    ]  # fmt: skip
    keys = (*(layer.sums[name].key for name in ("bias", "multiplier", "shift")),)
    kind = ("pairs", *keys, layer.ends["output_offset"])
    return Table(
        np.concatenate(words, axis=1).astype(np.int32).reshape(-1),
        (layer.values["weights"].key, *kind),
    )


def whole_words_first(weights: np.ndarray, rows: int) -> np.ndarray:
    """(outputs, values) in the order of a column: the whole fours of each row of the filter, then
    what is left of each."""
    by_row = weights.reshape(len(weights), rows, -1)
    whole = by_row.shape[2] // 4 * 4
    parts = by_row[:, :, :whole], by_row[:, :, whole:]
    return np.concatenate([part.reshape(len(weights), -1) for part in parts], axis=1)


def _table(layer: Weighted, words: np.ndarray, kind: str) -> Table:
    return Table(words.reshape(-1), (layer.values["weights"].key, kind))


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
