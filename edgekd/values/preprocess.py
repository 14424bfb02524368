"""How raw inputs become what the network takes: one value for training, calibration and test."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from edgekd.values.tables import Value

Size = PositiveInt | tuple[PositiveInt, PositiveInt]
"""One side, or height and width."""


class LogMel(Value):
    """Log-mel features of a sound: the natural logarithm of mel-band energies plus `floor`.

    Frames of `window` samples, `hop` apart, without padding, under a Hann window; `mels` triangular
    bands from `low` to `high` Hz (half the rate if 0) on O'Shaughnessy's scale,
    2595 log10(1 + f / 700). The result is (1, mels, frames), as images are, or (mels, frames)
    without a `channel`, as Whisper reads it. `input` names the sound among several inputs.
    """

    rate: PositiveInt
    window: PositiveInt = 400
    hop: PositiveInt = 160
    mels: PositiveInt = 40
    low: float = Field(default=20.0, ge=0)
    high: float = Field(default=0.0, ge=0)
    floor: PositiveFloat = 1e-6
    channel: bool = True
    input: str | None = None

    @model_validator(mode="after")
    def _in_range(self) -> "LogMel":
        if self.high > self.rate / 2:
            raise ValueError(
                f"high = {self.high:g} Hz is above half the rate, {self.rate / 2:g} Hz"
            )
        if self.low >= (self.high or self.rate / 2):
            raise ValueError(f"low = {self.low:g} Hz is not below the highest band")
        return self


class Tokenizer(Value):
    """A tokenizer.json of the `tokenizers` library; sentences are cut or padded to `length`."""

    file: Path
    length: PositiveInt


class Preprocess(Value):
    """What is done to a raw input, in this order.

    Images: `resize` to a height and width, or the shorter side to one number; the middle `crop`;
    `channels` in that order; values from 0 to 1, then (value - mean) / std for each channel.
    Sounds: `log_mel`. Texts: `tokenizer`. With `bake` the deployed graph itself takes the image as
    bytes (height, width, channels) and does the arithmetic; resizing stays outside.
    """

    resize: Size | None = None
    crop: Size | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    channels: Literal["rgb", "bgr", "gray"] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[PositiveFloat, ...] = ()
    log_mel: LogMel | None = None
    tokenizer: Tokenizer | None = None
    bake: bool = False

    @field_validator("tokenizer", mode="before")
    @classmethod
    def _a_table(cls, given: Any) -> Any:
        if isinstance(given, str):
            file = f"{given}/tokenizer.json" if not given.endswith(".json") else given
            raise ValueError(f"write a table: {{ file = '{file}', length = 128 }}")
        return given

    @model_validator(mode="after")
    def _of_one_kind(self) -> "Preprocess":
        if len(self.mean) != len(self.std) and self.mean and self.std:
            raise ValueError(f"{len(self.mean)} values in 'mean', but {len(self.std)} in 'std'")
        image = self.resize or self.crop or self.channels or self.mean or self.std
        kinds = [bool(image), self.log_mel is not None, self.tokenizer is not None]
        if sum(kinds) > 1:
            raise ValueError("image, sound and text steps exclude each other")
        if self.bake and not (self.mean or self.std or image):
            raise ValueError("bake = true needs steps for images")
        return self

    @property
    def facts(self) -> dict[str, Any]:
        """The steps that are set, as a deployed file carries them; empty without any."""
        return self.model_dump(mode="json", exclude_defaults=True)


NO_STEPS = Preprocess()
