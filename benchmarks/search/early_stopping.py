"""What early stopping saves and what it costs, replayed over one search on digits.

One search runs every trial to its end: a perceptron is distilled and pruned with many learning
rates, weights, temperatures and amounts. Each trial's accuracies at the rungs are kept, so each
rule can be replayed over the same trials in their order: which would it have stopped, how many
epochs would have been saved, and does anything of the front get lost?

    python benchmarks/search/early_stopping.py --trials 24
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

import edgekd
from edgekd.models.mlp import mlp
from edgekd.searching.judging import best_of, front_of, points_of
from edgekd.searching.outcome import Course, Trial
from edgekd.searching.request import EarlyStopping
from edgekd.searching.stopping import reason_to_stop

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
from dated import write_result  # noqa: E402
from digits import area, places  # noqa: E402

DISTILL, PRUNE = 12, 8
RULES: tuple[EarlyStopping, ...] = ("halving", "median")
BUDGETS = {"size_kb": 60.0, "accuracy_drop": 5.0}
SIZES = (5.0, 7.0, 9.0, 10.0)
"""Limits in kB for which the most accurate point is compared."""

RECIPE = f"""
[model]
factory = "edgekd.models.mlp:mlp"
arguments = {{ features = 64, outputs = 10, hidden = [128, 64] }}
weights = "teacher.safetensors"

[student]
factory = "edgekd.models.mlp:mlp"
arguments = {{ features = 64, outputs = 10, hidden = [64, 32] }}

[data]
source = "digits.npz"
validation = 0.25

[[stages]]
kind = "distill"
epochs = {DISTILL}
batch_size = 32
learning_rate = {{ from = 1e-4, to = 3e-2, log = true }}
label_weight = {{ from = 0.0, to = 1.0 }}
losses = [{{ name = "kl", weight = 0.9, temperature = {{ from = 1.0, to = 16.0, log = true }} }}]

[[stages]]
kind = "prune"
criterion = {{ one_of = ["taylor", "magnitude-l2"] }}
amount = {{ from = 0.1, to = 0.8 }}
epochs = {PRUNE}
batch_size = 32
learning_rate = {{ from = 1e-4, to = 3e-2, log = true }}
losses = [{{ name = "kl", weight = 0.9, temperature = 4.0 }}]

[[stages]]
kind = "quantize"
"""


def write_case(work: Path) -> None:
    """The data, a trained teacher and the recipe."""
    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target
    order = np.random.default_rng(0).permutation(len(x))
    test, train = order[:400], order[400:]
    np.savez(
        work / "digits.npz", x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test]
    )
    torch.manual_seed(0)
    teacher = mlp(64, 10, [128, 64])
    optimizer = torch.optim.AdamW(teacher.parameters(), 3e-3)
    inputs, labels = torch.from_numpy(x[train]), torch.from_numpy(y[train]).long()
    for _ in range(40):
        for index in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(teacher(inputs[index]), labels[index]).backward()
            optimizer.step()
    save_file(teacher.state_dict(), work / "teacher.safetensors")
    (work / "recipe.toml").write_text(RECIPE)


def replayed(trials: Sequence[Trial], rule: EarlyStopping) -> dict[str, Any]:
    """What a rule would have done with the trials."""
    known: list[Course] = []
    left: list[Trial] = []
    epochs = 0
    for trial in trials:
        course, stopped = up_to_its_stop(trial.course, known, rule)
        known.append(course)
        if stopped:
            last = course.scores[-1]
            epochs += last.epoch + (DISTILL if last.training.startswith("prune") else 0)
        else:
            epochs += DISTILL + PRUNE
            left.append(trial)
    return {
        "stopped": len(trials) - len(left),
        "share of epochs trained": epochs / (len(trials) * (DISTILL + PRUNE)),
        **merits(left),
    }


def up_to_its_stop(
    course: Course, others: Sequence[Course], rule: EarlyStopping
) -> tuple[Course, bool]:
    for count in range(1, len(course.scores) + 1):
        part = course.model_copy(update={"scores": course.scores[:count]})
        if reason_to_stop(rule, part, others):
            return part, True
    return course, False


def merits(trials: Sequence[Trial]) -> dict[str, Any]:
    """The trials on the front, the area that it dominates on the test set, and the validation
    accuracy of the best point below each size."""
    front = front_of(points_of(trials, "x86", {"x86": BUDGETS}, ()))
    best = {}
    for size in SIZES:
        chosen = best_of(points_of(trials, "x86", {"x86": {"size_kb": size}}, ()))
        best[f"{size:g} kB"] = None if chosen is None else round(chosen.score, 4)
    return {
        "front": [point.trial for point in front],
        "area": area(places(tuple(trials))),
        "best below": best,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    work = given.work or Path(tempfile.mkdtemp(prefix="edgekd-early-"))
    work.mkdir(exist_ok=True)
    write_case(work)
    result = edgekd.search(
        work / "recipe.toml", target="x86", backends=["onnx"], budgets=BUDGETS, quick=True,
        limits=edgekd.SearchOptions(trials=given.trials), out=work / "search", progress=False,
    )  # fmt: skip
    trials = [trial for trial in result.trials if trial.state == "finished"]
    minutes = sum(trial.seconds for trial in trials) / 60
    rows = {rule: replayed(trials, rule) for rule in RULES}
    settings = {"trials": given.trials, "epochs": [DISTILL, PRUNE], "budgets": BUDGETS}
    write_result(
        __file__,
        {"settings": settings, "minutes": minutes, "none": merits(trials), **rows},
    )


if __name__ == "__main__":
    main()
