"""Networks that take one argument: the tree of inputs, spread as their own forward wants it."""

import copy
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.network.calling import input_fault, take_one_argument, tensors_of

IDS = torch.arange(6).reshape(2, 3)
MASK = torch.ones(2, 3)


class Named(nn.Module):
    """Takes ids and an optional mask by name."""

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        return ids * 2.0 if mask is None else ids * mask


class Whole(nn.Module):
    """Takes one dict."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["ids"] + batch["mask"]


def adapted(module: nn.Module, output: object = None) -> nn.Module:
    take_one_argument(module, output)  # type: ignore[arg-type]
    return module


def test_a_dict_goes_in_as_keyword_arguments_in_any_order():
    assert torch.equal(adapted(Named())({"mask": MASK * 3, "ids": IDS}), IDS * 3.0)


def test_a_tuple_goes_in_as_positional_arguments():
    assert torch.equal(adapted(Named())((IDS, MASK * 3)), IDS * 3.0)


def test_an_optional_input_may_be_missing():
    assert torch.equal(adapted(Named())({"ids": IDS}), IDS * 2.0)
    assert torch.equal(adapted(Named())(IDS), IDS * 2.0)


def test_a_network_that_takes_a_dict_gets_the_dict():
    assert torch.equal(adapted(Whole())({"ids": IDS, "mask": MASK}), IDS + MASK)


def test_a_copy_calls_its_own_weights():
    first = adapted(nn.Linear(3, 1))
    second = copy.deepcopy(first)
    with torch.no_grad():
        second.weight.zero_()
        second.bias.zero_()
    assert torch.equal(second(MASK), torch.zeros(2, 1))
    assert not torch.equal(first(MASK), torch.zeros(2, 1))


def test_a_forward_set_on_the_instance_is_kept():
    module = nn.Linear(3, 1)
    module.forward = lambda x: x + 1  # type: ignore[method-assign, assignment]
    assert torch.equal(adapted(module)(MASK), MASK + 1)


def test_inputs_are_copied_before_the_network_can_change_them():
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2)

    given = torch.ones(2, 3)
    assert torch.equal(adapted(InPlace())(given), torch.full((2, 3), 2.0))
    assert torch.equal(given, torch.ones(2, 3))


def test_an_unknown_input_is_refused_with_the_nearest_name():
    fault = input_fault(adapted(Named()), {"id": IDS}, "model")
    assert isinstance(fault, InputError)
    assert "the samples have an input 'id', which forward() does not take" in str(fault)
    assert fault.allowed == "ids, mask"
    assert "ids" in fault.hint


@dataclass
class Answer:
    logits: Tensor
    loss: Tensor | None = None


Pair = namedtuple("Pair", ["boxes", "scores"])


def test_outputs_become_trees_without_what_is_no_tensor():
    x = torch.ones(2, 3)
    assert tensors_of(Answer(x)) is x
    assert set(tensors_of(Pair(x, x))) == {"boxes", "scores"}
    assert list(tensors_of(OrderedDict(a=x, cache=object(), b=x))) == ["a", "b"]
    assert tensors_of(([x, None], x))[0][0] is x
    assert tensors_of({"loss": torch.tensor(1.0), "logits": x}) is x  # a loss has no batch
    assert tensors_of({"flag": True}) is None


@pytest.mark.parametrize("output", ["scores", 1, -1])
def test_one_of_several_outputs_is_kept(output: object):
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Pair:
            return Pair(x, x + 1)

    assert torch.equal(adapted(Two(), output)(MASK), MASK + 1)
    assert set(adapted(Two(), ("boxes", "scores"))(MASK)) == {"boxes", "scores"}
    with pytest.raises(InputError, match="there is no output 'masks'"):
        adapted(Two(), "masks")(MASK)
