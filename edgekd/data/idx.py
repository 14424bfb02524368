"""The IDX format of MNIST and the sets that follow it, gzipped."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgekd.errors import InputError
from edgekd.store import read_errors

UNSIGNED_BYTES = 0x08


def read_idx(path: Path, rank: int) -> Tensor:
    """The unsigned bytes of one gzipped IDX file, in the shape of its header, with `rank` axes.

    A missing, truncated, uncompressed or different file raises one InputError.
    """
    try:
        with read_errors(path):
            raw = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"not a complete gzip file: {error}", where=str(path)) from None
    if len(raw) < 4 + 4 * rank or raw[:2] != b"\0\0":
        raise InputError("not an IDX file", where=str(path))
    if raw[2] != UNSIGNED_BYTES or raw[3] != rank:
        raise InputError(
            f"an IDX file of type {raw[2]:#04x} with {raw[3]} axes",
            where=str(path),
            allowed=f"type 0x08 (unsigned bytes) with {rank} axes",
        )
    shape = [int(size) for size in np.frombuffer(raw, ">u4", rank, offset=4)]
    count = len(raw) - 4 - 4 * rank
    if count != math.prod(shape):
        raise InputError(
            f"{count} values where the header says {math.prod(shape)}", where=str(path)
        )
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    return torch.from_numpy(values.reshape(shape).copy())
