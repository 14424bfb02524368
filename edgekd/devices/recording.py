"""Numbers in a device's own files (power rails, counters), recorded while something runs there."""

from collections.abc import Callable, Sequence
from typing import Any

from edgekd.devices.replies import Clock, Recorded, checked


class AgentRecording:
    """A recording made on a device by a separate agent."""

    def __init__(self, ask: Callable[[dict[str, Any]], Any], name: str) -> None:
        self._ask = ask
        self._name = name
        self.points: list[tuple[float, tuple[int | None, ...]]] = []

    def begin(self, files: Sequence[str], period_s: float) -> None:
        """Start recording."""
        request = {"command": "record", "files": list(files), "period_s": period_s}
        checked(Clock, self._ask(request), self._name)

    def now(self) -> float:
        return checked(Clock, self._ask({"command": "clock"}), self._name).now_ns / 1e9

    def end(self) -> None:
        """Stop recording and fetch the numbers."""
        reply = checked(Recorded, self._ask({"command": "recorded"}), self._name)
        self.points = [(moment / 1e9, row) for moment, row in reply.points]
