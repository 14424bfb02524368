"""MLPerf Tiny's four architectures, each as a full-int8 TFLite file made by edgekd's own route.

The weights are random: what is asked of the C is that it gives the same bytes as the file does, and
the layers' sizes decide memory and instructions. `python networks.py FOLDER` writes them.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from edgekd.backends.tflite import Tflite
from edgekd.models.autoencoder import autoencoder
from edgekd.models.ds_cnn import ds_cnn
from edgekd.models.mobilenet_v1 import mobilenet_v1
from edgekd.models.resnet import resnet8
from edgekd.quant.calibration import calibrate
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

# Factory, shape of one input, and the number of values that MLPerf Tiny's own model has.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "resnet8": (resnet8, (3, 32, 32), 78_666),
    "ds_cnn": (ds_cnn, (1, 49, 10), 24_908),
    "mobilenet_v1": (mobilenet_v1, (3, 96, 96), 221_794),
    "autoencoder": (autoencoder, (640,), 269_992),
}


def values_of(module: nn.Module) -> int:
    """Parameters and batch-norm statistics, as Keras counts them."""
    kept = [*module.parameters(), *(one for one in module.buffers() if one.is_floating_point())]
    return sum(one.numel() for one in kept)


def pictures(shape: tuple[int, ...], count: int, seed: int) -> torch.Tensor:
    """(N, ...) in [0, 1]: noise, each sample of a contrast and a brightness of its own, so that
    what a network makes of them differs."""
    chance = torch.Generator().manual_seed(seed)
    per_sample = (count, *[1] * len(shape))
    contrast = torch.rand(per_sample, generator=chance)
    brightness = torch.rand(per_sample, generator=chance)
    noise = torch.rand(count, *shape, generator=chance)
    return (brightness + contrast * (noise - 0.5)).clamp(0, 1)


def spread(module: nn.Module, samples: torch.Tensor) -> None:
    """Scale the last layer so that each output has mean 0 and deviation 2 over the samples: random
    weights alone give nearly the same answer to everything, which would prove nothing."""
    last = [part for part in module.modules() if isinstance(part, nn.Linear)][-1]
    found = module.eval()(samples)
    deviation = found.std(0)
    factor = 2 / deviation.clamp(min=float(deviation.median()) / 2)
    last.weight.mul_(factor[:, None])
    last.bias.copy_((last.bias - found.mean(0)) * factor)


def trained(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The network with seeded weights, settled batch statistics and outputs that differ, and 32
    samples (N, ...)."""
    make, shape, values = NETWORKS[name]
    torch.manual_seed(0)
    module = make()
    if values_of(module) != values:
        raise AssertionError(f"{name} has {values_of(module)} values, not {values}")
    samples = pictures(shape, 32, 1)
    settle(module, samples)
    with torch.no_grad():
        spread(module, samples)
    return module.eval(), samples


def settle(module: nn.Module, samples: torch.Tensor) -> None:
    """Draw the batch normalizations' weights and take their statistics from the samples."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.uniform_(part.bias, -0.5, 0.5)
                part.momentum = None  # the mean of what is seen, so that once is enough
        module.train()(samples)
    module.eval()


def write_tflite(name: str, folder: Path) -> Path:
    """FOLDER/NAME.tflite, made by calibration for a Cortex-M's scheme; kept if it is there."""
    path = folder / f"{name}.tflite"
    if not path.is_file():
        export(*trained(name), path)
    return path


def export(module: nn.Module, samples: torch.Tensor, path: Path) -> None:
    """Write a network as a full-int8 TFLite file, calibrated on the samples."""
    target = load_target("cortex-m4")
    whole = Candidate(module, samples[:1])
    graph = calibrate(module, samples[:1], samples, target.quantization)
    made = path.with_suffix("")
    made.mkdir(parents=True, exist_ok=True)
    (artifact,) = Tflite().compile(whole.after(graph, "quantize: int8", "int8"), target, {}, made)
    artifact.path.replace(path)
    made.rmdir()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for one in NETWORKS:
        print(write_tflite(one, Path(sys.argv[1])))
