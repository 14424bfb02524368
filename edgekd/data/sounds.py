"""Reading sounds from WAV files."""

import warnings
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class WavReader:
    """Reads a file as one channel (samples,) from -1 to 1, at `rate` Hz, `seconds` long: cut, or
    followed by silence. An exception for a file that is damaged, cut off or empty."""

    rate: int
    seconds: float

    def __call__(self, path: Path) -> NDArray[np.float32]:
        from scipy.io import wavfile
        from scipy.signal import resample_poly

        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Reached EOF prematurely")
            rate, values = wavfile.read(path)
        if not len(values):
            raise ValueError("the file has no samples")
        wave = as_float(values)
        wave = wave.mean(1) if wave.ndim == 2 else wave
        if rate != self.rate:
            shared = gcd(rate, self.rate)
            wave = resample_poly(wave, self.rate // shared, rate // shared)
        length = round(self.rate * self.seconds)
        cut = np.zeros(length, np.float32)
        cut[: min(length, len(wave))] = wave[:length]
        return cut


def as_float(values: NDArray[Any]) -> NDArray[Any]:
    """PCM of 8 (unsigned), 16 or 32 bits, or floating point, from -1 to 1."""
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    return values.astype(np.float32)
