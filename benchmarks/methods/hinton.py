"""Hinton, Vinyals and Dean 2015, section 3, on Fashion-MNIST instead of MNIST.

    python benchmarks/methods/hinton.py --work /tmp/methods

A network of two layers of 800 units learns from the labels alone, from the teacher as well, and
from the teacher on a transfer set without one class (3, as in the paper). There the class's bias is
raised afterwards by what makes the validation samples come out best.
"""

import argparse
import copy
import json
import statistics
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from dated import write_result
from setting import big_teacher, samples

from edgekd.data.samples import Data, Samples
from edgekd.network.evaluation import evaluate, predict
from edgekd.training.context import Context
from edgekd.training.distillation import teach
from edgekd.training.teaching import Teaching
from edgekd.values.target import load_target

COUNT, MISSING, SEEDS = 6000, 3, (0, 1, 2)
BUDGET: dict[str, Any] = {
    "epochs": 12, "batch_size": 64, "learning_rate": 1e-3, "weight_decay": 0.0, "keep": "last",
}  # fmt: skip
SOFT: dict[str, Any] = {"losses": [{"name": "kl", "weight": 1.0, "temperature": 8.0}]}


def student(seed: int) -> nn.Sequential:
    """784 -> 800 -> 800 -> 10."""
    torch.manual_seed(seed)
    sizes = (784, 800, 800)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(800, 10))


def errors(module: nn.Module, test: Samples) -> dict[str, int]:
    """How many test images are wrong, in all and of the missing class."""
    wrong = predict(module, test.x).argmax(1) != test.y
    return {"all": int(wrong.sum()), "missing_class": int(wrong[test.y == MISSING].sum())}


def mended(module: nn.Sequential, data: Data) -> tuple[nn.Sequential, float]:
    """With the bias of the missing class raised by what is best on the validation samples."""
    logits = predict(module, data.validation.x)
    steps = torch.arange(0.0, 10.01, 0.1)
    raised = [logits + step * nn.functional.one_hot(torch.tensor(MISSING), 10) for step in steps]
    right = torch.stack([(each.argmax(1) == data.validation.y).sum() for each in raised])
    best = float(steps[int(right.argmax())])
    changed = copy.deepcopy(module)
    with torch.no_grad():
        changed[-1].bias[MISSING] += best  # type: ignore[index,union-attr,operator]
    return changed, best


def one_seed(seed: int, data: Data, work: Path) -> dict[str, Any]:
    """The errors of the four students of one seed."""
    present = data.train.take((data.train.y != MISSING).nonzero().flatten())
    without = replace(data, train=present)
    plans = {
        "labels": (data, {"losses": (), "label_weight": 1.0}),
        "teacher": (data, {**SOFT, "label_weight": 0.1}),
        "missing": (without, {**SOFT, "label_weight": 0.0}),
    }
    found: dict[str, Any] = {"seed": seed}
    for name, (given, plan) in plans.items():
        teachers = [big_teacher()] if plan["losses"] else []
        module = student(seed)
        context = Context(
            load_target("x86"),
            given,
            teachers,
            work / f"{name}-{seed}",
            Teaching(**BUDGET, **plan),
            seed,
            work / "logits",
        )
        teach(module, context)
        found[name] = errors(module, data.test)
        if name == "missing":
            changed, found["bias_raised_by"] = mended(module, data)
            found["missing_bias_mended"] = errors(changed, data.test)
    return found


def main() -> None:
    """Run the seeds that are missing, then write the errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work / "hinton"
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    data = samples(COUNT)
    rows = []
    for seed in SEEDS:
        path = work / f"seed-{seed}.json"
        if not path.exists():
            path.write_text(json.dumps(one_seed(seed, data, work)))
        rows.append(json.loads(path.read_text()))
        print(rows[-1], flush=True)
    names = ("labels", "teacher", "missing", "missing_bias_mended")
    mean = {name: statistics.mean(row[name]["all"] for row in rows) for name in names}
    wrong = round(10000 * (1 - evaluate(big_teacher().network, data.test)))
    result = {"test_images": len(data.test), "training_images": COUNT, "missing_class": MISSING,
              "teacher_errors": wrong, "mean_errors": mean, "seeds": rows}  # fmt: skip
    write_result(__file__, result)


if __name__ == "__main__":
    main()
