"""Targets that are several tensors, for tasks of the user's own."""

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from edgekd.data.factory import read_parts
from edgekd.data.target_trees import TargetForm, packed
from edgekd.data.tasks.own import own
from edgekd.errors import InputError


def near(outputs: Tensor, y: dict[str, Tensor]) -> Tensor:
    return (outputs - y["box"]).abs().mean(1).lt(1).double()


def loss(outputs: Tensor, y: dict[str, Tensor]) -> Tensor:
    assert y["class"].dtype == torch.int64
    assert y["class"].shape == (len(outputs),)
    return (outputs - y["box"]).square().mean()


class Objects(Dataset):
    """Inputs (3,) with a class and a box each."""

    def __init__(self, count: int, wrong: int = -1) -> None:
        self.count, self.wrong = count, wrong

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int):
        target = {"class": row % 4, "box": torch.full((4,), row / 2)}
        if row == self.wrong:
            target = {"box": target["box"], "class": row % 4}
        return torch.full((3,), float(row)), target


def test_rows_of_numbers_come_back_as_the_tree():
    sample = {
        "class": torch.tensor(3),
        "box": torch.tensor([0.5, 1.5]),
        "there": torch.tensor(True),
    }
    form = TargetForm.of(sample)
    rows = torch.stack([packed(sample, "y"), packed(sample, "y")])
    assert rows.tolist() == [[3, 0.5, 1.5, 1]] * 2
    back = form.unpacked(rows)
    assert back["class"].tolist() == [3, 3]
    assert back["class"].dtype == torch.int64
    assert back["there"].dtype == torch.bool
    assert back["box"].shape == (2, 2)


@pytest.mark.parametrize("stream", [True, False])
def test_a_data_set_has_any_tree_of_targets(stream):
    from edgekd.data.dataset import How

    task = own(near, loss)
    source = read_parts((Objects(12), Objects(5)), "mine", "data", task, How(stream=stream))
    _, y = source.test.gather(torch.tensor([4, 1]))
    assert source.task.targets(y)["class"].tolist() == [0, 1]
    outputs = source.task.targets(y)["box"] + 0.5
    assert float(source.task.label_loss(outputs, y)) == 0.25
    assert source.task.judged(outputs, y).tolist() == [1, 1]
    assert source.train.task == source.test.task
    assert source.task.output_fault(outputs, y, 0, "model") is None


def test_arrays_of_targets_may_be_a_dict():
    y = {"class": torch.arange(6), "box": torch.rand(6, 4)}
    part = (torch.rand(6, 3), y)
    source = read_parts((part, part), "mine", "data", own(near, loss))
    assert torch.equal(source.task.targets(source.train.y)["class"], y["class"])
    assert torch.equal(source.task.targets(source.train.y)["box"], y["box"])


def test_a_sample_with_other_targets_is_named():
    with pytest.raises(InputError) as caught:
        read_parts((Objects(12, wrong=7), Objects(5)), "mine", "data", own(near, loss))
    assert "sample 7 has targets box (4,) float32, class () int64" in str(caught.value)
    assert "targets class () int64, box (4,) float32, as sample 0 has" in str(caught.value)


def test_a_task_that_reads_one_target_says_so():
    with pytest.raises(InputError, match="a sample has several targets: class, box"):
        read_parts((Objects(12), Objects(5)), "mine", "data")


def test_whole_numbers_beyond_float32_are_refused():
    with pytest.raises(InputError, match="id has the value 16777217"):
        packed({"id": torch.tensor(2**24 + 1)}, "y")
