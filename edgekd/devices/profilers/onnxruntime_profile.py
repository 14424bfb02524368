"""ONNX Runtime's operators, from the profile that a session writes."""
# ruff: noqa: PTH118, PTH123

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

BASE = "onnxruntime"
MODULES = ["onnxruntime"]
INSTALL = "pip install onnxruntime"

SUFFIX = "_kernel_time"


class Runner:
    """An ONNX file in a session that records its operators."""

    clock_ns = 1000
    session: Any
    run: Any

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="edgekd-profile-")
        prefix = os.path.join(self.folder.name, "onnxruntime")
        super().__init__(path, dict(options, profile=prefix))  # type: ignore[call-arg]

    def operators(self, runs: int) -> list[dict[str, Any]]:
        """The operators in order of execution, `runs` times each."""
        for _ in range(runs):
            self.run()
        with open(self.session.end_profiling(), encoding="utf-8") as stream:
            events = json.load(stream)
        self.folder.cleanup()
        found: dict[tuple[str, str], tuple[str, list[int]]] = {}
        for event in events:
            name = event.get("name", "")
            if event.get("cat") == "Node" and name.endswith(SUFFIX):
                key = (name[: -len(SUFFIX)], event["args"].get("node_index", ""))
                found.setdefault(key, (event["args"].get("op_name", ""), []))[1].append(
                    1000 * int(event["dur"])
                )
        return [
            {"name": name, "op": op, "index": -1, "values": times[-runs:]}
            for (name, _), (op, times) in found.items()
        ]
