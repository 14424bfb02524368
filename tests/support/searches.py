"""A search whose trials are made up, so that what decides needs no training; and one on a network
that trains in a second, run as a command."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from small_target import SMALL_TARGET

from edgekd.run.plan.planned import Request
from edgekd.run.request import RecipeParts
from edgekd.searching.outcome import Course, FileOutcome, Trial, folder_of, keep_trial
from edgekd.searching.request import Search, SearchOptions, first_value
from edgekd.searching.space import space_of
from edgekd.searching.stopping import TrialStopped
from edgekd.searching.study import Proposal
from edgekd.training.context import Epoch
from edgekd.values.measurement import Measurement
from edgekd.values.target import load_target

LIMITS = {"size_kb": 50.0, "accuracy_drop": 2.0}
STAGES = [
    {"kind": "prune", "amount": {"from": 0.1, "to": 0.8}},
    {"kind": "quantize", "method": {"one_of": ["calibrate", "qat"]}},
]


def made_search(
    out: Path,
    stages: list[dict[str, Any]] = STAGES,
    limits: dict[str, float] = LIMITS,
    **options: Any,
) -> Search:
    options = {"storage": f"journal:{out}/trials.log", **options}  # faster than a database
    table = {"model": {"factory": "edgekd.models.resnet:resnet8"}, "stages": stages}
    space = space_of(RecipeParts(table, out, "recipe.toml"))
    out.mkdir(parents=True, exist_ok=True)
    request = Request(
        recipe=space.recipe(first_value), targets=(load_target("x86"),), out=out, budgets=limits
    )
    return Search(space, request, {"x86": limits}, SearchOptions(**options), "base")


def file_of(
    size_kb: float = 40.0, accuracy: float = 0.95, drop: float = 1.0, **keys: Any
) -> FileOutcome:
    values = {"size_bytes": size_kb * 1e3, "accuracy": accuracy, "accuracy_drop": drop}
    kind = keys.pop("kind", "measured")
    measurements = tuple(
        Measurement(metric=name, value=value, kind=kind, device="host")
        for name, value in values.items()
    )
    keys = {"validation": accuracy, "path": "artifacts/x86/model.onnx", "format": "onnx", **keys}
    return FileOutcome(
        target="x86", runtime="onnxruntime", precision="int8", sha256=f"{size_kb}-{accuracy}",
        bytes=int(size_kb * 1e3), accuracy=accuracy, measurements=measurements, **keys,
    )  # fmt: skip


def trial_of(number: int, *files: FileOutcome, **keys: Any) -> Trial:
    keys = {"state": "finished", "key": f"key-{number}", "parameters": {}, "seconds": 1.0, **keys}
    return Trial(number=number, files=files, **keys)


def made_up(
    outcome: Callable[[dict[str, Any]], FileOutcome | str],
    curve: Callable[[dict[str, Any]], list[float]] = lambda parameters: [],
) -> Callable[..., Trial]:
    """In place of `run_trial`: a file, or an error's message, from a trial's parameters; `curve`
    gives the validation accuracy after each epoch of the trial's training."""

    def run(search: Search, proposal: Proposal, others: Any, watch: Any, progress: Any) -> Trial:
        number, parameters, key = proposal.number, proposal.parameters, proposal.key
        found = outcome(parameters)
        keys = {"key": key, "parameters": parameters}
        accuracies = curve(parameters)
        try:
            if isinstance(found, FileOutcome):
                watch.course = Course(sizes={"x86: bytes": found.bytes})
            for epoch, accuracy in enumerate(accuracies, 1):
                watch.on_epoch(Epoch(Path("prune"), epoch, len(accuracies), accuracy))
        except TrialStopped as stopped:
            found, keys = "", {**keys, "state": "stopped", "message": str(stopped)}
        keys["course"] = watch.course
        if found == "":
            trial = trial_of(number, **keys)
        elif isinstance(found, str):
            trial = trial_of(number, state="failed", message=found, exit_code=3, **keys)
        else:
            trial = trial_of(number, found, **keys)
        (search.out / folder_of(number)).mkdir(parents=True, exist_ok=True)
        keep_trial(trial, search.out)
        return trial

    return run


RECIPE = """
[model]
factory = "edgekd.models.mlp:mlp"
arguments = { features = 64, outputs = 10, hidden = [32] }

[data]
source = "few.npz"

[calibration]
samples = 16

[[stages]]
kind = "distill"
epochs = 1

[[stages]]
kind = "prune"
amount = { from = 0.2, to = 0.7 }
epochs = 1

[[stages]]
kind = "quantize"
"""

COMMAND = ("search", "r.toml", "--target", "small.toml", "--budget", "size_kb=30", "--quick")


def write_case(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    y = np.arange(200) % 10
    x = random.random((200, 64), dtype=np.float32) + y[:, None] / 10
    np.savez(tmp_path / "few.npz", x_train=x, y_train=y, x_test=x[:50], y_test=y[:50])
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "small.toml").write_text(SMALL_TARGET)


def environment(place: Path) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root, "EDGEKD_CACHE": str(place / "cache")}


def start(place: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "edgekd", *words],
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(true, process: subprocess.Popen[str], seconds: float = 800.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)
