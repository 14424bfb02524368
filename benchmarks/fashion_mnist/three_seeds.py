"""Compress the Fashion-MNIST teacher for x86 with three seeds: accuracy, size and latency ratios.

python benchmarks/fashion_mnist/three_seeds.py --out runs/fashion-mnist
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from dated import write_result  # noqa: E402


def compress(seed: int, out: Path, quick: bool) -> dict[str, Any]:
    """One run's report."""
    folder = out / f"seed-{seed}"
    command = [str(Path(sys.executable).with_name("edgekd")), "compress"]
    command += [str(HERE / "recipe.toml"), "--target", "x86"]
    command += ["--seed", str(seed), "--out", str(folder), *(["--quick"] if quick else [])]
    done = subprocess.run(command)
    if done.returncode not in (0, 1, 4):
        raise SystemExit(done.returncode)
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def row(report: dict[str, Any]) -> dict[str, Any]:
    """The int8 ONNX student against the fp32 teacher, both on ONNX Runtime in one process."""
    target = report["targets"][0]
    teacher = target["baseline"]
    student = next(each for each in target["artifacts"] if each["format"] == "onnx")

    def measured(artifact: dict[str, Any], metric: str) -> dict[str, Any]:
        return next(each for each in artifact["measurements"] if each["metric"] == metric)

    def p50(artifact: dict[str, Any]) -> float:
        return float(measured(artifact, "latency_ms_p50")["value"])

    ratio = measured(student, "latency_ratio")
    return {
        "seed": report["seed"],
        "teacher_accuracy": teacher["accuracy"],
        "student_accuracy": student["accuracy"],
        "drop_points": student["accuracy_drop"],
        "drop_ci": student["accuracy_drop_ci"],
        "times_smaller": teacher["bytes"] / student["bytes"],
        "times_faster": ratio["value"],
        "times_faster_ci": ratio["ci"],
        "teacher_p50_ms": p50(teacher),
        "student_p50_ms": p50(student),
        "student_bytes": student["bytes"],
        "max_lsb": student["parity"]["max_lsb"],
        "others": [
            {
                "format": each["format"],
                "precision": each["precision"],
                "accuracy": each["accuracy"],
                "bytes": each["bytes"],
                "p50_ms": p50(each),
            }
            for each in target["artifacts"]
            if each["format"] != "onnx"
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/fashion-mnist"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    rows = [row(compress(seed, options.out, options.quick)) for seed in options.seeds]
    write_result(
        __file__,
        {
            "what": "Fashion-MNIST: int8 student against fp32 teacher, ONNX Runtime, 1 thread",
            "goal": "drop at most 1.0 point, at least 10x smaller, at least 10x faster",
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main()
