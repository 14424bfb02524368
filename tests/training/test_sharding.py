"""Networks that are divided over two processes train as one, in less memory for each."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contexts import context
from torch import Tensor, nn

import edgekd
from edgekd.data.samples import Augmentation, Data, Samples
from edgekd.errors import InputError
from edgekd.training.checkpoint import read_tensors
from edgekd.training.context import Epoch
from edgekd.training.distillation import teach
from edgekd.training.sharding import Sharding, blocks_of, held_bytes
from edgekd.training.sharding_faults import sharding_cost, sharding_faults
from edgekd.training.teachers.black_box import BlackBox
from edgekd.training.teachers.module import ModuleTeacher
from edgekd.training.teachers.outputs import Outputs
from edgekd.training.teaching import Teaching


class Stack(nn.Module):
    """Blocks of equal size between a stem and a head."""

    def __init__(self, width: int = 32, depth: int = 6) -> None:
        super().__init__()
        self.stem = nn.Linear(16, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU())
            for _ in range(depth)
        )
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def data() -> Data:
    random = torch.Generator().manual_seed(1)
    x = torch.rand(100, 1, 4, 4, generator=random)
    y = (x.flatten(1)[:, :3] * torch.tensor([1.0, 1.1, 1.2])).argmax(1)
    parts = [Samples(x[part], y[part]) for part in (slice(0, 68), slice(68, 84), slice(84, 100))]
    return Data("squares", *parts, classes=3, augmentation=Augmentation())


def student() -> nn.Module:
    torch.manual_seed(0)
    return Stack()


def teacher(width: int = 48) -> ModuleTeacher:
    torch.manual_seed(5)
    network = Stack(width).eval().requires_grad_(False)
    return ModuleTeacher("big", "key", 1.0, network, Outputs())


def train(
    work: Path,
    shard: str | None,
    epochs: int = 4,
    stop_after: int = 0,
    failing_rank: str = "",
    **more: object,
) -> dict[str, object]:
    """The losses of each epoch, the weights at the end, and what was held."""
    keys = {"learning_rate": 0.01, "batch_size": 16, "clip_gradient": 0.5, **more}
    losses = ({"name": "kl"}, {"name": "hint", "student": "blocks.1", "teacher": "blocks.2"})
    teaching = Teaching(epochs=epochs, shard=shard, losses=losses, label_weight=0.5, **keys)

    def stop(epoch: Epoch) -> None:
        assert epoch.done != stop_after

    there = context(teaching, data=data(), work=work, seed=3, teachers=[teacher()], on_epoch=stop)

    def fail(done: int, total: int) -> None:
        assert done != 3 or os.environ.get("RANK") != failing_rank, "one process fails"

    there = replace(there, on_step=fail)
    history: list[float] = []
    sharding = Sharding() if shard else None
    module, big = student(), there.teachers[0].module
    hooks = sum(
        len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()
    )
    module = teach(module, there, sharding=sharding)
    for file in sorted(work.glob("epoch*.safetensors")):
        found = read_tensors(file)
        assert found is not None
        history = [entry["loss"] for entry in found[1]["history"]]
    assert type(module) is Stack
    assert type(copy.deepcopy(big)) is Stack
    assert vars(module).keys() == vars(student()).keys()
    assert all(type(value) is nn.Parameter for value in [*module.parameters(), *big.parameters()])
    assert hooks_on(module) == hooks
    weights = {name: value.tolist() for name, value in module.state_dict().items()}
    held = (sharding.peak_bytes, sharding.whole_bytes, sharding.note) if sharding else None
    return {"losses": history, "weights": weights, "held": held}


def hooks_on(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


SCRIPT = """
import json, os, sys
from pathlib import Path
sys.path[:0] = {folders}
import torch
from test_sharding import train

torch.set_num_threads(1)
work, shard, more = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
result = train(work, None if shard == "none" else shard, **more)
rank = os.environ["RANK"]
(work / f"result{{rank}}.json").write_text(json.dumps(result))
"""


def under_torchrun(tmp_path: Path, name: str, shard: str, **more: object) -> list[dict]:
    work, here = tmp_path / name, Path(__file__).parent
    work.mkdir(exist_ok=True)
    folders = [str(here), str(here.parent / "support"), str(here.parent.parent)]
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(folders=folders))
    arguments = ["--standalone", "--nproc-per-node=2", script, work, shard, json.dumps(more)]
    command = [sys.executable, "-m", "torch.distributed.run", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads((work / f"result{rank}.json").read_text()) for rank in range(2)]


def far(one: dict, other: dict) -> float:
    return max(
        float((torch.tensor(one[name]) - torch.tensor(other[name])).abs().max()) for name in one
    )


@pytest.mark.slow
def test_divided_networks_train_as_whole_ones_in_less_memory(tmp_path):
    whole = under_torchrun(tmp_path, "whole", "none")
    divided = under_torchrun(tmp_path, "divided", "all")
    assert len(whole[0]["losses"]) == 4
    assert divided[0]["losses"] == pytest.approx(whole[0]["losses"], rel=1e-5)
    assert far(divided[0]["weights"], whole[0]["weights"]) < 1e-3
    assert divided[0]["weights"] == divided[1]["weights"]
    for rank in divided:
        peak, total, note = rank["held"]
        assert total["student"] == held_bytes(student())
        assert total["big"] == held_bytes(teacher().network)
        for name in ("student", "big"):  # a half, a block and what stands outside of blocks
            assert 0.5 < peak[name] / total[name] < 0.8
        assert note.startswith("parameters in each of 2 processes: big at most ")


@pytest.mark.slow
def test_two_divided_processes_have_the_loss_curve_of_one(tmp_path):
    alone = train(tmp_path, None, batch_size=17)
    divided = under_torchrun(tmp_path, "divided", "all", batch_size=17)
    assert len(divided[0]["losses"]) == 4
    assert divided[0]["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert far(divided[0]["weights"], alone["weights"]) < 1e-3


@pytest.mark.slow
def test_a_divided_training_resumes_from_its_shares(tmp_path):
    unbroken = under_torchrun(tmp_path, "unbroken", "all")
    with pytest.raises(AssertionError):
        under_torchrun(tmp_path, "broken", "all", stop_after=2)
    files = sorted(file.name for file in (tmp_path / "broken").glob("epoch-*"))
    assert files == ["epoch-2-1-of-2.safetensors", "epoch-2-2-of-2.safetensors"]
    resumed = under_torchrun(tmp_path, "broken", "all")
    assert resumed[0]["weights"] == unbroken[0]["weights"]
    assert resumed[0]["losses"] == unbroken[0]["losses"]


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others(tmp_path):
    with pytest.raises(AssertionError, match="one process fails"):
        under_torchrun(tmp_path, "failing", "all", failing_rank="1")


class Shared(nn.Module):
    """A block that is called twice, one of which only the weight is read, and a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.twice = nn.ModuleList([nn.Linear(4, 4)])
        self.read = nn.ModuleList([nn.Linear(4, 4)])
        self.tied = nn.ModuleList([nn.Linear(4, 5)])
        self.tied[0].weight = self.table.weight
        self.once = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice[0](self.twice[0](self.table(x)))
        x = self.tied[0](x @ self.read[0].weight)
        for layer in self.once:
            x = layer(x)
        return x


def test_blocks_are_what_a_network_calls_once_and_shares_with_nothing():
    module = Shared()
    assert blocks_of(module, torch.zeros(1, 3, dtype=torch.int64)) == [*module.once]
    whole = student()
    assert blocks_of(whole, data().example) == [*whole.blocks]
    chain = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2))
    assert blocks_of(chain, torch.zeros(1, 4)) == [chain[1], chain[0][0]]


def faults(network: nn.Module, shard: str = "student", **fields: object) -> list[str]:
    losses = fields.pop("losses", ({"name": "kl"},))
    teaching = Teaching(epochs=1, shard=shard, losses=losses)
    there = context(teaching, data=data(), **{"teachers": [teacher()], **fields})
    return [str(each) for each in sharding_faults(network, there)]


def test_what_can_not_be_divided_is_refused_by_name():
    assert faults(student(), "all") == []
    flat = nn.Sequential()
    flat.linear = nn.Linear(16, 3)
    flat.forward = lambda x: flat.linear(x.flatten(1)) + 0
    plain = nn.Module()
    plain.linear, plain.forward = flat.linear, flat.forward
    (fault,) = faults(plain)
    assert "the student has no blocks to divide" in fault
    assert "nn.ModuleList or nn.Sequential" in fault
    traced = torch.export.export(student().eval(), (data().example,)).module()
    assert "the student has no blocks to divide" in faults(traced)[0]
    box = BlackBox("remote", "key", 1.0, lambda x: x, Outputs())
    assert "the teacher remote is a black box" in faults(student(), "all", teachers=[box])[0]
    assert faults(student(), "student", teachers=[box]) == []


def test_other_stages_and_schemes_are_refused_by_the_plan():
    x, y = data().train.x, data().train.y
    for stage, words in (
        ({"kind": "quantize", "method": "qat"}, "the stage 'quantize' can't divide"),
        ({"kind": "prune", "amount": 0.3}, "the stage 'prune' can't divide"),
        ({"kind": "distill", "scheme": "mutual"}, "the scheme 'mutual' can't divide"),
    ):
        with pytest.raises(InputError) as caught:
            edgekd.plan(
                student(), data={"train": (x, y), "test": (x, y)}, target="x86",
                backends=("onnx",), stages=[{**stage, "epochs": 1, "shard": "student"}],
            )  # fmt: skip
        assert words in str(caught.value)


def test_the_plan_says_how_many_processes_share(monkeypatch):
    there = context(Teaching(shard="all"), data=data())
    assert sharding_cost(there) == (
        "; student and teachers whole in this one process: torchrun --nproc-per-node=2 divides them"
    )
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert sharding_cost(there) == "; student and teachers divided over 4 processes"
