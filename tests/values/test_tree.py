"""Trees of tensors: names, order, and what is done to every leaf at once."""

import pytest
import torch

from edgekd.errors import InputError
from edgekd.values import tree


def sentences() -> dict[str, object]:
    return {
        "ids": torch.arange(12).reshape(3, 4),
        "maps": [torch.zeros(3, 2), torch.ones(3, 1, dtype=torch.bool)],
    }


def test_a_leaf_is_named_by_its_path():
    assert tree.leaf_names(sentences()) == ["ids", "maps.0", "maps.1"]
    assert tree.leaf_names((torch.zeros(1), torch.zeros(1))) == ["0", "1"]
    assert tree.leaf_names(torch.zeros(1), "image") == ["image"]


def test_a_dict_keeps_the_order_it_was_filled_in():
    assert tree.leaf_names({"z": torch.zeros(1), "a": torch.zeros(1)}) == ["z", "a"]


def test_rows_are_taken_from_every_leaf():
    taken = tree.rows(sentences(), torch.tensor([2, 0]))
    assert taken["ids"].tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]
    assert taken["maps"][1].shape == (2, 1)


def test_chunks_joined_are_the_tree_again():
    parts = list(tree.chunks(sentences(), 2))
    assert [tree.count(part) for part in parts] == [2, 1]
    assert torch.equal(tree.concatenated(parts)["ids"], sentences()["ids"])  # type: ignore[arg-type]


def test_only_floating_leaves_become_float32():
    half = tree.as_float({"a": torch.zeros(1).half(), "b": torch.zeros(1, dtype=torch.int64)})
    assert (half["a"].dtype, half["b"].dtype) == (torch.float32, torch.int64)


def test_forms_differ_by_structure_type_and_size():
    mine = sentences()
    assert tree.same_form(mine, tree.rows(mine, slice(0, 1)))
    assert not tree.same_form(mine, {**mine, "ids": torch.zeros(3, 4)})
    assert not tree.same_form(mine, {**mine, "ids": torch.zeros(3, 5, dtype=torch.int64)})
    assert not tree.same_form(mine, {"ids": mine["ids"]})


def test_a_tree_is_described_by_one_sample():
    assert tree.described(torch.zeros(7, 3, 8, 8)) == "(3, 8, 8)"
    assert tree.described(sentences()) == "ids (4,) int64, maps.0 (2,) float32, maps.1 (1,) bool"


def test_an_output_is_chosen_by_name_by_position_or_because_it_is_the_only_one():
    outputs = {"logits": torch.zeros(1), "boxes": torch.ones(1)}
    assert tree.leaf(outputs, None, "x") is outputs["logits"]
    assert tree.leaf(outputs, "boxes", "x") is outputs["boxes"]
    assert tree.leaf(outputs, -1, "x") is outputs["boxes"]
    assert tree.leaf(outputs["boxes"], None, "x") is outputs["boxes"]


def test_an_output_that_is_not_there_is_refused_with_the_names():
    with pytest.raises(InputError, match="there is no output 'mask'") as caught:
        tree.leaf({"a": torch.zeros(1), "b": torch.zeros(1)}, "mask", "distill")
    assert caught.value.allowed == "a, b"


def test_several_outputs_without_a_choice_are_refused_with_the_next_step():
    with pytest.raises(InputError, match="there are 2 outputs") as caught:
        tree.leaf((torch.zeros(1), torch.zeros(1)), None, "distill")
    assert "output = 'NAME'" in caught.value.hint
