"""Whether `edgekd diagnose` puts a layer that was made bad first.

Two networks are quantized by ONNX Runtime's own quantizer: this project's digits teacher, and a
ResNet of timm's. In each trial one layer is made bad, drawn by seed among all but the last, and the
rank of that layer in the diagnosis is noted. The faults:

- `outlier channel`: one output channel of the float weights is 40 times as large, and the file is
  quantized with one scale for each tensor;
- `dead range`: the grid of the layer's output is 32 times too wide;
- `wrong calibration`: the grid of the layer's output is 8 times too narrow, so it saturates.

    python benchmarks/diagnose/planted.py [TRIALS]
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dated import write_result

from edgekd.benchmark.diagnose import diagnose_files

FAULTS = ("outlier channel", "dead range", "wrong calibration")
LOUDER, WIDER, NARROWER = 40.0, 32.0, 8.0


def exported(module: torch.nn.Module, example: torch.Tensor, path: Path) -> None:
    """The module as ONNX with a free batch size."""
    torch.onnx.export(
        module.eval(), (example,), str(path), dynamo=False, opset_version=17, input_names=["x"],
        output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
    )  # fmt: skip


def quantize(floating: Path, made: Path, samples: np.ndarray, *, per_channel: bool) -> None:
    """The int8 QDQ file by ONNX Runtime's static quantization, min-max ranges."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    class Reader:
        def __init__(self) -> None:
            self.rows = iter([{"x": samples}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    quantize_static(
        str(floating), str(made), Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel,
        weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
    )  # fmt: skip


def convolutions(model: Any) -> list[Any]:
    """The convolutions of a model, in order."""
    return [node for node in model.graph.node if node.op_type == "Conv"]


def plant_outlier(floating: Path, made: Path, layer: int, channel: int) -> None:
    """Make one output channel of a layer's float weights larger."""
    model = onnx.load(floating)
    name = convolutions(model)[layer].input[1]
    tensor = next(one for one in model.graph.initializer if one.name == name)
    weight = numpy_helper.to_array(tensor).copy()
    weight[channel % len(weight)] *= LOUDER
    tensor.CopyFrom(numpy_helper.from_array(weight, name))
    onnx.save(model, made)


def own_scale(model: Any, layer: str) -> str:
    """The scale of the output of the node with this name; empty if only a sum has a grid."""
    readers = {key: node for node in model.graph.node for key in node.input}
    key = next(node for node in model.graph.node if node.name == layer).output[0]
    while readers[key].op_type in ("Relu", "Clip"):
        key = readers[key].output[0]
    return str(readers[key].input[1]) if readers[key].op_type == "QuantizeLinear" else ""


def plant_range(quantized: Path, layer: str, factor: float) -> None:
    """Make the grid of a layer's output wider or narrower by a factor."""
    model = onnx.load(quantized)
    scale = own_scale(model, layer)
    tensor = next(one for one in model.graph.initializer if one.name == scale)
    value = numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), scale))
    onnx.save(model, quantized)


def names_of(floating: Path) -> list[str]:
    """The names that the diagnosis gives the convolutions, in order."""
    from edgekd.formats.file_layers import file_layers
    from edgekd.formats.onnx_file import read_onnx

    return [layer.name for layer in file_layers(read_onnx(floating)) if layer.op == "Conv"]


def trial(floating: Path, samples: np.ndarray, seed: int, folder: Path) -> dict[str, Any]:
    """One planted fault, and where the diagnosis has it."""
    draw = np.random.default_rng(seed)
    names, fault = names_of(floating), FAULTS[seed % len(FAULTS)]
    layer = int(draw.integers(len(names) - 1))
    source, made = folder / "float.onnx", folder / "int8.onnx"
    if fault == "outlier channel":
        plant_outlier(floating, source, layer, int(draw.integers(1 << 16)))
        quantize(source, made, samples, per_channel=False)
    else:
        source = floating
        quantize(source, made, samples, per_channel=True)
        nodes = [node.name for node in convolutions(onnx.load(floating))]
        while not own_scale(onnx.load(made), nodes[layer]):
            layer = int(draw.integers(len(names) - 1))
        plant_range(made, nodes[layer], WIDER if fault == "dead range" else 1 / NARROWER)
    found = diagnose_files(source, made, samples, timed=False)
    ranks = {row.layer: rank for rank, row in enumerate(found.layers, 1)}
    first = found.layers[0]
    return {
        "fault": fault, "layer": names[layer], "rank": ranks[names[layer]],
        "causes": next(row.causes for row in found.layers if row.layer == names[layer]),
        "first": first.layer, "final_db": round(found.final_sqnr, 1),
    }  # fmt: skip


def digits(folder: Path) -> tuple[Path, np.ndarray]:
    """This project's teacher on handwritten digits."""
    from safetensors.torch import load_file

    import edgekd
    from edgekd.data.sets.digits import digits as load
    from edgekd.models.resnet import resnet20

    weights = Path(edgekd.__file__).parent / "recipes/digits_teacher.safetensors"
    module = resnet20(channels=1)
    module.load_state_dict(load_file(weights))
    samples = load().test.x[:64].float()
    exported(module, samples[:1], folder / "digits.onnx")
    return folder / "digits.onnx", samples.numpy()


def foreign(folder: Path) -> tuple[Path, np.ndarray]:
    """A ResNet of timm's, random weights, batch norms with the statistics of its inputs."""
    from edgekd.installed import import_torchvision

    import_torchvision()
    import timm

    torch.manual_seed(0)
    module = timm.create_model("resnet10t", num_classes=10, zero_init_last=False)
    samples = torch.randn(32, 3, 64, 64)
    with torch.no_grad():
        for _ in range(8):
            module.train()(torch.randn(16, 3, 64, 64))
    exported(module, samples[:1], folder / "timm.onnx")
    return folder / "timm.onnx", samples.numpy()


def run(trials: int) -> dict[str, Any]:
    """The ranks over all trials, half of them on each network."""
    rows: list[dict[str, Any]] = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        networks = {"digits resnet20": digits(folder), "timm resnet10t": foreign(folder)}
        for seed in range(trials):
            name = list(networks)[seed % 2]
            floating, samples = networks[name]
            rows.append({"network": name, "seed": seed, **trial(floating, samples, seed, folder)})
            print(rows[-1], file=sys.stderr, flush=True)
    ranks = Counter(row["rank"] for row in rows)
    return {
        "trials": trials,
        "found_first": ranks[1],
        "with_a_cause": sum(bool(row["causes"]) for row in rows),
        "ranks": dict(sorted(ranks.items())),
        "seconds": round(time.perf_counter() - start),
        "rows": rows,
    }


if __name__ == "__main__":
    write_result(__file__, run(int(sys.argv[1]) if len(sys.argv) > 1 else 50))
