"""Our p50 against what the runtimes' own tools say of the same file, interleaved in one process.

ONNX Runtime: the loop of its own documentation ("Tune performance": a session with one thread, run
again and again with the time taken around `session.run`); its perf test is not in the wheel.
LiteRT: `ai_edge_litert.tools.benchmark_litert_model`, as it is, and a loop around `invoke`.

    python benchmarks/bench/against_own_tools.py [--rounds 41]
"""

import argparse
import contextlib
import io
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.networks import make_files
from dated import write_result

from edgekd.devices import agent

WINDOW_S = 0.1
"""Short, so that both sides of a round meet the machine in the same state."""


def ours(path: Path, runtime: str) -> Callable[[], float]:
    """Milliseconds of a window's median, taken by what `edgekd bench` sends to a device."""
    model = agent.load({"runtime": runtime, "path": str(path), "options": {"threads": 1}})
    model.feed(agent.random_inputs(model, 0))
    return lambda: median(agent.window(model.run, WINDOW_S, 1)) / 1e6


def timed(run: Callable[[], object]) -> float:
    """Milliseconds of the median of a plain loop over the same time."""
    taken, end = [], time.perf_counter() + WINDOW_S
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return 1000 * median(taken)


def onnxruntime_loop(path: Path) -> Callable[[], float]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (value,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in value.shape]
    feeds = {value.name: np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    return lambda: timed(lambda: session.run(None, feeds))


def onnxruntime_bound_loop(path: Path) -> Callable[[], float]:
    """The same with inputs and outputs bound ("I/O binding"), as its C++ perf test has them."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (value,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in value.shape]
    binding = session.io_binding()
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    binding.bind_cpu_input(value.name, array)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")

    def measure(kept: np.ndarray = array) -> float:  # bound without a copy: it has to live
        return timed(lambda: session.run_with_iobinding(binding))

    return measure


def litert_loop(path: Path) -> Callable[[], float]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    return lambda: timed(interpreter.invoke)


def litert_tool(path: Path) -> Callable[[], float]:
    """Its own median of as many runs as fill a window; it rounds to 0.01 ms."""
    from ai_edge_litert.tools.benchmark_litert_model import run_benchmark

    runs = max(int(1000 * WINDOW_S / litert_loop(path)()), 20)
    wanted = Namespace(
        model=str(path), signature="", use_gpu=False, use_npu=False, no_cpu=False,
        require_full_delegation=False, dispatch_library_path="", compiler_plugin_path="",
        runtime_path="", num_runs=runs, warmup_runs=10, num_threads=1, result_json="",
        verbose=False,
    )  # fmt: skip

    def measure() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            return float(run_benchmark(wanted)["latency"]["median_ms"])

    return measure


ONNXRUNTIME = {
    "its documentation's loop": onnxruntime_loop,
    "its documentation's loop with I/O binding": onnxruntime_bound_loop,
}
PAIRS = [
    ("onnxruntime", "fp32.onnx", ONNXRUNTIME),
    ("onnxruntime", "int8.onnx", ONNXRUNTIME),
    ("litert", "fp32.tflite", {"its benchmark tool": litert_tool, "a loop": litert_loop}),
    ("litert", "int8.tflite", {"its benchmark tool": litert_tool, "a loop": litert_loop}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--files", type=Path, default=Path("runs/bench-files"))
    parser.add_argument("--only", nargs="*", default=[], help="names of files")
    options = parser.parse_args()
    chosen = [pair for pair in PAIRS if not options.only or pair[1] in options.only]
    files = make_files(options.files, *(name for _, name, _ in chosen))
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    load, found = os.getloadavg()[0], {}
    for runtime, name, others in chosen:
        mine = ours(files[name], runtime)
        theirs = {what: make(files[name]) for what, make in others.items()}
        mine(), [other() for other in theirs.values()]
        rounds = [(mine(), [other() for other in theirs.values()]) for _ in range(options.rounds)]
        for which, what in enumerate(theirs):
            ratios = [one / several[which] for one, several in rounds]
            found[f"{name} against {what}"] = {
                "ratio": median(ratios),
                "ratios": ratios,
                "our_ms": median(one for one, _ in rounds),
                "their_ms": median(several[which] for _, several in rounds),
            }
    write_result(
        __file__,
        {
            "what": "our median over theirs, windows interleaved in one pinned process",
            "load_before": load,
            "load_after": os.getloadavg()[0],
            "found": found,
            "goal": "ratios within 0.97 and 1.03",
        },
    )


if __name__ == "__main__":
    main()
