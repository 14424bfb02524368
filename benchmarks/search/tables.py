"""Trials that a table of measured operators refuses before training, and how many rightly.

Int8 files of a dozen networks are entered into the tables of this machine and of an emulated
Cortex-M4. Then space.toml, with fewer epochs, is searched on digits with a budget of latency or
instructions that lies among what the space reaches. Every trial that was refused is trained and
measured afterwards all the same: was the budget really out of reach?

    python benchmarks/search/tables.py --work FOLDER --trials 12
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

import edgekd
from edgekd.backends.onnx import Onnx
from edgekd.backends.tflite import Tflite
from edgekd.benchmark.files import Wanted, bench_files, loaded_files
from edgekd.devices.opening import open_device
from edgekd.measure.cost_table import keep_costs, table_folder
from edgekd.quant.calibration import calibrate
from edgekd.searching.outcome import FileOutcome, Trial
from edgekd.searching.result import SearchResult
from edgekd.searching.trial import share_stages
from edgekd.store import cache_folder
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE), str(HERE.parent / "mlperf_tiny")]
from cost_networks import network  # noqa: E402
from dated import write_result  # noqa: E402
from instructions import settle  # noqa: E402

KNOWN = [
    "own:resnet8 12", "own:resnet8 24", "own:resnet14 8", "own:ds_cnn 48", "own:ds_cnn 96",
    "own:mobilenet_v1 0.2", "own:mobilenet_v1 0.5", "own:mobilenet_v2 0.35",
    "timm:mobilenetv2_035 64", "timm:lcnet_035 64", "timm:test_byobnet 64",
    "timm:mobilenetv3_small_050 64",
]  # fmt: skip
"""Images of 32x32 or 64x64 in three colors: digits has 8x8 in one."""

DEPTHS = ", ".join(f'"edgekd.models.resnet:resnet{depth}"' for depth in (8, 14, 20))
"""On a processor of this size an image of 8x8 takes as long with few channels as with many."""

SEARCHES: dict[str, dict[str, Any]] = {
    "x86": {
        "device": "host", "backend": Onnx, "backends": ["onnx"], "metric": "latency_ms_p90",
        "settings": ["student.factory={one_of = [" + DEPTHS + "]}"],
    },
    "cortex-m4": {
        "device": "cortex-m://cortex-m4", "backend": Tflite, "backends": ["tflite", "c"],
        "metric": "instructions", "settings": [],
    },
}  # fmt: skip

LESS = ["stage.distill.epochs=1", "stage.prune.epochs=1", "data.views=1"]


def file_of(name: str, target: str, work: Path) -> Path:
    """A network's int8 file for a target, kept in `work`."""
    folder = work / target / name.replace(":", "-").replace(" ", "-")
    made = next(folder.glob("model.*"), None) if folder.is_dir() else None
    if made is not None:
        return made
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    module, x = network(name)
    samples = torch.rand(4, *x.shape[1:])
    settle(module, samples)
    whole = Candidate(module.eval(), samples[:1])
    profile = load_target(target)
    graph = calibrate(module, samples[:1], samples, profile.quantization)
    backend = SEARCHES[target]["backend"]()
    quantized = whole.after(graph, "quantize: int8", "int8")
    options = profile.backends[SEARCHES[target]["backends"][0]]
    return backend.compile(quantized, profile, options, folder)[0].path


def enter(target: str, work: Path) -> None:
    """Measure the networks by operator, as `edgekd bench --per-layer` does."""
    profile = load_target(target)
    files = [file_of(name, target, work) for name in KNOWN]
    with closing(open_device(SEARCHES[target]["device"])) as device:
        for loaded in loaded_files(files, profile, device, Wanted()):
            artifact = loaded.artifact
            folder = table_folder(cache_folder(), device, artifact, loaded.options)
            if (folder / f"{artifact.sha256}.json").is_file():
                continue
            print("measure", artifact.path, file=sys.stderr)
            if device.kind == "measured":
                wanted = Wanted(per_layer=True)
                bench_files([artifact.path], profile, device, quick=True, wanted=wanted)
            else:
                profiled = device.profile(artifact, loaded.options, quick=True)
                keep_costs(folder, artifact, profiled, None)


def searched(target: str, budget: str, limit: float, trials: int, work: Path) -> SearchResult:
    return edgekd.search(
        HERE / "space.toml", target=target, backends=SEARCHES[target]["backends"],
        budgets={budget: limit, "accuracy_drop": 20.0}, accept=["simulated"],
        settings=[*LESS, *SEARCHES[target]["settings"]],
        limits=edgekd.SearchOptions(trials=trials), out=work / f"search-{target}", quick=True,
        progress=False,
    )  # fmt: skip


def value_of(files: list[Any], metric: str) -> float | None:
    """The least value of a metric over a run's files."""
    found = [
        one.value
        for file in files
        for one in file.measurements
        if one.metric == metric and one.value is not None
    ]
    return min(found, default=None)


def trained(trial: Trial, target: str, work: Path) -> list[Any]:
    """The files of a refused trial's recipe, trained and measured all the same."""
    search = work / f"search-{target}"
    out = search / "checked" / f"{trial.number:04d}"
    share_stages(out, search)
    report = edgekd.compress(
        search / trial.folder / "recipe.toml", target=target, budgets={},
        backends=SEARCHES[target]["backends"], accept=["simulated"], quick=True, out=out,
        progress=False,
    )  # fmt: skip
    return list(report.targets[0].artifacts)


def row_of(trial: Trial, target: str, limit: float, work: Path) -> dict[str, Any]:
    """What was predicted of a trial and what it really takes."""
    metric = SEARCHES[target]["metric"]
    files: list[FileOutcome] | list[Any] = list(trial.files)
    if trial.state == "refused":
        files = trained(trial, target, work)
    taken = value_of(files, metric)
    predicted = [one.cost.value for one in trial.predicted if one.cost.value is not None]
    before = value_of(list(trial.untrained), metric)
    return {
        "trial": trial.number,
        "state": trial.state,
        "refused_by": trial.where if trial.state == "refused" else "",
        "predicted": min(predicted, default=None),
        "untrained": before,
        "taken": taken,
        "beyond_the_limit": None if taken is None else taken > limit,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many trials were refused by what, how many of them rightly, and how well it was told."""
    found: dict[str, Any] = {}
    for name, where in (("by_the_table", "cost table"), ("by_a_run_untrained", "plan")):
        refused = [row for row in rows if row["refused_by"] == where]
        found[f"refused_{name}"] = len(refused)
        found[f"refused_{name}_rightly"] = sum(bool(row["beyond_the_limit"]) for row in refused)
    trained = [row for row in rows if row["state"] == "finished"]
    found["trained"] = len(trained)
    found["trained_beyond_the_limit"] = sum(bool(row["beyond_the_limit"]) for row in trained)
    pairs = [(row["predicted"], row["taken"]) for row in rows if row["predicted"] and row["taken"]]
    if pairs:
        ratio = statistics.median(taken / predicted for predicted, taken in pairs)
        raw = [abs(predicted / taken - 1) for predicted, taken in pairs]
        corrected = [abs(predicted * ratio / taken - 1) for predicted, taken in pairs]
        found["predictions"] = {
            "files": len(pairs),
            "median_error": statistics.median(raw),
            "largest_error": max(raw),
            "ratio": ratio,
            "corrected_median_error": statistics.median(corrected),
            "corrected_largest_error": max(corrected),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--targets", nargs="+", default=list(SEARCHES), choices=list(SEARCHES))
    parser.add_argument("--tables-only", action="store_true")
    parser.add_argument("--latency-ms", type=float, default=0.03)
    parser.add_argument("--instructions", type=float, default=5e5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    work = given.work or Path(tempfile.mkdtemp(prefix="edgekd-tables-"))
    os.environ["EDGEKD_CACHE"] = str(work / "cache")
    limits = {"x86": ("latency_ms", given.latency_ms),
              "cortex-m4": ("instructions", given.instructions)}  # fmt: skip
    for target in given.targets:
        budget, limit = limits[target]
        enter(target, work)
        if given.tables_only:
            continue
        result = searched(target, budget, limit, given.trials, work)
        rows = [row_of(trial, target, limit, work) for trial in result.trials]
        found = {
            "budget": {budget: limit},
            "table_files": len(KNOWN),
            **summary(rows),
            "told_by_the_search": [use.text for use in result.targets[0].tables],
            "rows": rows,
        }
        (work / f"{target}.json").write_text(json.dumps(found))
    kept = {target: work / f"{target}.json" for target in limits}
    searches = {name: json.loads(path.read_text()) for name, path in kept.items() if path.exists()}
    if searches:
        write_result(__file__, {"trials": given.trials, "searches": searches})


if __name__ == "__main__":
    main()
