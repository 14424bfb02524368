"""Every method on Fashion-MNIST: one teacher, one student, the same budget, three seeds.

    python benchmarks/methods/run.py --work /tmp/methods
    python benchmarks/methods/run.py --work /tmp/methods --costs   # the steps' cost alone

Each finished row stays in the work folder, so that a run that was broken off goes on; the table and
the dated JSON are written from the rows there are. Accuracy is the share of all 10,000 test images.
Times are the processor's, on one thread, so that other work on the machine counts less. An epoch's
seconds are those of the whole stage over its epochs, with kl's logits cached. A step's cost is the
ratio of median step times with plain kl's, run in turn on images mirrored at random, so that the
teacher runs in each step of both.
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

from edgekd.data.samples import Augmentation, Data, Samples
from edgekd.errors import EdgekdError
from edgekd.models.resnet import resnet8
from edgekd.network.evaluation import evaluate
from edgekd.training.distillation import teach
from edgekd.training.teachers.module import ModuleTeacher
from edgekd.training.teachers.outputs import Outputs
from edgekd.training.teaching import Teaching

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
TIMED, TURNS = 640, 2
"""Samples of a timed epoch, and how often kl and the method take turns."""


def timed(row: dict[str, Any], data: Data, teacher: ModuleTeacher, work: Path) -> float:
    """The median processor time between two of the optimizer's steps, over two epochs."""
    ends: list[float] = []
    with TemporaryDirectory(dir=work) as folder:
        context = replace(
            context_of(data, teacher, work, 0),
            work=Path(folder),
            teaching=Teaching(**{**BUDGET, **row, "epochs": 2}),
            on_step=lambda done, total: ends.append(time.process_time()),
        )
        teach(student(0), context)
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
        started = time.process_time()
        module = distilled(row, context)
        seconds.append((time.process_time() - started) / BUDGET["epochs"])
        accuracies.append(100 * evaluate(module, data.test))
    return {
        "method": name,
        "accuracy_percent": [round(each, 2) for each in accuracies],
        "mean": round(statistics.mean(accuracies), 2),
        "spread": round(statistics.stdev(accuracies), 2),
        "epoch_seconds": round(statistics.median(seconds), 3),
    }


def table(
    found: list[dict[str, Any]], costs: dict[str, float], teacher_accuracy: float | None
) -> str:
    """Markdown, the best mean first."""
    lines = [
        "| method | test accuracy, mean of 3 seeds (%) | spread | s an epoch | a step, x kl |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(found, key=lambda row: -row["mean"]):
        ratio = costs.get(row["method"])
        lines.append(
            f"| {row['method']} | {row['mean']:.2f} | {row['spread']:.2f} | "
            f"{row['epoch_seconds']:.2f} | {'' if ratio is None else f'{ratio:.2f}'} |"
        )
    named = {row["method"] for row in found}
    lines += [
        f"| {name} | not run | | | {costs[name]:.2f} |" for name in costs if name not in named
    ]
    if teacher_accuracy is not None:
        lines.append(f"| the teacher | {teacher_accuracy:.2f} | | | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the rows that are missing, until the time is up, then write what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--costs", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    if given.costs:
        measure_costs(given.work, 60 * given.minutes)
        publish(given.work, None, {})
        return
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
    publish(given.work, reached, refused)


def measure_costs(work: Path, ends: float) -> None:
    """The cost of each method's step that is not known yet; neither weights nor pixels matter."""
    path = work / "costs.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    torch.manual_seed(0)
    network = resnet8(channels=1, stem_stride=2).eval().requires_grad_(False)
    teacher = ModuleTeacher("resnet8", "untrained", 1.0, network, Outputs())
    noise = Samples(torch.randn(TIMED, 1, 28, 28), torch.arange(TIMED) % 10)
    few = noise.take(torch.arange(32))
    data = Data("noise", noise, few, few, 10)
    for name, row in rows().items():
        if name in found or "scheme" in row or time.process_time() > ends:
            continue
        found[name] = round(cost(row, rows()["kl"], data, teacher, work), 2)
        path.write_text(json.dumps(found))
        print(name, found[name], flush=True)


def publish(work: Path, reached: float | None, refused: dict[str, str]) -> None:
    """Write the dated JSON and the table of all rows and costs that there are."""
    done = [json.loads(path.read_text()) for path in sorted((work / "rows").glob("*.json"))]
    kept = work / "costs.json"
    costs = json.loads(kept.read_text()) if kept.exists() else {}
    names = {row["method"] for row in done}
    result = {
        "teacher_accuracy_percent": None if reached is None else round(reached, 2),
        "budget": {**BUDGET, "samples": TAUGHT_ON},
        "rows": done,
        "step_cost_of_kl": costs,
        "missing_rows": [name for name in rows() if name not in names],
        "missing_costs": [n for n, row in rows().items() if n not in costs and "scheme" not in row],
        "refused": refused,
        "left_out": LEFT_OUT,
    }
    written = write_result(__file__, result)
    written.with_suffix(".md").write_text(table(done, costs, reached))


if __name__ == "__main__":
    main()
