from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgekd.errors import EdgekdError, Faults, InputError
from edgekd.models.resnet import resnet8
from edgekd.network.load import load_network, network_key
from edgekd.values.recipe import Network

RESNET = "edgekd.models.resnet:resnet8"
MODULE = """
import math
import torch

class Net(torch.nn.Linear):
    def __init__(self, size=3):
        super().__init__(size, 2)

constant = 3
def number(): return 3
def broken(): return [][0]
def nan():
    net = Net()
    with torch.no_grad():
        net.weight[0, 0] = math.nan
    return net
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "their_networks.py").write_text(MODULE)
    return folder


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return resnet8(channels=1).state_dict()


def refused(folder: Path, **table: object) -> EdgekdError:
    with pytest.raises(InputError) as caught:
        load_network(Network.model_validate(table), folder, "model")
    assert caught.value.exit_code == 2
    return caught.value


def test_a_factory_with_weights_gives_the_same_outputs_in_eval_mode(tmp_path: Path) -> None:
    weights = state()
    save_file(weights, tmp_path / "w.safetensors")
    table = Network(factory=RESNET, arguments={"channels": 1}, weights=Path("w.safetensors"))
    module = load_network(table, tmp_path, "model")
    original = resnet8(channels=1)
    original.load_state_dict(weights)
    x = torch.rand(2, 1, 8, 8)
    assert not module.training
    assert torch.equal(module(x), original.eval()(x))


def test_a_factory_beside_the_recipe_is_found(folder: Path) -> None:
    module = load_network(Network(factory="their_networks:Net"), folder, "model")
    assert module(torch.zeros(1, 3)).shape == (1, 2)


@pytest.mark.parametrize(
    ("factory", "arguments", "message", "hint"),
    [
        ("no_such_module:net", {}, "no module named 'no_such_module'", "modules are looked up"),
        ("their_networks", {}, "'their_networks' is not a callable's name", ""),
        ("their_networks:Nett", {}, "'their_networks' has no 'Nett'", "did you mean 'Net'?"),
        ("their_networks:constant", {}, "is of type int, which can't be called", ""),
        ("their_networks:number", {}, "'their_networks:number' returned int", ""),
        ("their_networks:broken", {}, "failed: IndexError: list index out of range", ""),
        ("their_networks:Net", {"sise": 3}, "can't be called with these arguments", "'size'?"),
        ("their_networks:nan", {}, "NaN or infinity in the weights 'weight'", ""),
        (RESNET, {"widths": [8]}, "1 widths for 3 stages", ""),
    ],
)
def test_what_is_wrong_with_a_factory_is_one_error(
    folder: Path, factory: str, arguments: dict[str, object], message: str, hint: str
) -> None:
    error = refused(folder, factory=factory, arguments=arguments)
    assert message in str(error)
    assert hint in error.hint
    assert error.where.startswith("model")


def test_missing_and_unexpected_weights_are_named(tmp_path: Path) -> None:
    weights = state()
    weights["classifier.weights"] = weights.pop("classifier.weight")
    save_file(weights, tmp_path / "w.safetensors")
    table = {"factory": RESNET, "arguments": {"channels": 1}, "weights": "w.safetensors"}
    error = refused(tmp_path, **table)
    assert isinstance(error, Faults)
    missing, unexpected = error.faults
    assert missing.message == "lacks 'classifier.weight', which the network has"
    assert unexpected.message == "has 'classifier.weights', which the network lacks"
    assert unexpected.hint == "did you mean 'classifier.weight'?"


def test_a_shape_that_differs_is_named_with_the_one_needed(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    table = {"factory": RESNET, "arguments": {"channels": 3}, "weights": "w.safetensors"}
    error = refused(tmp_path, **table)
    assert "'stem.0.weight' has shape (16, 1, 3, 3) (allowed: (16, 3, 3, 3))" in str(error)


def test_nan_in_the_weights_is_refused(tmp_path: Path) -> None:
    weights = state()
    weights["stem.0.bias"][2] = float("inf")
    save_file(weights, tmp_path / "w.safetensors")
    table = {"factory": RESNET, "arguments": {"channels": 1}, "weights": "w.safetensors"}
    assert "NaN or infinity in 'stem.0.bias'" in str(refused(tmp_path, **table))


@pytest.mark.parametrize("size", [0, 4, 100, 5000, -1])
def test_a_truncated_weights_file_is_one_error(tmp_path: Path, size: int) -> None:
    path = tmp_path / "w.safetensors"
    save_file(state(), path)
    path.write_bytes(path.read_bytes()[:size])
    error = refused(tmp_path, factory=RESNET, weights="w.safetensors")
    assert "not a complete safetensors file" in str(error)


def test_a_checkpoint_under_the_wrong_suffix_is_refused_with_the_right_ones(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "w.safetensors")
    error = refused(tmp_path, factory=RESNET, weights="w.safetensors")
    assert "not a complete safetensors file" in str(error)
    assert ".pt, .pth" in error.hint


def test_a_missing_weights_file_is_one_error(tmp_path: Path) -> None:
    error = refused(tmp_path, factory=RESNET, weights="absent.safetensors")
    assert str(error).endswith("absent.safetensors: no such file")


def test_a_black_box_is_no_network_to_train(tmp_path: Path) -> None:
    assert "'onnx' is not a PyTorch network" in str(refused(tmp_path, onnx="m.onnx"))


def test_the_key_follows_arguments_weights_and_source(tmp_path: Path, folder: Path) -> None:
    save_file(state(), tmp_path / "a.safetensors")
    changed = state()
    changed["stem.0.bias"][0] += 1
    save_file(changed, tmp_path / "b.safetensors")
    (tmp_path / "other_networks.py").write_text(MODULE + "\n# a change\n")
    keys = [
        network_key(Network.model_validate({"factory": factory, **table}), where)
        for factory, table, where in (
            (RESNET, {}, tmp_path),
            (RESNET, {"arguments": {"channels": 1}}, tmp_path),
            (RESNET, {"weights": "a.safetensors"}, tmp_path),
            (RESNET, {"weights": "b.safetensors"}, tmp_path),
            ("their_networks:Net", {}, folder),
            ("other_networks:Net", {}, tmp_path),
        )
    ]
    assert len(set(keys)) == len(keys)
    assert network_key(Network(factory=RESNET), tmp_path) == keys[0]


def test_the_key_of_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        network_key(Network(tflite=Path("absent.tflite")), tmp_path)
