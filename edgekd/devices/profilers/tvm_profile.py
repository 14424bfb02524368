"""The functions that a TVM library's virtual machine calls, timed around each call."""

from __future__ import annotations

import time
from typing import Any

BASE = "tvm"
MODULES = ["tvm"]
INSTALL = "pip install 'apache-tvm==0.26.*' 'apache-tvm-ffi==0.1.13.*'"
OF_THE_MACHINE = ("vm.builtin.", "R.")
"""Calls that allocate and check: they run before a kernel, not in place of one."""


class Runner:
    """A library whose machine reports each call before and after it."""

    clock_ns = 1
    device: Any
    machine: Any
    run: Any

    def operators(self, runs: int) -> list[dict[str, Any]]:
        """The calls in order of execution, `runs` times each."""
        calls: list[tuple[str, int]] = []
        started: list[int] = []

        def instrument(function: Any, symbol: Any, before: Any, value: Any, *rest: Any) -> int:
            if before:
                started.append(time.perf_counter_ns())
            else:
                self.device.sync()
                calls.append((str(symbol), time.perf_counter_ns() - started.pop()))
            return 0

        self.machine.set_instrument(instrument)
        rows: list[list[Any]] = []
        for _ in range(runs):
            calls.clear()
            self.run()
            rows.append([call for call in calls if not call[0].startswith(OF_THE_MACHINE)])
        return [
            {"name": symbol, "op": symbol, "index": -1, "values": [row[place][1] for row in rows]}
            for place, (symbol, _) in enumerate(rows[0])
        ]
