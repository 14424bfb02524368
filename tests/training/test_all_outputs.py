"""A loss on every output of a network, as a detector's maps have by default."""

import pytest
import torch
from contexts import context
from torch import Tensor, nn

from edgekd.data.samples import Data, Samples
from edgekd.data.tasks.boxes import boxes
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.teachers.module import ModuleTeacher
from edgekd.training.teachers.outputs import Outputs
from edgekd.training.teaching import Teaching
from edgekd.training.terms import spread, terms_of

EVERY = {"name": "regression", "weight": 0.9, "output": "all"}


class Maps(nn.Module):
    """A fine and a coarse map, and the number of the best cell."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(1, 5, 1), nn.Conv2d(1, 5, 2, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.fine(x)
        return {"fine": fine, "coarse": self.coarse(x), "best": fine.flatten(1).argmax(1)}


def none_found(outputs: dict[str, Tensor]) -> list[Tensor]:
    return [torch.zeros(0, 6)] * len(outputs["fine"])


def images() -> Data:
    y = torch.tensor([[[0, 0.5, 0.5, 0.2, 0.2]]]).expand(32, 1, 5).clone()
    samples = Samples(torch.rand(32, 1, 4, 4), y, task=boxes(decode=none_found))
    return Data("maps", samples, samples, samples, 1)


def test_the_loss_stands_for_each_output_of_real_numbers_with_its_weight_divided():
    terms, _ = terms_of([EVERY, {"name": "kl"}], "distill")
    found = spread(terms, Maps(), torch.rand(1, 1, 4, 4))
    assert [(term.name, term.output, term.share) for term in found] == [
        ("regression", "fine", 0.5),
        ("regression", "coarse", 0.5),
        ("kl", None, 1.0),
    ]
    (lone,) = spread(terms[:1], nn.Conv2d(1, 5, 1), torch.rand(1, 1, 4, 4))
    assert (lone.output, lone.share) == (None, 1.0)


def test_a_detector_learns_every_map_from_its_teacher_by_default(tmp_path):
    torch.manual_seed(0)
    big, student, data = Maps(), Maps(), images()
    outputs = Outputs(task=data.task)
    teachers = [ModuleTeacher("big", "k", 1.0, big.eval().requires_grad_(False), outputs)]
    teaching = Teaching(label_weight=0.0, epochs=25, batch_size=8, learning_rate=0.05)
    learning = context(teaching, data=data, teachers=teachers, work=tmp_path)
    assert list(learning.losses) == [EVERY]
    assert check_teaching(student, learning) == []
    x, before = data.train.x, student(data.train.x)
    taught = teach(student, learning)(x)
    for name in ("fine", "coarse"):
        start = float((before[name].detach() - big(x)[name]).square().mean())
        assert float((taught[name].detach() - big(x)[name]).square().mean()) < start / 10


@pytest.mark.parametrize("output", ["fine", "coarse"])
def test_one_of_them_may_be_named(output):
    terms, _ = terms_of([{**EVERY, "output": output}], "distill")
    assert [term.output for term in spread(terms, Maps(), torch.rand(1, 1, 4, 4))] == [output]
