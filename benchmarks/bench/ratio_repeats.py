"""The ratio of the same two files, measured by `edgekd bench` in separate processes one after the
other: how far apart the ratios lie, and how far apart the single medians do.

    python benchmarks/bench/ratio_repeats.py [--processes 5] [--quick]
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.networks import make_files
from dated import write_result


def one(first: Path, second: Path, quick: bool) -> tuple[float, float, float]:
    """The ratio, and the medians of both files in ms."""
    command = [sys.executable, "-m", "edgekd", "bench", str(second), "--baseline"]
    command += [str(first), "--json", *(["--quick"] if quick else [])]
    tables = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    medians = (
        next(row["value"] for row in table["measurements"] if row["metric"] == "latency_ms_p50")
        for table in tables
    )
    return tables[1]["ratio"]["value"], *medians


def spread(values: list[float]) -> float:
    """The largest over the smallest, less one."""
    return max(values) / min(values) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--files", type=Path, default=Path("runs/bench-files"))
    options = parser.parse_args()
    files = make_files(options.files, "fp32.onnx", "int8.onnx")
    load = os.getloadavg()[0]
    told = [one(files["fp32.onnx"], files["int8.onnx"], options.quick)
            for _ in range(options.processes)]  # fmt: skip
    ratios, before, after = map(list, zip(*told, strict=True))
    quotients = [x / y for x, y in zip(before, after, strict=True)]
    write_result(
        __file__,
        {
            "what": "fp32 over int8 latency of one network, ONNX Runtime, one thread",
            "protocol": "quick" if options.quick else "full",
            "load_before": load,
            "load_after": os.getloadavg()[0],
            "ratios": ratios,
            "spread_of_ratios": spread(ratios),
            "medians_ms": {"fp32": before, "int8": after},
            "spread_of_medians": {"fp32": spread(before), "int8": spread(after)},
            "spread_of_quotients_of_medians": spread(quotients),
            "goal": "ratios within 0.02",
        },
    )


if __name__ == "__main__":
    main()
