"""One elastic training against a training for each of four widths, on digits.

The widths are those of a ResNet-8 taught by a ResNet-20. Separately, a network of each width is
distilled from scratch; elastically, one network is trained with all widths in it, and each width is
cut out, given batch-norm statistics of its own and quantized. Both have the same epochs, losses and
learning rate. Accuracies are those of the deployed int8 files on the test set.

    python benchmarks/search/elastic.py --seeds 2 --epochs 12
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import edgekd
from edgekd.values.recipe import TEACHER

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from dated import write_result  # noqa: E402

WIDTHS = (0.25, 0.5, 0.75, 1.0)
CHANNELS = (16, 32, 64)
TARGET = edgekd.load_target("x86").model_copy(update={"name": "x86-by-4", "channel_multiple": 4})
"""Multiples of 16 channels would leave a ResNet of this size two widths."""

LOSSES = [{"name": "kl", "weight": 0.9, "temperature": 2.0}]


def compressed(width: float, stages: list[dict[str, Any]], seed: int, out: Path) -> dict[str, Any]:
    """A run's accuracy and size, its whole time and that of its trainings, in seconds."""
    widths = [round(width * channels) for channels in CHANNELS]
    started = time.perf_counter()
    report = edgekd.compress(
        {
            "factory": "edgekd.models.resnet:resnet20", "arguments": {"channels": 1},
            "weights": str(TEACHER),
        },
        student={
            "factory": "edgekd.models.resnet:resnet8",
            "arguments": {"channels": 1, "widths": widths},
        },
        data="digits", stages=stages, target=TARGET, backends=["onnx"], seed=seed, quick=True,
        progress=False, out=out,
    )  # fmt: skip
    (artifact,) = report.targets[0].artifacts
    training = sum(stage.seconds or 0.0 for stage in report.stages if stage.kind == "distill")
    cached = any(stage.cached for stage in report.stages if stage.kind == "distill")
    return {
        "accuracy": artifact.accuracy,
        "kb": artifact.bytes / 1e3,
        "seconds": time.perf_counter() - started,
        "training_seconds": 0.0 if cached else training,
    }


def one_seed(seed: int, epochs: int, work: Path) -> dict[str, Any]:
    """Both ways for every width, the largest first."""
    teaching = {"epochs": epochs, "batch_size": 32, "learning_rate": 5e-3, "losses": LOSSES}
    last = {"kind": "quantize", "method": "calibrate"}
    scheme = {"name": "elastic", "widths": [width for width in WIDTHS if width < 1]}
    rows: dict[str, Any] = {"separate": {}, "elastic": {}}
    for width in sorted(WIDTHS, reverse=True):
        plain = [{"kind": "distill", **teaching}, last]
        rows["separate"][width] = compressed(width, plain, seed, work / f"separate-{width}-{seed}")
        cut = {"kind": "prune", "criterion": "nested", "amount": 1 - width, "epochs": 0}
        nested = [{"kind": "distill", **teaching, "scheme": scheme}, *([cut] if width < 1 else [])]
        rows["elastic"][width] = compressed(1.0, [*nested, last], seed, work / f"elastic-{seed}")
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracies by width, and the elastic way's share of the time."""

    def total(way: str, key: str) -> float:
        return sum(run[key] for row in rows for run in row[way].values())

    accuracies = {
        way: {
            width: statistics.mean(row[way][width]["accuracy"] for row in rows) for width in WIDTHS
        }
        for way in ("separate", "elastic")
    }
    further = [row["elastic"][width]["seconds"] for row in rows for width in WIDTHS if width < 1]
    return {
        "accuracy": accuracies,
        "points_lost": {
            width: 100 * (accuracies["separate"][width] - accuracies["elastic"][width])
            for width in WIDTHS
        },
        "share_of_training_time": total("elastic", "training_seconds")
        / total("separate", "training_seconds"),
        "share_of_total_time": total("elastic", "seconds") / total("separate", "seconds"),
        "seconds_for_a_further_target": statistics.median(further),
        "seconds_for_a_further_training": statistics.median(
            run["seconds"] for row in rows for run in row["separate"].values()
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgekd-elastic-") as folder:
        rows = [one_seed(seed, given.epochs, Path(folder)) for seed in range(given.seeds)]
    settings = {"seeds": given.seeds, "epochs": given.epochs, "widths": WIDTHS}
    write_result(__file__, {"settings": settings, **summary(rows), "runs": rows})


if __name__ == "__main__":
    main()
