"""Some layers of a stack: every other one, as DistilBERT begins."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_model

from edgekd.errors import InputError
from edgekd.models.transformer import transformer
from edgekd.network.layers_kept import keep_layers
from edgekd.network.load import load_network, network_key
from edgekd.values.recipe import Network


def table(path: Path, **changes: object) -> Network:
    arguments = {"size": 8, "width": 16, "depth": 4, "heads": 2}
    made = {"factory": "edgekd.models.transformer:transformer", "arguments": arguments}
    return Network.model_validate({**made, "weights": path, **changes})


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_model(transformer(size=8, width=16, depth=4, heads=2), str(tmp_path / "w.safetensors"))
    return tmp_path / "w.safetensors"


def test_a_student_keeps_every_other_layer_of_the_weights(weights: Path):
    teacher = load_network(table(weights), weights.parent, "model")
    layers = {"blocks": [1, 3]}
    student = load_network(table(weights, layers=layers), weights.parent, "student")
    assert len(student.blocks) == 2
    for mine, theirs in ((0, 1), (1, 3)):
        pairs = zip(
            student.blocks[mine].parameters(), teacher.blocks[theirs].parameters(), strict=True
        )
        assert all(torch.equal(a, b) for a, b in pairs)
    x = torch.rand(2, 1, 8, 8)
    tokens = teacher.embed(x).flatten(2).transpose(1, 2) + teacher.position
    expected = teacher.blocks[3](teacher.blocks[1](tokens))
    assert torch.equal(student(x), teacher.classifier(teacher.norm(expected).mean(1)))


def test_which_layers_are_kept_is_part_of_a_networks_identity(weights: Path):
    tables = [table(weights, layers=given) for given in ({}, {"blocks": [0]}, {"blocks": [1]})]
    assert len({network_key(each, weights.parent) for each in tables}) == 3


@pytest.mark.parametrize(
    ("layers", "message", "allowed"),
    [
        ({"block": [0]}, "no stack of layers 'block'", "blocks"),
        ({"blocks": [0, 4]}, "can't keep 4 of 4 layers", "different numbers from 0 to 3"),
        ({"blocks": []}, r"can't keep \[\] of 4 layers", "different numbers from 0 to 3"),
        ({"blocks": [1, 1]}, r"can't keep \[1, 1\] of 4 layers", "different numbers from 0 to 3"),
    ],
)
def test_a_stack_or_a_layer_that_is_not_there_is_refused(layers, message, allowed):
    network = transformer(size=8, width=16, depth=4, heads=2)
    with pytest.raises(InputError, match=message) as caught:
        keep_layers(network, layers, "student.layers")
    assert allowed in str(caught.value.allowed)
    assert str(caught.value.where).startswith("student.layers.block")


def test_a_black_box_has_no_layers_to_keep():
    with pytest.raises(ValidationError, match="'layers' is for 'source' and 'factory'"):
        Network.model_validate({"onnx": "teacher.onnx", "layers": {"blocks": [0]}})
