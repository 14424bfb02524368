"""Per-operator times of a runtime: one file for each, which the agent loads as a runner.

Each file has a class `Runner`, mixed into the agent's class of the runtime that `BASE` names, with
one method more: `operators(runs)` runs that many inferences and returns the operators in order of
execution, each as {"name", "op", "index", "values"}: its number in the file or -1, and one time for
each inference. `clock_ns` is the resolution of the runtime's clock. Like the agent, these files run
on a board and import nothing from edgekd.
"""

from pathlib import Path

PROFILERS = {
    "onnxruntime": "onnxruntime_profile.py",
    "litert": "litert_profile.py",
    "tvm": "tvm_profile.py",
    "tensorrt": "tensorrt_profile.py",
}
"""The file that profiles each runtime."""


def profiler_of(runtime: str) -> Path | None:
    """The runner that tells a runtime's times by operator, if there is one."""
    name = PROFILERS.get(runtime)
    return Path(__file__).parent / name if name else None
