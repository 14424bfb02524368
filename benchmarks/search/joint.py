"""Channels, ranks and bits chosen by one program, against the same chosen one after the other.

A ResNet-8 is trained on digits, and timm's `test_resnet` on a part of Fashion-MNIST, both briefly.
Each is brought to a share of the size that int8 weights take: by `shrink`; by `shrink` with only
channels, ranks or bits; and by separate stages: pruning (allocation "cost") to the square root of
the share of the parameters, or to what int4 leaves to do, and then types by layer (`mixed`). All
train for as many epochs, on the labels alone. Accuracies and sizes are those of the ONNX files, run
by ONNX Runtime on the test set.

    python benchmarks/search/joint.py --seeds 2 --networks "resnet8 on digits" --shares 0.3 0.15
"""

import argparse
import copy
import math
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
from edgekd.errors import InputError
from edgekd.installed import import_torchvision
from edgekd.measure.accuracy import evaluate_artifact
from edgekd.models.resnet import resnet8
from edgekd.registry import BACKENDS
from edgekd.stages.prune import Prune
from edgekd.stages.quantize import Quantize
from edgekd.stages.shrink import Shrink
from edgekd.training.context import Context
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import DataTable
from edgekd.values.target import load_target

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from dated import write_result  # noqa: E402
from one_cycle import BATCH, fitted  # noqa: E402

CALIBRATION = 128
TARGET = load_target("x86").model_copy(update={"channel_multiple": 4})
LABELS: dict[str, Any] = {"label_weight": 1.0, "losses": (), "batch_size": BATCH}
BY_BITS = 0.6
"""The share of the size of int8 that int4 leaves with its scales, and some room."""

ALONE = ("channels", "ranks", "bits")


def foreign() -> nn.Module:
    import_torchvision()
    import timm

    module: nn.Module = timm.create_model("test_resnet", in_chans=1, num_classes=10)
    return module


NETWORKS: dict[str, tuple[Callable[[], nn.Module], DataTable, int]] = {
    "resnet8 on digits": (lambda: resnet8(channels=1), DataTable(source="digits"), 8),
    "timm test_resnet on Fashion-MNIST": (
        foreign, DataTable(source="fashion-mnist", limit=6000), 6
    ),
}  # fmt: skip
"""What makes each network, its data, and the epochs of its first training."""


def trained(name: str, data: Data, seed: int) -> nn.Module:
    """A network, trained."""
    make, _, epochs = NETWORKS[name]
    torch.manual_seed(seed)
    return fitted(make(), data, 3e-3, epochs)


def measured(module: nn.Module, stages: list[Any], data: Data) -> dict[str, Any]:
    """The accuracy and size of the file after these stages, or why there is none."""
    candidate = Candidate(copy.deepcopy(module), data.example)
    with tempfile.TemporaryDirectory(prefix="edgekd-joint-") as work:
        context = Context(TARGET, data, [], Path(work), calibration=data.train.x[:CALIBRATION])
        try:
            for stage in stages:
                candidate = stage.run(candidate, context)
        except InputError as error:
            return {"unreachable": error.message}
        backend: Any = BACKENDS.get("onnx").make()
        options = TARGET.backends["onnx"]
        with closing(open_device("host")) as host:
            artifact = backend.compile(candidate, TARGET, options, Path(work))[-1]
            accuracy, _ = evaluate_artifact(host, artifact, data.test, options)
    return {
        "accuracy": accuracy.value,
        "file_bytes": artifact.bytes,
        "line": candidate.lineage[-1] if candidate.lineage else "",
    }


def one(name: str, data: Data, shares: list[float], epochs: int, seed: int) -> dict[str, Any]:
    """All files of one network."""
    module = trained(name, data, seed)
    whole = sum(value.numel() for value in module.parameters()) / 1e3
    rows: dict[str, Any] = {"int8_kb": whole, "float32": measured(module, [], data)}
    for share in shares:
        kb = share * whole
        keys = {"weights_kb": kb, "epochs": epochs, **LABELS}
        half = {**LABELS, "epochs": epochs // 2}
        separate = [
            Prune(budget=min(math.sqrt(share), share / BY_BITS), of="parameters",
                  allocation="cost", criterion="taylor", **half),
            Quantize(dtype="int4", mixed={"weights_kb": kb, "wide": "int8"}, method="qat", **half),
        ]  # fmt: skip
        found = {"together": measured(module, [Shrink(**keys)], data)}
        found["one after the other"] = measured(module, separate, data)
        for what in ALONE:
            flags = {each: each == what for each in ALONE}
            found[f"{what} alone"] = measured(module, [Shrink(**keys, **flags)], data)
        rows[f"{share:g} of int8"] = found
        print(name, seed, share, {k: v.get("accuracy") for k, v in found.items()}, file=sys.stderr)
    return rows


def means(runs: list[dict[str, Any]], share: float) -> dict[str, Any]:
    """The mean accuracy and file size of each way over the seeds that reached the size."""
    ways = runs[0][f"{share:g} of int8"]
    found = {}
    for way in ways:
        rows = [run[f"{share:g} of int8"][way] for run in runs]
        reached = [row for row in rows if "accuracy" in row]
        found[way] = {
            "reached": len(reached),
            "accuracy": statistics.fmean(row["accuracy"] for row in reached) if reached else None,
            "file_bytes": statistics.fmean(row["file_bytes"] for row in reached)
            if reached
            else None,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.6, 0.3, 0.15])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    for name in given.networks:
        data = load_data(NETWORKS[name][1], HERE)
        runs = [one(name, data, given.shares, given.epochs, seed) for seed in range(given.seeds)]
        result[name] = {
            "means": {f"{share:g} of int8": means(runs, share) for share in given.shares},
            "seeds": runs,
        }
    settings = {"epochs": given.epochs, "shares": given.shares, "seeds": given.seeds}
    write_result(__file__, {"settings": settings, "networks": result})


if __name__ == "__main__":
    main()
