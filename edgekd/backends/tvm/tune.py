"""Runs MetaSchedule on the kernels that edgekd's schedules do not cover, within a time limit.

Its imports and searches are slow (facts: 166 s for what the register tile does in none), so only
what is left is searched, and only when the user gives it time.
"""

import math
import sys
import tempfile
import time
import types
from collections.abc import Mapping
from typing import Any

TRIALS = 16
"""Candidates between two checks of the time."""

BUILD_SECONDS = 120.0
INTRINSICS = "tvm.s_tir.tensor_intrin"


def tuned(kernels: Mapping[str, Any], target: Any, seconds: float) -> dict[str, Any]:
    """The scheduled kernels by name; only those for which the search found a schedule.

    `kernels` are not scheduled yet. They share `seconds` evenly; a round of trials that runs when
    its time ends is finished.
    """
    schedules = {}
    end = time.monotonic() + seconds
    for index, (name, function) in enumerate(kernels.items()):
        share = max(0.0, end - time.monotonic()) / (len(kernels) - index)
        kernel = _searched(function, target, share)
        if kernel is not None:
            schedules[name] = kernel
    return schedules


def without_intrinsics() -> None:
    """Put an empty module where TVM's tensor intrinsics are, in this process or a builder's.

    Every builder imports them, which takes longer than a build; our kernels are float, and no
    schedule rule for these uses one.
    """
    sys.modules.setdefault(INTRINSICS, types.ModuleType(INTRINSICS))


def _searched(function: Any, target: Any, seconds: float) -> Any | None:
    import tvm
    from tvm.s_tir import meta_schedule
    from tvm.s_tir.meta_schedule.builder import LocalBuilder

    without_intrinsics()
    builder = LocalBuilder(max_workers=1, timeout_sec=BUILD_SECONDS, initializer=without_intrinsics)
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    database = meta_schedule.database.MemoryDatabase()
    end = time.monotonic() + seconds
    best = math.inf
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory(prefix="edgekd-tvm-") as folder:
            meta_schedule.tune_tir(
                module,
                target,
                folder,
                max_trials_global=TRIALS,
                num_trials_per_iter=TRIALS,
                builder=builder,
                database=database,
                cost_model="random",
                num_tuning_cores=1,
                seed=1,
            )
        records = [float(record.run_secs[0]) for record in database.get_all_tuning_records()
                   if record.run_secs]  # fmt: skip
        if not records or min(records) > 0.98 * best:
            break
        best = min(records)
    schedule = database.query_schedule(module, target, workload_name="main")
    return None if schedule is None else schedule.mod["main"].without_attr("global_symbol")
