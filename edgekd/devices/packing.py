"""How arrays travel to an agent and back, and how many rows of them one inference takes."""

import io
import math
from collections.abc import Sequence

import numpy as np

from edgekd.devices import Options
from edgekd.devices.agent import Fault, rows_per_run
from edgekd.devices.replies import Loaded, Output, fault_of


def rows_of(
    loaded: Loaded, inputs: Sequence[np.ndarray], options: Options, place: str
) -> list[int]:
    """How many rows of each input one inference takes. Raises `InputError` if they don't fit."""
    infos = [one.model_dump() for one in loaded.inputs]
    try:
        return rows_per_run(infos, [len(x) for x in inputs], int(options.get("batch", 64)))
    except Fault as fault:
        raise fault_of(fault.answer["error"], place) from None


def bytes_per_run(inputs: Sequence[np.ndarray], rows: Sequence[int]) -> int:
    """The bytes of the rows that one inference takes."""
    return sum(
        size * x.dtype.itemsize * math.prod(x.shape[1:])
        for x, size in zip(inputs, rows, strict=True)
    )


def as_npy(arrays: Sequence[np.ndarray]) -> bytes:
    """The arrays as one .npy after another: floats in float32, integers and flags as they are."""
    stream = io.BytesIO()
    for x in arrays:
        np.save(stream, np.ascontiguousarray(x, np.float32 if x.dtype.kind == "f" else x.dtype))
    return stream.getvalue()


def unpacked(content: bytes, outputs: Sequence[Output]) -> list[np.ndarray]:
    """The outputs out of the bytes in which they lie one after another."""
    arrays, start = [], 0
    for each in outputs:
        part = content[start : start + each.bytes]
        arrays.append(np.frombuffer(part, np.dtype(each.dtype).newbyteorder("<")))
        arrays[-1] = arrays[-1].reshape(each.shape)
        start += each.bytes
    return arrays
