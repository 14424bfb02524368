"""Runs the conformance suite: python benchmarks/conformance/run.py [PATTERN ...]

Each step of each network runs in a process of its own, with a limit on the processor time of that
process, so that a busy machine fails nothing. The table is written
after every network, as conformance.DATE.json and conformance.DATE.md beside this file; networks
that a pattern selects replace their own rows, in the order of the patterns.
"""

import argparse
import datetime
import fnmatch
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from networks import ROWS, Row
from steps import STEPS, run_step

from edgekd.store import code_key

HERE = Path(__file__).resolve().parent
LIMIT_S = 240.0
PATIENCE = 6
"""The limit on a step's wall time, as a multiple of that on its processor time."""
ENDINGS = ("worked", "refused", "failed", "wrong", "unfinished")


def main() -> int:
    options = _options()
    found = (row for p in options.pattern for row in ROWS if fnmatch.fnmatch(row.name, p))
    rows = list({row.name: row for row in found}.values())
    place = HERE / f"conformance.{datetime.date.today().isoformat()}.json"
    table = json.loads(place.read_text()) if place.exists() else {"networks": {}}
    for row in rows:
        results = table["networks"].setdefault(row.name, {})
        steps = [
            step for step in options.steps
            if results.get(step, {}).get("status", "none") not in options.skipped
        ]  # fmt: skip
        _run(row, steps, results, options.limit)
        _write(place, table)
    if not rows:  # the table alone
        _write(place, table)
    return int(any(s["status"] in ("wrong", "failed") for r in rows
                   for s in table["networks"][r.name].values()))  # fmt: skip


TRAINED = ("distill", "prune", "qat")


def _run(row: Row, steps: list[str], results: dict[str, Any], limit: float) -> None:
    """Run the steps. Those that train go through one recipe together; if it does not work, each
    of them is run by itself, to see which one it is."""
    if set(TRAINED) <= set(steps):
        together = in_a_process(row, "trained", limit)
        print(f"{row.name} {' + '.join(TRAINED)}: {_line(together)}", flush=True)
        if together["status"] == "worked":
            results |= {step: {**together, "together": True} for step in TRAINED}
            steps = [step for step in steps if step not in TRAINED]
    for step in steps:
        results[step] = in_a_process(row, step, limit)
        print(f"{row.name} {step}: {_line(results[step])}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="*", default=["*"], help="names, with * as in a shell")
    parser.add_argument("--steps", nargs="*", default=list(STEPS), choices=STEPS)
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="processor seconds a step")
    skip = parser.add_mutually_exclusive_group()
    keys: dict[str, Any] = {"action": "store_const", "dest": "skipped", "default": ()}
    skip.add_argument("--missing", const=("worked",), help="skip what worked before", **keys)
    skip.add_argument("--resume", const=ENDINGS, help="skip what has any result", **keys)
    return parser.parse_args()


def in_a_process(row: Row, step: str, limit: float) -> dict[str, Any]:
    """A step in a fork of this process, which is ended when its time is over."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, row, step, limit))
    started = time.perf_counter()
    process.start()
    theirs.close()
    try:
        result = ours.recv() if ours.poll(PATIENCE * limit) else _unfinished(limit)
    except EOFError:
        process.join()
        result = {"status": "failed", "words": f"the process died ({process.exitcode})"}
        if process.exitcode in (-signal.SIGXCPU, -signal.SIGKILL):
            result = _unfinished(limit)
    process.kill()
    process.join()
    return {**result, "seconds": round(time.perf_counter() - started, 1)}


def _unfinished(limit: float) -> dict[str, Any]:
    """A step that neither worked nor failed: this machine was too slow for it."""
    return {"status": "unfinished", "words": f"stopped after {limit:.0f} s"}


def _child(pipe: Connection, row: Row, step: str, limit: float) -> None:
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + int(limit), used + int(limit) + 5))
    quiet = os.open(os.devnull, os.O_WRONLY)
    if not os.environ.get("CONFORMANCE_LOUD"):
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
    result = run_step(row, step)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() + spent.ru_utime + spent.ru_stime
    pipe.send({**result, "processor_seconds": round(seconds, 1), "code": code_key()[:12]})
    pipe.close()
    os._exit(0)


def _line(result: dict[str, Any]) -> str:
    return f"{result['status']} in {result['seconds']} s {result.get('words', '')}"


def _write(place: Path, table: dict[str, Any]) -> None:
    counts = dict.fromkeys(ENDINGS, 0)
    for results in table["networks"].values():
        for step in results.values():
            counts[step["status"]] += 1
    through = [n for n, r in table["networks"].items() if _through(r)]
    missing = {
        step: [row.name for row in ROWS if step not in table["networks"].get(row.name, {})]
        for step in STEPS
    }
    table = {
        "networks": table["networks"],
        "steps": counts,
        "through_all_steps": len(through),
        "not_run": missing,
    }
    place.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    lines = [
        f"# Conformance, {place.name.split('.')[1]}",
        "",
        f"{sum(counts.values())} of {len(ROWS) * len(STEPS)} rows were run. "
        f"{len(through)} of {len(ROWS)} networks are known to go through every step. An empty cell "
        "was not run; `unfinished` was stopped by the limit on its time. In brackets: a network "
        "that is built with fewer blocks, of every kind.",
        "",
        "| step | " + " | ".join(ENDINGS) + " | not run |",
        "|---|" + "---|" * (len(ENDINGS) + 1),
        *(_totals(step, table["networks"], len(missing[step])) for step in STEPS),
        "",
        "| network | " + " | ".join(STEPS) + " |",
        "|---|" + "---|" * len(STEPS),
    ]
    for name, smaller in [(row.name, row.smaller) for row in ROWS]:
        results = table["networks"].get(name, {})
        cells = [results.get(step, {"status": ""}) for step in STEPS]
        shown = f"{name} ({smaller})" if smaller else name
        lines.append(f"| {shown} | " + " | ".join(_cell(cell) for cell in cells) + " |")
    place.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _totals(step: str, networks: dict[str, Any], missing: int) -> str:
    endings = [results[step]["status"] for results in networks.values() if step in results]
    return f"| {step} | " + " | ".join(str(endings.count(e)) for e in ENDINGS) + f" | {missing} |"


def _through(results: dict[str, Any]) -> bool:
    return all(results.get(step, {}).get("status") == "worked" for step in STEPS)


def _cell(result: dict[str, Any]) -> str:
    notes = [result.get("words", ""), result.get("rounding", "")]
    notes += result.get("left", ())
    words = "; ".join(filter(None, notes)).replace("|", "/")
    return f"{result['status']}: {words[:160]}" if words else result["status"]


if __name__ == "__main__":
    # What every step needs is imported once; the forks share it.
    import nncf.torch  # noqa: F401
    import onnxruntime  # noqa: F401
    import torch

    import edgekd.quant.export
    import edgekd.stages.quantize  # noqa: F401

    torch.set_num_threads(1)
    sys.exit(main())
