"""TVM's float artifact against ONNX Runtime's on the same model, interleaved in one process.

    python benchmarks/tvm/against_onnxruntime.py [--models resnet8 ds_cnn ...] [--threads 1 2]

Each number is a ratio of medians (TVM / ONNX Runtime; below 1 TVM is faster) with a bootstrap
interval, beside the ratio of minima, which other programs on the machine disturb least. The
result goes to a dated JSON file beside this script.
"""

import argparse
import datetime
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

MODELS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "resnet8": ("edgekd.models.resnet:resnet8", {"channels": 1}, (1, 28, 28)),
    "resnet14": ("edgekd.models.resnet:resnet14", {"channels": 1}, (1, 28, 28)),
    "ds_cnn": ("edgekd.models.ds_cnn:ds_cnn", {}, (1, 49, 10)),
    "mobilenet_v1": ("edgekd.models.mobilenet_v1:mobilenet_v1", {}, (3, 96, 96)),
    "mobilenet_v2": ("edgekd.models.mobilenet_v2:mobilenet_v2", {}, (3, 32, 32)),
}
ROUNDS, RUNS = 60, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--grid-seconds", type=float, default=40.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--timed", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.timed:
        folder, model, threads = arguments.timed
        print(json.dumps(compare(Path(folder), model, int(threads))))
        return
    results = []
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            compiled = prepare(name, Path(folder), arguments.grid_seconds)
            for threads in arguments.threads:
                row = {"model": name, "threads": threads, **compiled}
                row |= timed(Path(folder), name, threads)
                results.append(row)
                print(json.dumps(row), flush=True)
    today = datetime.date.today().isoformat()
    record = {"date": today, **conditions(), "results": results}
    path = arguments.out / f"{today}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(path)


def built(name: str) -> Any:
    import torch

    place, keywords, _ = MODELS[name]
    module, _, factory = place.partition(":")
    torch.manual_seed(0)
    return getattr(importlib.import_module(module), factory)(**keywords).eval()


def prepare(name: str, folder: Path, grid_seconds: float) -> dict[str, Any]:
    """Compile both artifacts; how long TVM took, from nothing and with nothing cached."""
    import torch

    from edgekd.backends.onnx import Onnx
    from edgekd.backends.tvm import Tvm
    from edgekd.values.candidate import Candidate
    from edgekd.values.target import load_target

    torch.set_num_threads(1)
    target = load_target("x86")
    candidate = Candidate(built(name), torch.rand(1, *MODELS[name][2]))
    Onnx().compile(candidate, target, target.backends["onnx"], folder)
    options = target.backends["tvm"] | {
        "cache": str(folder / "cache"),
        "grid_seconds": grid_seconds,
    }
    begin = time.monotonic()
    artifact = Tvm().compile(candidate, target, options, folder)[0]
    seconds = time.monotonic() - begin
    return {"compile_and_grid_seconds": round(seconds, 1), "notes": list(artifact.notes)}


def timed(folder: Path, name: str, threads: int) -> dict[str, Any]:
    """The comparison in a fresh process, because TVM reads its threads once."""
    command = [sys.executable, __file__, "--timed", str(folder), name, str(threads)]
    environment = os.environ | {"TVM_NUM_THREADS": str(threads), "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(folder: Path, name: str, threads: int) -> dict[str, Any]:
    import onnxruntime
    import tvm
    from tvm import relax

    x = np.random.default_rng(0).random((1, *MODELS[name][2]), dtype=np.float32)
    library = tvm.runtime.load_module(str(folder / "model.so"))
    entry = relax.VirtualMachine(library, tvm.cpu())["main"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: x}
    held = tvm.runtime.tensor(x)
    expected = session.run(None, feed)[0]
    difference = float(np.abs(entry(held).numpy() - expected).max())
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours += samples(lambda: entry(held))
        theirs += samples(lambda: session.run(None, feed))
    low, high = interval(np.array(ours), np.array(theirs))
    return {
        "ratio": round(float(np.median(ours) / np.median(theirs)), 3),
        "ratio_ci95": [round(low, 3), round(high, 3)],
        "ratio_of_minima": round(min(ours) / min(theirs), 3),
        "tvm_ms_p50": round(float(np.median(ours)) * 1e3, 4),
        "onnxruntime_ms_p50": round(float(np.median(theirs)) * 1e3, 4),
        "largest_difference": difference,
    }


def samples(run: Any) -> list[float]:
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return times


def interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Bootstrap of the ratio of medians, whole rounds resampled: neighbours are alike."""
    draw = np.random.default_rng(0)
    a, b = ours.reshape(ROUNDS, RUNS), theirs.reshape(ROUNDS, RUNS)
    picks = draw.integers(0, ROUNDS, (500, ROUNDS))
    ratios = [np.median(a[pick]) / np.median(b[pick]) for pick in picks]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def conditions() -> dict[str, Any]:
    from importlib.metadata import version

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    names = ("apache-tvm", "apache-tvm-ffi", "onnxruntime", "torch")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "load_average": os.getloadavg()[0],
        "versions": {name: version(name) for name in names},
    }


if __name__ == "__main__":
    main()
