"""What every row shares: the samples, the small teacher, the student, and the budget.

A hundred labelled images of each class, seen forty times: few enough that the student overfits
without a teacher, which is where methods differ. With six times as many images, seen ten times, all
of them were within a point of the labels alone.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from edgekd.data import load_data
from edgekd.data.samples import Data
from edgekd.models.resnet import resnet8, resnet14
from edgekd.stages import Context
from edgekd.stages.distill import Distill
from edgekd.training.distillation import teach
from edgekd.training.teachers.module import ModuleTeacher
from edgekd.training.teachers.outputs import Outputs
from edgekd.training.teaching import Teaching
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import DataTable
from edgekd.values.target import load_target

HERE = Path(__file__).parent
BIG = HERE.parent / "fashion_mnist" / "teacher.safetensors"
TRAINED_ON, TAUGHT_ON, VALIDATED_ON = 20_000, 1000, 500
BUDGET: dict[str, Any] = {
    "epochs": 40,
    "batch_size": 64,
    "learning_rate": 5e-3,
    "weight_decay": 1e-3,
    "label_weight": 0.1,
    "keep": "last",
}


def samples(count: int) -> Data:
    """Fashion-MNIST with the first `count` of the shuffled training samples, unchanged images."""
    data = load_data(DataTable(source="fashion-mnist", validation=0.05), HERE)
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    validation = data.validation.take(torch.arange(VALIDATED_ON))
    return replace(data, train=data.train.take(order[:count]), validation=validation)


def big_teacher() -> ModuleTeacher:
    """The teacher of a million parameters that benchmarks/fashion_mnist trains."""
    network = resnet14(channels=1).eval().requires_grad_(False)
    network.load_state_dict(load_file(BIG))
    return ModuleTeacher("resnet14", "big", 1.0, network, Outputs())


def small_teacher(work: Path) -> ModuleTeacher:
    """A network of 78 thousand parameters that has learned from the big one, made once: its
    features are cheap enough to be read in every step of every row."""
    torch.manual_seed(0)
    network = resnet8(channels=1, stem_stride=2)
    path = work / "small_teacher.safetensors"
    if not path.exists():
        plan = Teaching(epochs=8, batch_size=64, learning_rate=5e-3)
        data, teachers = samples(TRAINED_ON), [big_teacher()]
        context = Context(load_target("x86"), data, teachers, work / "small_teacher", plan)
        teach(network, context)
        save_file(network.state_dict(), path)
    network.load_state_dict(load_file(path))
    frozen = network.eval().requires_grad_(False)
    return ModuleTeacher("resnet8", "small", 1.0, frozen, Outputs())


def student(seed: int) -> nn.Module:
    """Twenty thousand parameters, begun from the seed."""
    torch.manual_seed(seed)
    return resnet8(channels=1, widths=(8, 16, 32), stem_stride=2)


def distilled(row: dict[str, Any], context: Context, **changes: Any) -> nn.Module:
    """One row's student after the stage, as a recipe would train it."""
    stage = Distill(**{**BUDGET, **row, **changes})
    start = student(context.seed)
    return stage.run(Candidate(start, context.data.example), context).module


def context_of(data: Data, teacher: ModuleTeacher, work: Path, seed: int, **keys: Any) -> Context:
    """What a stage is given, with logits shared among the rows."""
    given = {"cache": work / "logits", "seed": seed, **keys}
    return Context(load_target("x86"), data, [teacher], work / "stage", **given)
