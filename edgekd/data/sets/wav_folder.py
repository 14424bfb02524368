"""A folder of sounds, whose folders name their classes."""

from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

from edgekd.data.class_folders import find_files
from edgekd.data.sets import SETS
from edgekd.data.sounds import WavReader


@SETS.register(paper="")
def wav_folder(
    path: Path,
    rate: PositiveInt = 16_000,
    seconds: PositiveFloat = 1.0,
    test: float = Field(default=0.2, gt=0, lt=1),
) -> Any:
    """WAV files in PATH/train/CLASS, PATH/val/CLASS and PATH/test/CLASS, or PATH/CLASS.

    A sound is one channel (samples,) from -1 to 1, resampled to `rate` Hz and cut or filled up with
    silence to `seconds`; `log_mel` under [data.preprocess] makes features (1, mels, frames) of it.
    """
    return find_files(path, {".wav"}, test).datasets(WavReader(rate, seconds))
