"""A search on digits for x86 against random search and the hand-written recipe, at equal trials.

For each seed, `edgekd search` runs the space of space.toml twice, once with its sampler and once at
random, with the same number of trials; hand.toml, the shipped recipe's values, is run once. All
count by their int8 ONNX file: accuracy on the test set and size. Then budgets are drawn at random
and each search answers from its trials: how often does what it chooses, by the validation samples,
meet the budgets on the test set where some trial of any run does?

    python benchmarks/search/digits.py --trials 12 --seeds 2
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import edgekd
from edgekd.searching.judging import best_of, points_of
from edgekd.searching.outcome import Trial
from edgekd.searching.result import SearchResult

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from dated import write_result  # noqa: E402

REFERENCE = (0.90, 60.0)
"""The accuracy and the size in kB that the dominated area is counted from."""

DRAWS = 20
BUDGETS = {"size_kb": 60.0, "accuracy_drop": 3.0}


def searched(sampler: Any, seed: int, trials: int, work: Path) -> SearchResult:
    options = edgekd.SearchOptions(trials=trials, sampler=sampler)
    return edgekd.search(
        HERE / "space.toml", target="x86", backends=["onnx"], budgets=BUDGETS, seed=seed,
        limits=options, out=work / f"{sampler}-{seed}", quick=True, progress=False,
    )  # fmt: skip


def by_hand(seed: int, work: Path) -> tuple[float, float]:
    report = edgekd.compress(
        HERE / "hand.toml", target="x86", backends=["onnx"], seed=seed,
        out=work / f"hand-{seed}", quick=True, progress=False,
    )  # fmt: skip
    (artifact,) = report.targets[0].artifacts
    assert artifact.accuracy is not None
    return artifact.accuracy, artifact.bytes / 1e3


def places(trials: tuple[Trial, ...]) -> list[tuple[float, float]]:
    """(accuracy on the test set, size in kB) of every file."""
    files = [file for trial in trials for file in trial.files if file.accuracy is not None]
    return [(file.accuracy or 0.0, file.bytes / 1e3) for file in files]


def area(points: list[tuple[float, float]]) -> float:
    """What the points dominate, in accuracy times kB, from REFERENCE."""
    accuracy, size = REFERENCE
    total, reached = 0.0, accuracy
    front = sorted((s, -a) for a, s in points if a > accuracy and s < size)
    best: list[tuple[float, float]] = []
    for s, negative in front:
        if -negative > reached:
            reached = -negative
            best.append((s, reached))
    for (s, a), (after, _) in zip(best, [*best[1:], (size, 0.0)], strict=True):
        total += (after - s) * (a - accuracy)
    return total


def drawn(seed: int) -> list[dict[str, float]]:
    source = random.Random(seed)
    return [
        {"size_kb": source.uniform(15.0, 60.0), "accuracy_drop": source.uniform(0.5, 6.0)}
        for _ in range(DRAWS)
    ]


def answers(result: SearchResult, everything: list[Trial], seed: int) -> dict[str, int]:
    """How many of the drawn budgets can be met by any trial, and by what the search chooses."""
    feasible = met = said_no = 0
    for limits in drawn(seed):
        table = {"x86": limits}
        if best_of(points_of(everything, "x86", table, ())) is None:
            said_no += best_of(points_of(result.trials, "x86", table, ())) is None
            continue
        feasible += 1
        met += best_of(points_of(result.trials, "x86", table, ())) is not None
    return {"feasible": feasible, "met": met, "none exists and none claimed": said_no}


def one_seed(seed: int, trials: int, samplers: list[str], work: Path) -> dict[str, Any]:
    found = {name: searched(name, seed, trials, work) for name in samplers}
    accuracy, size = by_hand(seed, work)
    row: dict[str, Any] = {"seed": seed, "hand": {"accuracy": accuracy, "size_kb": size}}
    row["hand"]["area"] = area([(accuracy, size)])
    everything = [
        trial.model_copy(update={"number": trial.number + 1000 * number})
        for number, result in enumerate(found.values())
        for trial in result.trials
    ]
    for name, result in found.items():
        best = result.targets[0].best
        row[name] = {
            "area": area(places(result.trials)),
            "trials": len(result.trials),
            "refused": sum(trial.state == "refused" for trial in result.trials),
            "failed": sum(trial.state == "failed" for trial in result.trials),
            "minutes": sum(trial.seconds for trial in result.trials) / 60,
            "chosen": None if best is None else chosen_point(best),
        }
        if len(found) > 1:  # otherwise no other run says what is feasible
            row[name]["draws"] = answers(result, everything, seed)
    return row


def chosen_point(best: Any) -> dict[str, Any]:
    return {
        "accuracy": best.accuracy,
        "validation": best.validation,
        "size_kb": best.bytes / 1e3,
        "verdict": best.verdict,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--samplers", nargs="+", default=["tpe", "random"])
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    work = given.work or Path(tempfile.mkdtemp(prefix="edgekd-search-"))
    rows = [one_seed(seed, given.trials, given.samplers, work) for seed in range(given.seeds)]
    settings = {
        "trials": given.trials, "samplers": given.samplers, "budgets": BUDGETS,
        "reference": REFERENCE,
    }  # fmt: skip
    write_result(__file__, {"settings": settings, "seeds": rows})


if __name__ == "__main__":
    main()
