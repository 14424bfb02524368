"""The steps of a recipe's preprocessing as functions: on one raw input, before it is a tensor."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekd.data.inputs import AsSeen
from edgekd.errors import InputError, MissingPackage
from edgekd.installed import has_module
from edgekd.store import read_errors
from edgekd.values.preprocess import LogMel, Preprocess, Size

Prepare = Callable[[Any], Any]
"""A raw input (a picture, an array, a text) to what the network takes, before normalization."""


def preparing(steps: Preprocess, folder: Path) -> Prepare | None:
    """What is done to each raw input; None if nothing is. Paths are relative to `folder`."""
    if steps.log_mel is not None:
        return LogMelFeatures(steps.log_mel)
    if steps.tokenizer is not None:
        return Encoder(folder / steps.tokenizer.file, steps.tokenizer.length)
    if steps.resize or steps.crop or steps.channels:
        return PreparedImage(steps)
    return None


def as_seen(steps: Preprocess) -> AsSeen:
    """The arithmetic that follows on whole batches."""
    return AsSeen(steps.mean, steps.std, steps.bake)


class PreparedImage:
    """Resizes, crops and reorders one image: a Pillow image, or bytes (C, H, W)."""

    def __init__(self, steps: Preprocess) -> None:
        self.steps = steps

    def __call__(self, raw: Any) -> Any:
        from PIL import Image

        steps = self.steps
        image = raw if isinstance(raw, Image.Image) else _image_of(raw)
        if steps.channels is not None:
            image = image.convert("L" if steps.channels == "gray" else "RGB")
        if steps.resize is not None:
            filter_ = getattr(Image.Resampling, steps.interpolation.upper())
            image = image.resize(_scaled(image.size, steps.resize), filter_)
        if steps.crop is not None:
            image = _cropped(image, steps.crop)
        array = np.asarray(image)
        planes = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
        return planes[::-1].copy() if steps.channels == "bgr" else planes


def _image_of(raw: Any) -> Any:
    """Bytes (C, H, W) or (H, W) as a Pillow image. `ValueError` for anything else."""
    from PIL import Image

    array = raw.numpy() if isinstance(raw, Tensor) else np.asarray(raw)
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise ValueError(f"{array.dtype} of shape {array.shape} is not an image of bytes (C, H, W)")
    if array.ndim == 3:
        array = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)
    return Image.fromarray(array)


def _scaled(size: tuple[int, int], wanted: Size) -> tuple[int, int]:
    """Width and height after resizing: the shorter side to one number, or both as they are
    given."""
    if not isinstance(wanted, int):
        return wanted[1], wanted[0]
    width, height = size
    share = wanted / min(width, height)
    return max(wanted, round(width * share)), max(wanted, round(height * share))


def _cropped(image: Any, wanted: Size) -> Any:
    height, width = (wanted, wanted) if isinstance(wanted, int) else wanted
    if image.width < width or image.height < height:
        raise ValueError(
            f"an image of {image.height} x {image.width} is smaller than the crop of "
            f"{height} x {width}; resize first"
        )
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def adapted(transform: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A random transform as one of a sample's raw input alone: albumentations' take and return an
    array (H, W, C) by name."""
    if type(transform).__module__.partition(".")[0] == "albumentations":
        return Albumentations(transform)
    return transform


class Albumentations:
    """A transform of albumentations on a Pillow image or on bytes (C, H, W)."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, raw: Any) -> Any:
        array = np.asarray(raw)
        if not hasattr(raw, "getbands"):
            array = np.moveaxis(array, 0, -1)
        changed = self.transform(image=np.ascontiguousarray(array))["image"]
        return np.moveaxis(changed if changed.ndim == 3 else changed[..., None], -1, 0)


class LogMelFeatures:
    """A waveform (samples,) in -1 to 1 as log-mel features, in a dict of inputs the one named."""

    def __init__(self, steps: LogMel) -> None:
        self.steps = steps
        self.bands = mel_bands(steps)

    def __call__(self, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return self._features(raw)
        name = self.steps.input
        if name not in raw:
            found = "none is named" if name is None else f"'{name}' is not among them"
            raise ValueError(
                f"log_mel.input says which input is the sound: {found} (of {', '.join(raw)})"
            )
        return {**raw, name: self._features(raw[name])}

    def _features(self, raw: Any) -> Tensor:
        wave = torch.as_tensor(np.asarray(raw), dtype=torch.float32)
        if wave.ndim != 1 or len(wave) < self.steps.window:
            raise ValueError(
                f"a sound of shape {tuple(wave.shape)}: needs {self.steps.window} samples"
            )
        window = torch.hann_window(self.steps.window)
        frames = wave.unfold(0, self.steps.window, self.steps.hop) * window
        power = torch.fft.rfft(frames).abs().square()
        features: Tensor = (power @ self.bands + self.steps.floor).log()
        return features.T.unsqueeze(0) if self.steps.channel else features.T.contiguous()


def mel_bands(steps: LogMel) -> Tensor:
    """(window // 2 + 1, mels) the weight of each frequency in each triangular band."""
    high = steps.high or steps.rate / 2
    mels = torch.linspace(_mel(steps.low), _mel(high), steps.mels + 2, dtype=torch.float64)
    edges = 700 * (10 ** (mels / 2595) - 1)
    frequencies = torch.linspace(0, steps.rate / 2, steps.window // 2 + 1, dtype=torch.float64)
    low, middle, high_ = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies.unsqueeze(1) - low) / (middle - low)
    falling = (high_ - frequencies.unsqueeze(1)) / (high_ - middle)
    return torch.minimum(rising, falling).clamp(min=0).float()


def _mel(frequency: float) -> float:
    return float(2595 * np.log10(1 + frequency / 700))


class Encoder:
    """A text as `input_ids` and `attention_mask` (length,), by a tokenizer.json."""

    def __init__(self, path: Path, length: int) -> None:
        if not has_module("tokenizers"):
            raise MissingPackage("tokenizers", "text", where=str(path))
        from tokenizers import Tokenizer

        with read_errors(path, "a tokenizer.json"):
            text = path.read_text(encoding="utf-8")
        try:
            self.tokenizer = Tokenizer.from_str(text)
        except Exception as error:
            raise InputError(f"not a tokenizer.json: {error}", where=str(path)) from None
        self.length = length
        self.tokenizer.enable_truncation(length)
        self.tokenizer.enable_padding(length=length)

    def cuts(self, raw: Any) -> bool:
        """Whether a text is longer than `length` tokens."""
        return bool(self.tokenizer.encode(raw).overflowing)

    def __call__(self, raw: Any) -> dict[str, Any]:
        if not isinstance(raw, str):
            raise ValueError(f"a tokenizer reads text, found {type(raw).__name__}")
        encoded = self.tokenizer.encode(raw)
        mask = np.array(encoded.attention_mask, np.int64)
        return {"input_ids": np.array(encoded.ids, np.int64), "attention_mask": mask}
