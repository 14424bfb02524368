"""TVM's int8 library against ONNX Runtime's and LiteRT's int8 files of the same quantized graph.

    python benchmarks/tvm/integers.py [--models resnet8 ...] [--threads 1 2] [--target x86-vnni]

The three run interleaved in one process. Each ratio is one of medians (TVM / the other; below 1 TVM
is faster), with a bootstrap interval, beside the ratio of minima, which other programs on the
machine disturb least. Random weights, calibrated on random images. The result goes to a dated JSON
file beside this script.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from against_onnxruntime import ROUNDS, interval, samples
from dated import write_result

MODELS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "resnet8": ("edgekd.models.resnet:resnet8", {"channels": 1}, (1, 28, 28)),
    "resnet18": ("timm:resnet18", {}, (3, 112, 112)),
    "ds_cnn": ("edgekd.models.ds_cnn:ds_cnn", {}, (1, 49, 10)),
    "mobilenet_v1": ("edgekd.models.mobilenet_v1:mobilenet_v1", {}, (3, 96, 96)),
    "mobilenet_v2": ("edgekd.models.mobilenet_v2:mobilenet_v2", {}, (3, 32, 32)),
    "efficientnet_lite0": ("timm:efficientnet_lite0", {}, (3, 96, 96)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--target", default="x86-vnni")
    parser.add_argument("--timed", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.timed:
        folder, model, threads = arguments.timed
        print(json.dumps(compare(Path(folder), model, int(threads))))
        return
    rows = []
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            facts = prepare(name, Path(folder), arguments.target)
            for threads in arguments.threads:
                row = {"model": name, "threads": threads, **facts}
                rows.append(row | timed(Path(folder), name, threads))
                print(json.dumps(rows[-1]), flush=True)
    conditions = {"target": arguments.target, "load_average": os.getloadavg()[0]}
    write_result(__file__, {**conditions, "results": rows})


def built(name: str) -> Any:
    import torch

    place, keywords, _ = MODELS[name]
    module, _, factory = place.partition(":")
    torch.manual_seed(0)
    if module == "timm":
        from edgekd.installed import import_torchvision

        import_torchvision()
        return importlib.import_module("timm").create_model(factory, **keywords)
    return getattr(importlib.import_module(module), factory)(**keywords)


def prepare(name: str, folder: Path, target_name: str) -> dict[str, Any]:
    """Calibrate once and compile the three files; facts about TVM's, compiled from nothing."""
    import torch

    from edgekd.backends.onnx import Onnx
    from edgekd.backends.tflite import Tflite
    from edgekd.backends.tvm import Tvm
    from edgekd.quant.calibration import calibrate
    from edgekd.values.candidate import Candidate
    from edgekd.values.target import load_target

    torch.set_num_threads(1)
    target = load_target(target_name)
    x = torch.rand(16, *MODELS[name][2], generator=torch.Generator().manual_seed(0))
    module = built(name)
    with torch.no_grad():
        for _ in range(4):  # the batch norms' statistics
            module(x)
    graph = calibrate(module.eval(), x[:1], x, target.quantization)
    candidate = Candidate(module, x[:1]).after(graph, "quantize: int8", "int8")
    Onnx().compile(candidate, target, target.backends["onnx"], folder)
    Tflite().compile(candidate, target, target.backends["tflite"], folder)
    options = target.backends["tvm"] | {"cache": str(folder / "cache")}
    begin = time.monotonic()
    artifact = Tvm().compile(candidate, target, options, folder)[0]
    seconds = time.monotonic() - begin
    scale = next(node for node in reversed(graph.graph.nodes) if node.op == "output")
    with torch.no_grad():
        np.savez(
            folder / "reference.npz", x=x.numpy(), y=graph(x).numpy(),
            scale=scale.args[0][0].args[1],
        )  # fmt: skip
    weights = sum(each.numel() * each.element_size() for each in graph.state_dict().values())
    return {
        "compile_seconds": round(seconds, 1),
        "bytes": artifact.bytes,
        "bytes_beyond_weights": artifact.bytes - weights,
        "onnx_bytes": (folder / "model.onnx").stat().st_size,
        "notes": list(artifact.notes),
    }


def timed(folder: Path, name: str, threads: int) -> dict[str, Any]:
    """The comparison in a fresh process, because TVM reads its threads once."""
    command = [sys.executable, __file__, "--timed", str(folder), name, str(threads)]
    environment = os.environ | {"TVM_NUM_THREADS": str(threads), "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(folder: Path, name: str, threads: int) -> dict[str, Any]:
    with np.load(folder / "reference.npz") as stored:
        x, y, scale = stored["x"], stored["y"], float(stored["scale"])
    run, output = tvm_runner(folder / "model.so")
    steps = max(float(np.abs(output(s[None]) - e[None]).max()) for s, e in zip(x, y, strict=True))
    others = {
        "onnxruntime": onnx_runner(folder / "model.onnx", x[:1], threads),
        "litert": litert_runner(folder / "model.tflite", threads),
    }
    output(x[:1])
    times: dict[str, list[float]] = {"tvm": [], **{other: [] for other in others}}
    for _ in range(ROUNDS):
        times["tvm"] += samples(run)
        for other, runner in others.items():
            times[other] += samples(runner)
    row: dict[str, Any] = {"largest_lsb": round(steps / scale, 2)}
    for other in others:
        low, high = interval(np.array(times["tvm"]), np.array(times[other]))
        row[f"ratio_to_{other}"] = round(
            float(np.median(times["tvm"]) / np.median(times[other])), 3
        )
        row[f"ratio_to_{other}_ci95"] = [round(low, 3), round(high, 3)]
        row[f"ratio_of_minima_to_{other}"] = round(min(times["tvm"]) / min(times[other]), 3)
    for runtime, measured in times.items():
        row[f"{runtime}_ms_p50"] = round(float(np.median(measured)) * 1e3, 4)
    return row


def tvm_runner(path: Path) -> tuple[Any, Any]:
    """A function that runs the library on its last input, and one that gives it an input."""
    import tvm
    from tvm import relax

    entry = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())["main"]
    held = {}

    def output(x: np.ndarray) -> np.ndarray:
        held["x"] = tvm.runtime.tensor(x)
        return np.asarray(entry(held["x"]).numpy())

    return lambda: entry(held["x"]), output


def onnx_runner(path: Path, x: np.ndarray, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, feed)


def litert_runner(path: Path, threads: int) -> Any:
    """LiteRT with XNNPACK, whose file takes int8 and so leaves quantizing the input to others."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter.invoke


if __name__ == "__main__":
    main()
