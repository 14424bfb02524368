"""What integers a network can look up is found by running it once."""

import pytest
import torch
from torch import Tensor, nn

from edgekd.network.index_limits import NO_LIMIT, index_limits


class Tables(nn.Module):
    """A table for words, one for both kinds of segments, and places that are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 4)
        self.kinds = nn.Embedding(2, 4)
        self.places = nn.Embedding(8, 4)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        mask = inputs["mask"]
        places = (mask.cumsum(1) - 1).clamp(min=0)
        words = self.words(inputs["ids"]) + self.kinds(inputs["kinds"]) + self.places(places)
        return (words * mask.unsqueeze(2)).mean(1)


def test_each_input_that_is_looked_up_has_the_limits_of_its_table():
    ids = torch.tensor([[3, 4, 5]])
    example = {"ids": ids, "kinds": ids % 2, "mask": torch.ones_like(ids)}
    found = index_limits(Tables(), example)
    assert set(found) == {"ids", "kinds"}
    assert found["ids"].low.tolist() == [0, 0, 0]
    assert found["ids"].high.tolist() == [29, 29, 29]
    assert found["kinds"].high.tolist() == [1, 1, 1]


class OneTable(nn.Module):
    """Columns that share one table, each from its own row on; the last is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(15, 4, mode="sum")
        self.register_buffer("starts", torch.tensor([0, 4, 10]))

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x[:, :3] + self.starts) * x[:, 3:]


def test_each_place_has_limits_of_its_own():
    found = index_limits(OneTable(), torch.zeros(1, 4, dtype=torch.int64))
    assert found[""].high.tolist() == [14, 10, 4, NO_LIMIT]
    assert found[""].low.tolist() == [0, -4, -10, -NO_LIMIT]


class Lengths(nn.Embedding):
    """Words and how many of them count, from which a mask is made."""

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        length = inputs["lengths"]
        mask = torch.arange(int(length.max())) < length.unsqueeze(1)
        words = super().forward(inputs["ids"])
        return words[:, : mask.shape[1]] * mask.unsqueeze(2)


class Repeats(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(x)


def test_an_integer_that_says_how_large_something_is_costs_no_memory():
    assert index_limits(Repeats(), torch.tensor([1, 2, 3])) == {}
    x = {"ids": torch.tensor([[1, 2, 3]]), "lengths": torch.tensor([2])}
    found = index_limits(Lengths(9, 3), x)
    assert set(found) == {"ids"}
    assert found["ids"].high.tolist() == [8, 8, 8]


class Counted(nn.Module):
    """Python's indices, of which negative ones count from the end."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.table[x]


def test_negative_indices_are_allowed_where_they_count_from_the_end():
    found = index_limits(Counted(), torch.zeros(1, 2, dtype=torch.int64))
    assert (found[""].low.tolist(), found[""].high.tolist()) == ([-6, -6], [5, 5])


class Clamped(nn.Embedding):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp(0, self.num_embeddings - 1))


class Hashed(nn.Embedding):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x * 7919) % self.num_embeddings)


class Repeated(nn.Embedding):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x // 2)


@pytest.mark.parametrize("network", [Clamped, Hashed, Repeated, nn.Flatten])
def test_integers_that_are_changed_before_they_are_looked_up_have_no_limits(network):
    module = network(9, 3) if issubclass(network, nn.Embedding) else network()
    assert index_limits(module, torch.tensor([[1, 2, 3]])) == {}


def test_a_network_of_numbers_has_no_limits():
    assert index_limits(nn.Linear(3, 2), torch.randn(1, 3)) == {}
