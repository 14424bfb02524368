"""Networks whose files leave the length of a sequence open."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgekd
from edgekd.errors import InputError
from edgekd.network.calling import leave_open, take_one_argument
from edgekd.quant.export import export_graph, exported
from edgekd.quant.open_sizes import open_dimensions
from edgekd.run.compress import run_plan
from edgekd.values.progress import silent
from edgekd.values.sizes import OpenSize

LENGTH = 12


class Sentence(nn.Module):
    """Ids and a mask to classes, with attention over any length."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.table = nn.Embedding(50, width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.table(ids)
        weights = torch.softmax(self.query(x) @ self.key(x).transpose(1, 2) / 4, -1)
        x, there = weights @ x, mask.unsqueeze(2).float()
        return self.head((x * there).sum(1) / there.sum(1))


def sentences(count: int) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(count)
    ids = torch.randint(1, 50, (count, LENGTH), generator=generator)
    mask = torch.arange(LENGTH) < torch.randint(4, LENGTH + 1, (count, 1), generator=generator)
    return {"ids": ids, "mask": mask.long()}, (ids * mask).sum(1) % 3


SIZE = {"name": "length", "inputs": {"ids": 1, "mask": 1}}


def plan(tmp_path: Path, backends: tuple[str, ...] = ("onnx", "tflite"), **size):
    torch.manual_seed(0)
    return edgekd.plan(
        Sentence(),
        data={"train": sentences(64), "test": sentences(40)},
        target="x86",
        backends=backends,
        stages=[{"kind": "quantize", "method": "calibrate"}],
        out=tmp_path / "out",
        settings={"dynamic": [{**SIZE, **size}]},
        quick=True,
    )


def test_a_graph_leaves_open_what_its_network_does():
    torch.manual_seed(0)
    module = Sentence().eval()
    take_one_argument(module)
    leave_open(module, (OpenSize(**SIZE, min=2, max=LENGTH),))
    x, _ = sentences(4)
    graph = export_graph(module, x)
    assert [sorted(sizes) for sizes in open_dimensions(graph, x)] == [[1], [1]]
    again = exported(graph, x).module()
    for length in (2, 7, LENGTH):
        short = {name: leaf[:, :length] for name, leaf in x.items()}
        torch.testing.assert_close(again(short), module(short))
    fixed = exported(graph, x, fixed=True)
    with pytest.raises((RuntimeError, AssertionError)):
        fixed.module()({name: leaf[:, :7] for name, leaf in x.items()})


def test_a_size_beyond_the_samples_is_refused_by_the_plan(tmp_path):
    with pytest.raises(InputError, match="the samples have a size of 12"):
        plan(tmp_path, max=64)


def test_the_plan_says_which_runtimes_fix_a_size(tmp_path):
    lines = plan(tmp_path, backends=("onnx", "tflite", "tvm")).lines()
    assert "x86: onnx: sizes left open: batch, length 2 to 12" in lines
    assert "x86: tflite, tvm: fixed at batch 1, length 12" in lines


@pytest.mark.slow
def test_files_of_an_open_length_are_run_at_other_lengths(tmp_path):
    planned = plan(tmp_path)
    assert "x86: onnx: sizes left open: batch, length 2 to 12" in planned.lines()
    assert "x86: tflite: fixed at batch 1, length 12" in planned.lines()
    report = run_plan(planned, silent)
    by_format = {each.format: each for each in report.targets[0].artifacts}
    onnx, tflite = by_format["onnx"], by_format["tflite"]
    assert list(onnx.parity.sizes) == ["length 2", "length 7"]
    assert all(each.verdict == "pass" for each in onnx.parity.sizes.values())
    assert tflite.parity.sizes == {}
    import onnxruntime

    path = tmp_path / "out" / onnx.path
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [list(each.shape) for each in session.get_inputs()] == [["batch", "length"]] * 2
    ones = np.ones((3, 5), np.int64)
    (found,) = session.run(None, {"ids": ones, "mask": ones})
    assert found.shape == (3, 3)
