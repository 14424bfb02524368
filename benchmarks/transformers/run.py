"""Compress the Transformers of this folder's recipes, each beside a student of labels alone.

    EDGEKD_DATA=DIRECTORY python benchmarks/transformers/run.py [--only NAME ...] [--out DIR]

train_teachers.py trains the teachers first. A run in OUT that has its report is read, not repeated.
The twin of a recipe is its student, begun at random, that learns the same samples for as many
epochs from labels alone. Accuracy is that of the file over all test samples, latency is short
(--quick), as the ratio to the teacher's file in the same process. Error rates are those of what a
file writes by itself. With --only the other rows of the day's result stay.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
from dated import write_result  # noqa: E402
from generate import generation  # noqa: E402

from edgekd.store import code_key  # noqa: E402

RECIPES = ("distilbert", "tinybert", "minilm", "movement", "deit", "gpt2", "whisper")
TWINS = {
    "labels-whole": "distilbert",
    "labels-of-48": "tinybert",
    "labels-deit": "deit",
    "labels-whisper": "whisper",
}
"""Students of labels alone. Those of distilbert and whisper have all of the teacher's layers, since
they keep none of them; minilm has the student of tinybert, and movement has none."""

WRITTEN = ("word_error_rate", "character_error_rate", "exact_match")
"""What is measured of networks that write."""


def read(name: str) -> dict[str, Any]:
    return tomllib.loads((HERE / f"{name}.toml").read_text(encoding="utf-8"))


def twin(name: str) -> dict[str, Any]:
    """A recipe's student from labels alone, its files named by their whole paths."""
    recipe = read(name)
    for table in (recipe["model"], recipe["student"]):
        for key, prefix in (("weights", ""), ("source", "transformers:")):
            if key in table:
                path = HERE / table[key].removeprefix(prefix)
                table[key] = f"{prefix}{path.resolve()}"
    for key in ("weights", "layers"):
        recipe["student"].pop(key, None)
    taught = [stage for stage in recipe["stages"] if stage["kind"] == "distill"]
    plain = {"losses": [], "label_weight": 1.0, "epochs": sum(each["epochs"] for each in taught)}
    first = {key: value for key, value in taught[-1].items() if key != "scheme"}
    return {**recipe, "stages": [{**first, **plain}, recipe["stages"][-1]]}


def compressed(recipe: Path, out: Path, backends: list[str]) -> dict[str, Any]:
    """The report of a run, which is made if it isn't there."""
    report = out / "report.json"
    if not report.exists():
        command = [str(Path(sys.executable).with_name("edgekd")), "compress", str(recipe)]
        command += ["--target", "x86", "--quick", "--out", str(out)]
        command += [part for backend in backends for part in ("--backend", backend)]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": _path()})
        if done.returncode not in (0, 1, 4):
            raise SystemExit(done.returncode)
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def _path() -> str:
    return os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])


def row(recipe: dict[str, Any], report: dict[str, Any], formats: list[str]) -> dict[str, Any]:
    """What a run's files of these formats are, beside its teacher's."""
    target = report["targets"][0]
    taught = [stage for stage in recipe["stages"] if "epochs" in stage]
    return {
        "training_samples": report["data"]["train"],
        "epochs": [stage["epochs"] for stage in taught],
        "stages": [stage["line"] for stage in report["stages"]],
        "stage_seconds": round(sum(stage["seconds"] for stage in report["stages"]), 1),
        "parameters": report["stages"][-1]["parameters"],
        "code": code_key()[:12],
        "teacher": _file(target["baseline"]),
        "files": [_file(each) for each in target["artifacts"] if each["format"] in formats],
    }


def _file(artifact: dict[str, Any]) -> dict[str, Any]:
    measured = {each["metric"]: each for each in artifact["measurements"]}
    parity = artifact.get("parity") or {}
    return {
        "format": artifact["format"],
        "precision": artifact["precision"],
        "accuracy_percent": round(100 * artifact["accuracy"], 2),
        **{f"{name}_percent": _percent(measured[name]) for name in WRITTEN if name in measured},
        "bytes": artifact["bytes"],
        "p50_ms": measured["latency_ms_p50"]["value"],
        "times_faster": measured["latency_ratio"]["value"],
        "times_faster_ci": measured["latency_ratio"].get("ci"),
        "max_lsb": parity.get("max_lsb"),
    }


def _earlier() -> dict[str, Any]:
    """The rows of a result of today."""
    path = HERE / f"run.{datetime.date.today().isoformat()}.json"
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    return found


def _percent(measurement: dict[str, Any]) -> float | None:
    value = measurement["value"]
    return None if value is None else round(100 * value, 2)


def main() -> None:
    """Run what is asked for, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/transformers"))
    parser.add_argument("--only", nargs="+", choices=[*RECIPES, *TWINS], metavar="NAME")
    parser.add_argument("--backend", nargs="+", default=["onnx", "tflite"])
    given = parser.parse_args()
    rows: dict[str, Any] = {}
    for name in given.only or [*RECIPES, *TWINS]:
        out, path = given.out / name, HERE / f"{name}.toml"
        recipe = twin(TWINS[name]) if name in TWINS else read(name)
        if name in TWINS:
            path = given.out / f"{name}.toml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(tomli_w.dumps(recipe), encoding="utf-8")
        rows[name] = row(recipe, compressed(path, out, given.backend), given.backend)
        if name == "gpt2":
            student = HERE / read("gpt2_step")["model"]["weights"]
            rows[name]["generation"] = generation(out, given.out / "gpt2_step", student, compressed)
        print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)
    what = "Transformers compressed for x86, the files beside the teacher's; one seed, one thread"
    rows = {**_earlier(), **rows}
    left_out = [name for name in (*RECIPES, *TWINS) if name not in rows]
    about = {"what": what, "seed": 0, "latency": "--quick", "left_out": left_out}
    write_result(__file__, {**about, "runs": rows})


if __name__ == "__main__":
    main()
