"""The ratio of the same two files, measured by `edgekd bench` in separate processes one after the
other: how far apart the ratios lie, and how far apart the single medians do.

    python benchmarks/bench/ratio_repeats.py [--processes 5] [--quick]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.networks import make_files
from dated import write_result


def one(first: Path, second: Path, quick: bool) -> tuple[float, float]:
    """The ratio, and the median of the second file in ms."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, "-m", "edgekd", "bench", str(second), "--baseline"]
        command += [str(first), "--json", str(out), *(["--quick"] if quick else [])]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        table = json.loads(out.read_text())[1]
    rows = {row["metric"]: row["value"] for row in table["measurements"]}
    return table["ratio"]["value"], rows["latency_ms_p50"]


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
    pairs = [one(files["fp32.onnx"], files["int8.onnx"], options.quick)
             for _ in range(options.processes)]  # fmt: skip
    ratios, medians = map(list, zip(*pairs, strict=True))
    write_result(
        __file__,
        {
            "what": "fp32 over int8 latency of one network, ONNX Runtime, one thread",
            "protocol": "quick" if options.quick else "full",
            "load_before": load,
            "load_after": os.getloadavg()[0],
            "ratios": ratios,
            "spread_of_ratios": spread(ratios),
            "medians_ms": medians,
            "spread_of_medians": spread(medians),
            "goal": "ratios within 0.02",
        },
    )


if __name__ == "__main__":
    main()
