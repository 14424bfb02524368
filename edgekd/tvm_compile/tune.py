"""MetaSchedule for the kernels that our own schedules do not cover, within a time limit.

Its imports and searches are slow (facts: 166 s for what the register tile does in none), so only
what is left is searched, and only when the user gives it time.
"""

import math
import tempfile
import time
from collections.abc import Mapping
from typing import Any

TRIALS = 32
"""Candidates between two looks at the clock."""


def tuned(kernels: Mapping[str, Any], target: Any, seconds: float) -> dict[str, Any]:
    """The scheduled kernels by name, those alone for which the search found a schedule.

    `kernels` are not scheduled yet. They share `seconds` evenly; a round of trials that runs when
    its time ends is finished.
    """
    found = {}
    end = time.monotonic() + seconds
    for index, (name, function) in enumerate(kernels.items()):
        share = max(0.0, end - time.monotonic()) / (len(kernels) - index)
        kernel = _searched(function, target, share)
        if kernel is not None:
            found[name] = kernel
    return found


def _searched(function: Any, target: Any, seconds: float) -> Any | None:
    import tvm
    from tvm.s_tir import meta_schedule

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
