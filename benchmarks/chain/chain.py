"""The whole chain on Fashion-MNIST, with one link left out at a time and in other orders.

    python benchmarks/chain/chain.py --out runs/chain [--seeds 0 1 2] [--only NAME ...]

Every variant is a complete run of `edgekd compress` for x86 and ONNX Runtime: accuracy is that of
the int8 file over the 10,000 test images. Stages that variants share are trained once. Zeros among
the weights shorten nothing but a compressed image, so the file's size after DEFLATE is given too. A
run in OUT that has its report is read, not repeated.
"""

import argparse
import json
import statistics
import sys
import tomllib
import zlib
from pathlib import Path
from typing import Any

import tomli_w
import torch

import edgekd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from dated import write_result  # noqa: E402

DISTILL, STRUCTURED, LOW_RANK, MOVEMENT, QUANTIZE = range(5)
ORDERS = {
    "whole chain": (DISTILL, STRUCTURED, LOW_RANK, MOVEMENT, QUANTIZE),
    "without structured pruning": (DISTILL, LOW_RANK, MOVEMENT, QUANTIZE),
    "without low rank": (DISTILL, STRUCTURED, MOVEMENT, QUANTIZE),
    "without movement pruning": (DISTILL, STRUCTURED, LOW_RANK, QUANTIZE),
    "distillation and quantization alone": (DISTILL, QUANTIZE),
    "low rank before structured pruning": (DISTILL, LOW_RANK, STRUCTURED, MOVEMENT, QUANTIZE),
    "movement before low rank": (DISTILL, STRUCTURED, MOVEMENT, LOW_RANK, QUANTIZE),
}
WITHOUT_TEACHER = "labels instead of the teacher"
WITHOUT_QAT = "calibration instead of training to int8"


def variants() -> dict[str, dict[str, Any]]:
    """Recipes by name."""
    recipe = tomllib.loads((HERE / "recipe.toml").read_text(encoding="utf-8"))
    recipe["model"]["weights"] = str((HERE / recipe["model"]["weights"]).resolve())
    stages = recipe["stages"]
    made = {name: [stages[index] for index in order] for name, order in ORDERS.items()}
    alone = {"losses": [], "label_weight": 1.0}
    made[WITHOUT_TEACHER] = [{**stage, **alone} for stage in stages]
    made[WITHOUT_QAT] = [*stages[:-1], {"kind": "quantize", "method": "calibrate"}]
    return {name: {**recipe, "stages": chosen} for name, chosen in made.items()}


def row(recipe: dict[str, Any], folder: Path, seed: int) -> dict[str, Any]:
    """One run's file: accuracy in percent, MACs, parameters, bytes, and bytes after DEFLATE."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe), encoding="utf-8")
    out = folder / "run"
    if not (out / "report.json").exists():
        edgekd.compress(str(path), target="x86", backends=["onnx"], seed=seed, out=out, quick=True)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    artifact = report["targets"][0]["artifacts"][0]
    stage = report["stages"][-1]
    content = (out / artifact["path"]).read_bytes()
    return {
        "seed": seed,
        "accuracy_percent": round(100 * artifact["accuracy"], 2),
        "teacher_percent": round(100 * report["targets"][0]["baseline"]["accuracy"], 2),
        "macs": stage["macs"],
        "parameters": stage["parameters"],
        "bytes": artifact["bytes"],
        "deflated_bytes": len(zlib.compress(content, 9)),
        "max_lsb": artifact["parity"]["max_lsb"],
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The means over seeds, and the spread of the accuracy."""
    accuracies = [each["accuracy_percent"] for each in rows]
    means = ("macs", "parameters", "bytes", "deflated_bytes")
    return {
        "accuracy_percent": round(statistics.mean(accuracies), 2),
        "spread": round(statistics.stdev(accuracies), 2) if len(rows) > 1 else None,
        **{key: round(statistics.mean(each[key] for each in rows)) for key in means},
        "runs": rows,
    }


def main() -> None:
    """Run every variant with every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/chain"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(variants()), metavar="NAME")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in given.seeds:
        for name, recipe in variants().items():
            if given.only and name not in given.only:
                continue
            folder = given.out / name.replace(" ", "-") / str(seed)
            rows.setdefault(name, []).append(row(recipe, folder, seed))
            print(f"{name}, seed {seed}: {rows[name][-1]}", file=sys.stderr, flush=True)
    variants_found = {name: summary(each) for name, each in rows.items()}
    epochs = [stage["epochs"] for stage in variants()["whole chain"]["stages"]]
    write_result(
        __file__,
        {
            "what": "Fashion-MNIST, 10,801 training images: links of the chain left out",
            "seeds": given.seeds,
            "epochs": epochs,
            "left_out": [name for name in variants() if name not in rows],
            "variants": variants_found,
        },
    )


if __name__ == "__main__":
    main()
