"""Whether a failed parity names the device that computes something else."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgekd.errors import InputError
from edgekd.measure import failures as module
from edgekd.measure.failures import attribute_failure
from edgekd.measure.parity import compare
from edgekd.values.artifact import Artifact, TensorInfo

REFERENCE = np.array([[1.0, 2.0], [3.0, 4.0]])
INFO = TensorInfo(name="x", shape=(-1, 1), dtype="float32")
FILE = Artifact(
    path=Path("model.onnx"), format="onnx", runtime="onnxruntime", precision="int8", target="x86",
    sha256="0", bytes=1, inputs=(INFO,), outputs=(),
)  # fmt: skip
BOARD = SimpleNamespace(
    name="ssh://board", hello=lambda: SimpleNamespace(runtimes={"onnxruntime": "onnxruntime 1.9"})
)


class Host:
    """This machine, which gives those outputs for the second sample."""

    def __init__(self, outputs: Any, reason: str = "") -> None:
        self._outputs, self._reason = outputs, reason

    def can_run(self, artifact: Artifact) -> str:
        return self._reason

    def infer(self, artifact: Artifact, inputs: Any, options: dict[str, Any]) -> Any:
        assert [x.tolist() for x in inputs] == [[[1.0]]]
        if self._outputs is None:
            raise InputError("no such provider")
        return (np.array([self._outputs]),)

    def close(self) -> None:
        self._outputs = None


def judged(
    host: Host, monkeypatch: pytest.MonkeyPatch, found: float = 5.0, scale: float | None = 0.1,
    device: Any = BOARD,
) -> str:  # fmt: skip
    """The board gave `found` instead of 4 for the second sample's second output."""
    monkeypatch.setattr(module, "open_device", lambda url: host)
    outputs = np.array([[1.0, 2.0], [3.0, found]])
    tolerance = None if scale else 0.01
    parity = compare(REFERENCE, outputs, scale, tolerance)
    x = np.array([[0.0], [1.0]])
    worst = x[parity.worst_sample :][:1]
    return attribute_failure(device, FILE, {}, [worst], parity).first_difference


def test_a_board_that_is_alone_with_its_numbers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    told = judged(Host([3.0, 4.1]), monkeypatch)
    assert told == (
        "only on ssh://board: its onnxruntime 1.9 gives 5 where the reference has 4; "
        "the same file gives 4.1 on this machine"
    )


def test_a_board_without_a_finite_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "gives a value that is not finite where" in judged(Host([3.0, 4.0]), monkeypatch, np.nan)


def test_a_float_file_is_judged_by_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged(Host([3.0, 4.05]), monkeypatch, scale=None).startswith("only on ssh://board")
    assert judged(Host([3.0, 4.5]), monkeypatch, scale=None) == ""


@pytest.mark.parametrize(
    ("host", "found", "device"),
    [
        (Host([3.0, 5.0]), 5.0, BOARD),  # the file itself is wrong, here too
        (Host([3.0, 4.3]), 5.0, BOARD),  # three steps off, and two are allowed
        (Host([3.0, 4.0]), 4.0, BOARD),  # parity holds
        (Host([3.0, 4.0], "it is built for aarch64"), 5.0, BOARD),
        (Host(None), 5.0, BOARD),
        (Host([3.0, 4.0]), 5.0, SimpleNamespace(name="host")),
    ],
)
def test_nobody_is_blamed_without_evidence(
    monkeypatch: pytest.MonkeyPatch, host: Host, found: float, device: Any
) -> None:
    assert judged(host, monkeypatch, found, device=device) == ""
