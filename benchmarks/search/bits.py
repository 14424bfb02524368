"""Types of weights by layer, chosen by the integer program, against one type throughout.

A MobileNetV2 and a Transformer encoder are trained briefly on a part of Fashion-MNIST. Their
weights are then stored in one type throughout (int8, int4 with and without a scale for each 32
weights, ternary with one), and in types by layer within the sizes of these. Accuracies and sizes
are those of the ONNX files, run by ONNX Runtime on all test images, without training after the
quantization.

    python benchmarks/search/bits.py --seeds 2
"""

import argparse
import copy
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekd.data import load_data
from edgekd.data.samples import Data
from edgekd.devices.opening import open_device
from edgekd.measure.accuracy import evaluate_artifact
from edgekd.models.mobilenet_v2 import mobilenet_v2
from edgekd.models.transformer import transformer
from edgekd.registry import BACKENDS
from edgekd.stages.quantize import Quantize
from edgekd.training.context import Context
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import DataTable
from edgekd.values.target import load_target

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from dated import write_result  # noqa: E402
from one_cycle import fitted  # noqa: E402

NETWORKS: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "MobileNetV2, width 0.35": (lambda: mobilenet_v2(1, width=0.35, last=160), 3e-3),
    "Transformer, 3 blocks of 48": (
        lambda: transformer(width=48, depth=3, heads=4), 2e-3
    ),
}  # fmt: skip
"""What makes each network, and its learning rate."""

UNIFORM: dict[str, dict[str, Any]] = {
    "int8": {"dtype": "int4", "mixed": {"weights_kb": 1e6, "wide": "int8"}},
    "int4/32": {"dtype": "int4", "group": 32},
    "int4": {"dtype": "int4", "group": 0},
    "ternary/32": {"dtype": "ternary", "group": 32},
}
CALIBRATION = 128
TARGET = load_target("x86")


def trained(name: str, data: Data, epochs: int, seed: int) -> nn.Module:
    """A network, trained."""
    make, rate = NETWORKS[name]
    torch.manual_seed(seed)
    return fitted(make(), data, rate, epochs)


def stored(module: nn.Module, keys: dict[str, Any], data: Data, work: Path) -> dict[str, Any]:
    """The accuracy and size of a file whose weights were quantized so."""
    context = Context(TARGET, data, [], work, calibration=data.train.x[:CALIBRATION])
    candidate = Candidate(copy.deepcopy(module), data.example)
    if keys:
        candidate = Quantize(**keys).run(candidate, context)
    backend: Any = BACKENDS.get("onnx").make()
    with tempfile.TemporaryDirectory() as folder, closing(open_device("host")) as host:
        options = TARGET.backends["onnx"]
        artifact = backend.compile(candidate, TARGET, options, Path(folder))[-1]
        accuracy, _ = evaluate_artifact(host, artifact, data.test, options)
    line = candidate.lineage[-1] if candidate.lineage else ""
    words = line.partition(" bytes of weights")[0].rpartition(" ")[2].replace(",", "")
    return {
        "accuracy": accuracy.value, "file_bytes": artifact.bytes,
        "weight_bytes": int(words) if words.isdigit() else None, "line": line,
    }  # fmt: skip


def one(
    name: str, data: Data, sizes: list[str], epochs: int, seed: int, work: Path
) -> dict[str, Any]:
    """All files of one network."""
    module = trained(name, data, epochs, seed)
    rows = {"float32": stored(module, {}, data, work)}
    for kind, keys in UNIFORM.items():
        rows[kind] = stored(module, keys, data, work)
    for kind in sizes:
        mixed = {"weights_kb": rows[kind]["weight_bytes"] / 1e3}
        keys = {"dtype": "ternary", "group": 32, "mixed": mixed}
        rows[f"program, size of {kind}"] = stored(module, keys, data, work)
    return rows


def gains(runs: list[dict[str, Any]], sizes: list[str]) -> dict[str, Any]:
    """By the type whose size the program had: the mean gain in points over it, and by how many
    bytes its file is larger."""
    found = {}
    for kind in sizes:
        pairs = [(run[f"program, size of {kind}"], run[kind]) for run in runs]
        points = [100 * (ours["accuracy"] - theirs["accuracy"]) for ours, theirs in pairs]
        found[kind] = {
            "gain_points": statistics.fmean(points), "each": points,
            "file_bytes_more": [a["file_bytes"] - b["file_bytes"] for a, b in pairs],
            "weight_bytes_more": [a["weight_bytes"] - b["weight_bytes"] for a, b in pairs],
        }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--sizes", nargs="+", default=list(UNIFORM), choices=list(UNIFORM))
    given = parser.parse_args()
    table = DataTable(source="fashion-mnist", limit=given.images)
    data = load_data(table, HERE)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="edgekd-bits-") as work:
        for name in given.networks:
            runs = [
                one(name, data, given.sizes, given.epochs, seed, Path(work))
                for seed in range(given.seeds)
            ]
            result[name] = {"gains": gains(runs, given.sizes), "seeds": runs}
    settings = {"epochs": given.epochs, "images": given.images, "seeds": given.seeds}
    write_result(__file__, {"settings": settings, "networks": result})


if __name__ == "__main__":
    main()
