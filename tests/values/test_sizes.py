"""Sizes that compiled files leave open, checked against the samples."""

import pytest
import torch

from edgekd.errors import InputError
from edgekd.values.sizes import OpenSize, bounded, described_sizes
from edgekd.values.tables import parse

EXAMPLE = {"ids": torch.zeros(1, 16, dtype=torch.int64), "mask": torch.zeros(1, 16)}


def size(**keys) -> OpenSize:
    return OpenSize(**{"name": "length", "inputs": {"ids": 1, "mask": 1}, **keys})


def test_the_largest_size_is_that_of_the_samples():
    (found,) = bounded([size()], EXAMPLE, "dynamic")
    assert (found.min, found.max) == (2, 16)
    assert described_sizes([found]) == "batch, length 2 to 16"
    (lower,) = bounded([size(min=4, max=8)], EXAMPLE, "dynamic")
    assert (lower.min, lower.max) == (4, 8)


def test_a_lone_input_is_called_input():
    (found,) = bounded([size(inputs={"input": 2})], torch.zeros(1, 3, 20), "dynamic")
    assert found.max == 20


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"inputs": {"idss": 1}}, "there is no input 'idss' (allowed: ids, mask)"),
        ({"inputs": {"ids": 2}}, "'ids' has no dimension 2 (allowed: 1 to 1)"),
        ({"max": 32}, "the samples have a size of 16, so nothing above it can be checked"),
        ({"min": 16}, "the samples have a size of 16, so nothing above it can be checked"),
    ],
)
def test_what_does_not_fit_the_samples_is_refused(keys, fault):
    with pytest.raises(InputError) as caught:
        bounded([size(**keys)], EXAMPLE, "dynamic")
    assert fault in str(caught.value)
    assert "dynamic.1 (length)" in str(caught.value)


def test_inputs_that_share_a_size_have_the_same():
    example = {**EXAMPLE, "mask": torch.zeros(1, 12)}
    with pytest.raises(InputError, match="the inputs have different sizes: ids 16, mask 12"):
        bounded([size()], example, "dynamic")


def test_bounds_have_an_order():
    with pytest.raises(InputError, match="min must be below max, found 8 and 8"):
        parse(OpenSize, {"name": "length", "inputs": {"ids": 1}, "min": 8, "max": 8}, "dynamic")
