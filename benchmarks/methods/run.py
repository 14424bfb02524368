"""Every method on Fashion-MNIST: one teacher, one student, the same budget, three seeds.

    python benchmarks/methods/run.py --work /tmp/methods

Each finished row stays in the work folder, so that a run that was broken off goes on; the table and
the dated JSON are written from the rows there are. Accuracy is the share of all 10,000 test images.
An epoch's seconds are those of the whole stage over its epochs, with kl's logits cached. A step's
cost is the ratio of median step times with plain kl's, run in turn on images mirrored at random, so
that the teacher runs in each step of both.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from dated import write_result
from rows import LEFT_OUT, rows
from setting import (
    BUDGET,
    TAUGHT_ON,
    context_of,
    distilled,
    samples,
    small_teacher,
    student,
)

from edgekd.data.samples import Augmentation, Data
from edgekd.distillation import Teaching, teach
from edgekd.errors import EdgekdError
from edgekd.teachers.module import ModuleTeacher
from edgekd.training import evaluate

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
TIMED, TURNS = 640, 3
"""Samples of a timed epoch, and how often kl and the method take turns."""


def timed(row: dict[str, Any], data: Data, teacher: ModuleTeacher, work: Path) -> float:
    """The median seconds between two of the optimizer's steps, over two epochs of few samples."""
    ends: list[float] = []
    with TemporaryDirectory(dir=work) as folder:
        teach(
            student(0),
            Teaching(**{**BUDGET, **row, "epochs": 2}),
            data=data,
            teachers=[teacher],
            work=Path(folder),
            cache=work / "logits",
            on_step=lambda done, total: ends.append(time.perf_counter()),
        )
    return statistics.median(b - a for a, b in pairwise(ends))


def cost(
    row: dict[str, Any], plain: dict[str, Any], data: Data, teacher: ModuleTeacher, work: Path
) -> float:
    """The median step of a method over that of kl, taken in turn."""
    augmentation = Augmentation(flip=True)  # every draw is new, so that kl runs the teacher too
    data = replace(data, train=data.train.take(torch.arange(TIMED)), augmentation=augmentation)
    ratios = []
    for _ in range(TURNS):
        first = timed(plain, data, teacher, work)
        ratios.append(timed(row, data, teacher, work) / first)
    return statistics.median(ratios)


def measured(
    name: str, row: dict[str, Any], teacher: ModuleTeacher, data: Data, work: Path
) -> dict[str, Any]:
    """One row: test accuracy of each seed, and seconds an epoch."""
    accuracies, seconds = [], []
    for seed in SEEDS:
        shutil.rmtree(work / "stage", ignore_errors=True)
        context = context_of(data, teacher, work, seed)
        started = time.perf_counter()
        module = distilled(row, context)
        seconds.append((time.perf_counter() - started) / BUDGET["epochs"])
        accuracies.append(100 * evaluate(module, data.test))
    return {
        "method": name,
        "accuracy_percent": [round(each, 2) for each in accuracies],
        "mean": round(statistics.mean(accuracies), 2),
        "spread": round(statistics.stdev(accuracies), 2),
        "epoch_seconds": round(statistics.median(seconds), 3),
        "step_cost_of_kl": None,
    }


def table(found: list[dict[str, Any]], teacher_accuracy: float) -> str:
    """Markdown, the best mean first."""
    lines = [
        "| method | test accuracy, mean of 3 seeds (%) | spread | s an epoch | a step, x kl |",
        "|---|---|---|---|---|",
        f"| the teacher | {teacher_accuracy:.2f} | | | |",
    ]
    for row in sorted(found, key=lambda row: -row["mean"]):
        ratio = row["step_cost_of_kl"]
        lines.append(
            f"| {row['method']} | {row['mean']:.2f} | {row['spread']:.2f} | "
            f"{row['epoch_seconds']:.2f} | {'' if ratio is None else f'{ratio:.2f}'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the rows that are missing, until the time is up, then write what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * given.minutes
    teacher, data = small_teacher(given.work), samples(TAUGHT_ON)
    reached = 100 * evaluate(teacher.network, data.test)
    print(f"teacher {reached:.2f} %", flush=True)
    refused: dict[str, str] = {}
    kept = given.work / "rows"
    kept.mkdir(exist_ok=True)
    for name, row in rows().items():
        path = kept / f"{name.replace(' ', '_')}.json"
        if path.exists() or time.monotonic() > ends:
            continue
        try:
            found = measured(name, row, teacher, data, given.work)
        except EdgekdError as error:
            refused[name] = str(error)
            print(f"{name}: refused: {error}", flush=True)
            continue
        path.write_text(json.dumps(found))
        print(json.dumps(found), flush=True)
    for path in sorted(kept.glob("*.json")):
        found = json.loads(path.read_text())
        row = rows()[found["method"]]
        if found["step_cost_of_kl"] is None and "scheme" not in row and time.monotonic() < ends:
            ratio = cost(row, rows()["kl"], data, teacher, given.work)
            path.write_text(json.dumps({**found, "step_cost_of_kl": round(ratio, 2)}))
    done = [json.loads(path.read_text()) for path in sorted(kept.glob("*.json"))]
    names = {row["method"] for row in done}
    result = {
        "teacher_accuracy_percent": round(reached, 2),
        "budget": {**BUDGET, "samples": TAUGHT_ON},
        "rows": done,
        "missing": [name for name in rows() if name not in names],
        "refused": refused,
        "left_out": LEFT_OUT,
    }
    written = write_result(__file__, result)
    written.with_suffix(".md").write_text(table(done, reached))


if __name__ == "__main__":
    main()
