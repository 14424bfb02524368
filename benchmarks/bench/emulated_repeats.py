"""Times of an emulated board, measured in three sessions: how far apart they lie.

edgekd board create raspberry-pi-5
python benchmarks/bench/emulated_repeats.py [--sessions 3] [--quick]
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.networks import make_files
from dated import write_result

from edgekd.benchmark.files import bench_files
from edgekd.devices.opening import open_device
from edgekd.values.target import load_target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--board", default="raspberry-pi-5")
    parser.add_argument("--files", type=Path, default=Path("runs/bench-files"))
    options = parser.parse_args()
    files = make_files(options.files, "int8.tflite", "int8.onnx")
    chosen = [files["int8.tflite"], files["int8.onnx"]]
    target, found, load = load_target(options.board), [], os.getloadavg()[0]
    for _ in range(options.sessions):
        begun = time.monotonic()
        device = open_device(f"emulated://{options.board}")
        results = bench_files(chosen, target, device, quick=options.quick)
        device.close()
        rows = [{row.metric: row for row in result.measurements} for result in results]
        found.append(
            {
                **{
                    f"{path.name} {name}": row[name].value
                    for path, row in zip(chosen, rows, strict=True)
                    for name in ("latency_ms_p50", "latency_ms_p90", "cold_start_ms")
                },
                "seconds_it_took": time.monotonic() - begun,
            }
        )
    names = [name for name in found[0] if "latency" in name]
    values = {name: [one[name] for one in found] for name in found[0]}
    write_result(
        __file__,
        {
            "what": "1 ns an instruction on QEMU, one core, a fresh board each session",
            "protocol": rows[0]["latency_ms_p50"].protocol,
            "conditions": rows[0]["latency_ms_p50"].conditions,
            "kind": rows[0]["latency_ms_p50"].kind,
            "load_before": load,
            "sessions": found,
            "spreads": {name: max(values[name]) / min(values[name]) - 1 for name in names},
            "goal": "latencies within 0.001",
        },
    )


if __name__ == "__main__":
    main()
