"""Sequences that are longer than a network's own are told with their limit."""

import pytest
import torch
from torch import Tensor, nn

import edgekd
from edgekd.errors import InputError
from edgekd.network.longest import length_fault

LONGEST = 7


class Looked(nn.Module):
    """Words with positions from a table, as a BERT has them."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 4), nn.Embedding(LONGEST, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        places = self.places(torch.arange(ids.shape[1]))
        x = (self.words(ids) + places) * mask.unsqueeze(2)
        return self.head(x.sum(1))


class Added(Looked):
    """Positions as a parameter, of which the first are added: another of PyTorch's errors."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = (self.words(ids) + self.places.weight[: ids.shape[1]]) * mask.unsqueeze(2)
        return self.head(x.sum(1))


class Counted(Looked):
    """Positions of the words that the mask has, as a RoBERTa counts them: padding takes none."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        places = self.places((mask.cumsum(1) - 1).clamp(min=0))
        return self.head(((self.words(ids) + places) * mask.unsqueeze(2)).sum(1))


def sentences(length: int, words: int) -> dict[str, Tensor]:
    ids = torch.arange(40 * length).view(40, length) % 20
    return {"ids": ids, "mask": (torch.arange(length) < words).long().expand(40, length)}


def refusal(module: nn.Module, x: dict[str, Tensor]) -> InputError:
    y = torch.arange(40) % 2
    with pytest.raises(InputError) as caught:
        edgekd.plan(
            module, data={"train": (x, y), "test": (x, y)}, target="x86", backends=("onnx",),
            stages=[{"kind": "distill", "epochs": 1, "batch_size": 8}],
        )  # fmt: skip
    return caught.value


@pytest.mark.parametrize("kind", [Looked, Added, Counted])
def test_the_plan_names_a_sample_its_length_and_the_longest(kind) -> None:
    found = refusal(kind(), sentences(12, 12))
    assert found.where == "data 'given': train"
    assert found.message == "sample 0 has 12 ids in 'ids', longer than the network's sequences"
    assert found.allowed == "at most 7"
    assert "length = 7 of the tokenizer" in found.hint


def test_one_full_sequence_among_short_ones_is_found() -> None:
    x = sentences(12, 5)
    mask = x["mask"].clone()
    mask[23] = 1
    found = refusal(Counted(), {"ids": x["ids"], "mask": mask})
    assert "has 12 ids in 'ids', longer than the network's sequences" in found.message


def test_an_id_beyond_the_table_is_not_taken_for_a_length() -> None:
    x = sentences(6, 6)
    x["ids"][0, 4] = 20
    assert length_fault(Looked(), x, range(40), "data") is None
    assert "sample 0 has 20 at position 4 of 'ids'" in refusal(Looked(), x).message


def test_another_failure_is_told_as_it_is() -> None:
    class Broken(Looked):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            raise ValueError("no such head")

    assert "no such head" in refusal(Broken(), sentences(6, 6)).message
