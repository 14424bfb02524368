"""Our p50 against what the runtimes' own tools say of the same file, interleaved in one process.

Like is held against like. Our model-only number (`latency_ms_p50`) has inputs and outputs bound, as
ONNX Runtime's C++ perf test and LiteRT's benchmark have them; our end-to-end number
(`end_to_end_ms_p50`, --end-to-end) is one call from arrays to arrays, as its Python perf test times
it and a program in Python pays it.

- ONNX Runtime, model only: the loop of its documentation ("I/O binding"); the C++ perf test is not
  in the wheel.
- ONNX Runtime, end to end: `onnxruntime.tools.onnxruntime_test`, which tells the mean of
  `session.run`, and the same loop with a median. It gets a session that is warm and has one thread,
  for it would make one with all of them and count its first run; our mean is held against its mean.
- LiteRT, model only: `ai_edge_litert.tools.benchmark_litert_model` with one thread, and a loop
  around `invoke`. The tool rounds to 0.01 ms; here it does not.
- LiteRT, end to end: a loop around `set_tensor`, `invoke`, `get_tensor`.

    python benchmarks/bench/against_own_tools.py [--rounds 147] [--only int8.tflite]
"""

import argparse
import contextlib
import io
import json
import os
import re
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.networks import make_files
from dated import write_result

from edgekd.devices import agent

WINDOW_S = 0.1
"""Short, so that both sides of a round meet the machine in the same state."""

ROUNDS_A_LOAD = 7

Statistic = Callable[[list[float]], float]
Window = Callable[[], float]
"""Runs for a window; milliseconds."""

MEDIAN: Statistic = median
MEAN: Statistic = mean


@dataclass(frozen=True)
class Pair:
    """One of our numbers, by scope and statistic, and a tool's that ought to be the same."""

    tool: str
    make: Callable[[Path], Window]
    scope: str = "model"
    statistic: Statistic = MEDIAN


def ours(path: Path, runtime: str, pair: Pair) -> Window:
    """What `edgekd bench` takes of a window, by what it sends to a device."""
    model = agent.load({"runtime": runtime, "path": str(path), "options": {"threads": 1}})
    arrays = agent.random_inputs(model, 0)
    model.feed(arrays)
    run = model.run if pair.scope == "model" else agent.Agent._end_to_end(model, arrays, "")
    return lambda: pair.statistic(agent.window(run, WINDOW_S, 1)) / 1e6


def timed(run: Callable[[], object]) -> float:
    """Milliseconds of the median of a plain loop over the same time."""
    run()
    taken, end = [], time.perf_counter() + WINDOW_S
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return 1000 * median(taken)


def onnxruntime_session(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """A session with one thread, and random inputs."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (value,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in value.shape]
    return session, {value.name: np.random.default_rng(0).normal(size=shape).astype(np.float32)}


def onnxruntime_loop(path: Path) -> Window:
    session, feeds = onnxruntime_session(path)
    return lambda: timed(lambda: session.run(None, feeds))


def onnxruntime_bound_loop(path: Path) -> Window:
    """With inputs and outputs bound."""
    session, feeds = onnxruntime_session(path)
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")

    def measure(kept: dict[str, np.ndarray] = feeds) -> float:  # bound without a copy: they live
        return timed(lambda: session.run_with_iobinding(binding))

    return measure


def onnxruntime_test(path: Path) -> Window:
    """The wheel's own script, its loop and its clock, as many runs as fill a window."""
    from onnxruntime.tools import onnxruntime_test as tool

    session, feeds = onnxruntime_session(path)
    tool.onnxrt = SimpleNamespace(
        InferenceSession=lambda *_, **__: session, get_available_providers=list
    )
    each_ms = timed(lambda: session.run(None, feeds))
    runs = max(int(1000 * WINDOW_S / each_ms), 20)

    def measure() -> float:
        session.run(None, feeds)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            tool.run_model(str(path), runs, feeds=feeds)
        found = re.search(r"avg latency: ([0-9.e-]+) ms", said.getvalue())
        assert found, said.getvalue()
        return float(found[1])

    return measure


def litert_interpreter(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def litert_loop(path: Path) -> Window:
    interpreter = litert_interpreter(path)
    return lambda: timed(interpreter.invoke)


def litert_whole_loop(path: Path) -> Window:
    """As a program does it: a float input is set, or quantized and set, the output read."""
    interpreter = litert_interpreter(path)
    (x,), (y,) = interpreter.get_input_details(), interpreter.get_output_details()
    array = np.random.default_rng(0).normal(size=x["shape"]).astype(np.float32)

    def run() -> None:
        ready = array
        if x["dtype"] != np.float32:
            scale, zero_point = x["quantization"]
            limits = np.iinfo(x["dtype"])
            steps = np.rint(array / np.float32(scale)) + zero_point
            ready = np.clip(steps, limits.min, limits.max).astype(x["dtype"])
        interpreter.set_tensor(x["index"], ready)
        interpreter.invoke()
        out = interpreter.get_tensor(y["index"])
        if y["dtype"] != np.float32:
            scale, zero_point = y["quantization"]
            (out.astype(np.float32) - zero_point) * np.float32(scale)

    return lambda: timed(run)


def litert_tool(path: Path) -> Window:
    """Its own median of as many runs as fill a window."""
    from ai_edge_litert.tools import benchmark_litert_model as tool

    tool.round = lambda value, _: value  # type: ignore[attr-defined]
    runs = max(int(1000 * WINDOW_S / litert_loop(path)()), 20)
    wanted = Namespace(
        model=str(path), signature="", use_gpu=False, use_npu=False, no_cpu=False,
        require_full_delegation=False, dispatch_library_path="", compiler_plugin_path="",
        runtime_path="", num_runs=runs, warmup_runs=10, num_threads=1, result_json="",
        verbose=False,
    )  # fmt: skip

    def measure() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            return float(tool.run_benchmark(wanted)["latency"]["median_ms"])

    return measure


ONNXRUNTIME = (
    Pair("its documentation's loop with I/O binding", onnxruntime_bound_loop),
    Pair("its documentation's loop", onnxruntime_loop, "end-to-end"),
    Pair("its Python perf test's mean", onnxruntime_test, "end-to-end", MEAN),
)
LITERT = (
    Pair("its benchmark tool", litert_tool),
    Pair("a loop around invoke", litert_loop),
    Pair("a loop from arrays to arrays", litert_whole_loop, "end-to-end"),
)
FILES = {
    "fp32.onnx": ("onnxruntime", ONNXRUNTIME),
    "int8.onnx": ("onnxruntime", ONNXRUNTIME),
    "fp32.tflite": ("litert", LITERT),
    "int8.tflite": ("litert", LITERT),
}


def compared(path: Path, runtime: str, pair: Pair, rounds: int) -> dict[str, object]:
    """The median over rounds of our number over theirs; every second round begins with theirs, and
    every few both load the file anew: where its weights come to lie in memory is worth percents."""
    taken = []
    for each in range(rounds):
        if each % ROUNDS_A_LOAD == 0:
            mine, theirs = ours(path, runtime, pair), pair.make(path)
            mine(), theirs()
        if each % 2:
            taken.append((mine(), theirs()))
        else:
            other = theirs()
            taken.append((mine(), other))
    ratios = [a / b for a, b in taken]
    return {
        "scope": pair.scope,
        "ratio": median(ratios),
        "ratios": ratios,
        "our_ms": median(a for a, _ in taken),
        "their_ms": median(b for _, b in taken),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=147)
    parser.add_argument("--files", type=Path, default=Path("runs/bench-files"))
    parser.add_argument("--only", nargs="*", default=[], help="names of files")
    options = parser.parse_args()
    chosen = [name for name in FILES if not options.only or name in options.only]
    files = make_files(options.files, *chosen)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    load = os.getloadavg()[0]
    found = {
        f"{name} against {pair.tool}": compared(files[name], FILES[name][0], pair, options.rounds)
        for name in chosen
        for pair in FILES[name][1]
    }
    result = {
        "what": "ours over theirs, windows interleaved in one pinned process",
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "found": found,
        "goal": "ratios within 0.97 and 1.03",
    }
    if options.only:  # a part is no dated result
        print(json.dumps(result, indent=1))
    else:
        write_result(__file__, result)


if __name__ == "__main__":
    main()
