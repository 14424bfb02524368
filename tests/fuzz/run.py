"""Random networks through edgekd: `python tests/fuzz/run.py --graphs 200 --seed 0`.

Prints how many networks each check saw, which it refused with which words, and every wrong one.
"""

import argparse
import json
import re
import sys
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "support"))

import checks
import compiled
import restructured
import torch
from checks import Case, Check
from drawing import draw
from shrinking import shrunk

from edgekd.errors import InputError

CHECKS: dict[str, Check] = {
    "export": checks.export,
    "ptq": checks.ptq,
    "onnx": checks.onnx,
    "half": checks.half,
    "ptq8": checks.ptq8,
    "prune": restructured.prune,
    "silenced": restructured.silenced,
    "low rank": restructured.low_rank,
    "qat": checks.qat,
    "tflite": compiled.tflite,
    "c": compiled.c,
}

MAIN = ("export", "ptq", "onnx", "prune", "low rank")
"""The checks that take about a second."""


@dataclass
class Table:
    """What became of the networks of each check."""

    tried: Counter[str] = field(default_factory=Counter)
    refused: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    rounding: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, int, str]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{'check':<10}{'networks':>9}{'refused':>9}{'rounding':>10}{'wrong':>7}"]
        for name, count in self.tried.items():
            wrong = sum(check == name for check, _, _ in self.wrong)
            refused, rounding = self.refused[name].total(), self.rounding[name]
            lines.append(f"{name:<10}{count:>9}{refused:>9}{rounding:>10}{wrong:>7}")
        for name, words in self.refused.items():
            lines += [f"{name} refused {count}: {text}" for text, count in words.most_common()]
        lines += [f"{check} wrong, seed {seed}: {text}" for check, seed, text in self.wrong]
        return "\n".join(lines)


def outcome(check: Check, case: Case) -> tuple[str, str]:
    """ "right", "refused", "rounding" or "wrong", and the words."""
    try:
        check(case)
    except InputError as error:
        return "refused", re.sub(r"'[^']*'|\d+", "..", error.message)
    except checks.RoundingOnly as error:
        return "rounding", str(error)
    except checks.Wrong as error:
        return "wrong", str(error)
    except Exception as error:  # whatever goes wrong is what is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        words = str(error).strip().splitlines() or [""]
        return "wrong", f"{type(error).__name__}: {words[0]} ({place.filename}:{place.lineno})"
    return "right", ""


def run(
    seeds: Iterable[int], names: Sequence[str], shrink: bool = False, log: Path | None = None
) -> Table:
    """The table of the networks of these seeds; `log` gets a line of JSON for each."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    table = Table()
    for seed in seeds:
        case = Case(draw(seed))
        found: dict[str, tuple[str, str]] = {}
        for name in names:
            table.tried[name] += 1
            kind, words = found[name] = outcome(CHECKS[name], case)
            if kind == "refused":
                table.refused[name][words] += 1
                if name == "export":
                    break
            table.rounding[name] += kind == "rounding"
            if kind == "wrong":
                table.wrong.append((name, seed, words))
                print(f"{name} wrong, seed {seed}: {words}", file=sys.stderr, flush=True)
                if shrink:
                    small = shrunk(case.program, CHECKS[name])
                    print(small.source(), *small.steps, sep="\n", file=sys.stderr, flush=True)
        if log:
            with log.open("a") as file:
                file.write(json.dumps({"seed": seed, "outcomes": found}) + "\n")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=[*MAIN])
    parser.add_argument("--shrink", action="store_true", help="print each wrong one in small")
    parser.add_argument("--log", type=Path, help="append each network's outcomes to this file")
    options = parser.parse_args()
    start = time.monotonic()
    seeds = range(options.seed, options.seed + options.graphs)
    table = run(seeds, options.checks, options.shrink, options.log)
    print(table)
    print(f"{options.graphs} networks in {time.monotonic() - start:.0f} s")
    sys.exit(bool(table.wrong))


if __name__ == "__main__":
    main()
