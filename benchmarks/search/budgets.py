"""Random budgets answered by one finished search: is the answer proven, and is a refusal right?

A perceptron is searched once on digits. Then limits of size and accuracy are drawn at random, and
`edgekd search` is called again in the same folder with each pair: it answers from its trials, runs
the chosen recipe by itself and measures that file. A draw is feasible if the file of some trial
meets both limits on the test set. Where one exists, the proven file has to meet them; where none
exists, the search has to say so, with the nearest point.

    python benchmarks/search/budgets.py --trials 12 --draws 20
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import edgekd
from edgekd.searching.judging import best_of, points_of
from edgekd.searching.result import SearchResult

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
from dated import write_result  # noqa: E402
from early_stopping import RECIPE, write_case  # noqa: E402

FIRST = {"size_kb": 60.0, "accuracy_drop": 30.0}
SIZES, DROPS = (5.0, 11.0), (0.5, 8.0)


def answered(limits: dict[str, float], trials: int, work: Path) -> SearchResult:
    return edgekd.search(
        work / "recipe.toml", target="x86", backends=["onnx"], budgets=limits,
        limits=edgekd.SearchOptions(trials=trials), out=work / "search", quick=True,
        progress=False,
    )  # fmt: skip


def drawn(draws: int, seed: int) -> list[dict[str, float]]:
    source = random.Random(seed)
    return [
        {"size_kb": source.uniform(*SIZES), "accuracy_drop": source.uniform(*DROPS)}
        for _ in range(draws)
    ]


def row_of(limits: dict[str, float], trials: int, work: Path) -> dict[str, Any]:
    """What a search answers to one draw, and whether that is right."""
    begun = time.perf_counter()
    result = answered(limits, trials, work)
    (target,) = result.targets
    feasible = best_of(points_of(result.trials, "x86", {"x86": limits}, ())) is not None
    proven, nearest = target.proven, target.nearest
    met = proven is not None and proven.verdict == "pass"
    said = target.best is None and nearest is not None and target.verdict == "fail"
    return {
        "limits": limits,
        "feasible": feasible,
        "proven_meets_it": met,
        "same_bytes": proven.same_bytes if proven else None,
        "says_none_with_the_nearest": said,
        "nearest_violation": nearest.violation if nearest else None,
        "trials": len(result.trials),
        "right": met if feasible else said,
        "seconds": time.perf_counter() - begun,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    work = given.work or Path(tempfile.mkdtemp(prefix="edgekd-budgets-"))
    write_case(work)
    (work / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    first = answered(FIRST, given.trials, work)
    rows = []
    for limits in drawn(given.draws, given.seed):
        rows.append(row_of(limits, given.trials, work))
        print(rows[-1], file=sys.stderr, flush=True)
    feasible = [row for row in rows if row["feasible"]]
    rest = [row for row in rows if not row["feasible"]]
    write_result(
        __file__,
        {
            "settings": {"trials": given.trials, "draws": given.draws, "seed": given.seed},
            "first_search": {
                "trials": len(first.trials),
                "minutes": sum(trial.seconds for trial in first.trials) / 60,
            },
            "draws": {
                "feasible": len(feasible),
                "feasible_and_proven": sum(row["right"] for row in feasible),
                "infeasible": len(rest),
                "infeasible_and_said_with_the_nearest": sum(row["right"] for row in rest),
            },
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
