"""Samples as the inputs of a TFLite file, which takes images with their channels last."""

from typing import Any

import numpy as np


def as_tflite_input(x: np.ndarray, details: Any) -> np.ndarray:
    """Samples x (N, ...), images as (N, C, H, W), in the layout, type and grid of an input by its
    `details`, as LiteRT's interpreter gives them.

    An image that fits in both layouts, of as many channels as rows and columns, is taken to have
    its channels first like any other. Raises `ValueError` for samples of another size.
    """
    shape = tuple(int(size) for size in details["shape"])
    last = np.moveaxis(x, 1, -1) if x.ndim == 4 else x
    x = last if last.shape == shape else x
    if x.shape != shape:
        raise ValueError(f"its input takes {shape}, the samples give {x.shape}")
    scale, zero_point = details["quantization"]
    if scale and x.dtype.kind == "f":
        limits = np.iinfo(details["dtype"])
        x = np.clip(np.round(x / np.float32(scale)) + zero_point, limits.min, limits.max)
    return np.ascontiguousarray(x.astype(details["dtype"]))
