"""TensorRT's layers, from the profiler of an execution context."""

from __future__ import annotations

from typing import Any

BASE = "tensorrt"
MODULES = ["tensorrt"]
INSTALL = "TensorRT comes with JetPack: apt install tensorrt"


class Runner:
    """An engine whose context reports each layer's time."""

    clock_ns = 1
    context: Any
    run: Any

    def operators(self, runs: int) -> list[dict[str, Any]]:
        """The layers in order of execution, `runs` times each."""
        import tensorrt as trt  # type: ignore[import-not-found]

        class Profiler(trt.IProfiler):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)
                self.layers: list[tuple[str, int]] = []

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                self.layers.append((layer_name, int(ms * 1e6)))

        profiler = Profiler()
        self.context.profiler = profiler
        rows: list[list[Any]] = []
        for _ in range(runs):
            profiler.layers = []
            self.run()
            rows.append(profiler.layers)
        return [
            {"name": name, "op": "", "index": -1, "values": [row[place][1] for row in rows]}
            for place, (name, _) in enumerate(rows[0])
        ]
