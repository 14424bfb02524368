import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.models.resnet import resnet8
from edgekd.network.storage import load_module, save_module


def same_outputs(first: nn.Module, second: nn.Module, example: Tensor) -> bool:
    """Whether two modules give the same numbers for one input, to the bit."""
    with torch.no_grad():
        return torch.equal(first(example), second(example))


def test_a_network_comes_back_with_the_channels_it_was_left_with(tmp_path):
    module = resnet8(channels=1, widths=(8, 16, 24)).eval()
    save_module(module, tmp_path)
    restored = load_module(resnet8(channels=1), tmp_path)
    assert same_outputs(module, restored, torch.rand(2, 1, 8, 8))
    assert restored.classifier.in_features == 24


def test_a_layer_that_was_split_in_two_comes_back_split(tmp_path):
    module = resnet8(channels=1).eval()
    module.classifier = nn.Sequential(nn.Linear(64, 4, bias=False), nn.Linear(4, 10))
    module.stages[0][0].conv1 = nn.Sequential(
        nn.Conv2d(16, 3, (3, 1), padding=(1, 0), bias=False),
        nn.Conv2d(3, 16, (1, 3), padding=(0, 1)),
    )
    save_module(module, tmp_path)
    restored = load_module(resnet8(channels=1), tmp_path)
    assert same_outputs(module, restored, torch.rand(2, 1, 8, 8))
    assert [name for name, _ in restored.named_parameters()] == [
        name for name, _ in module.named_parameters()
    ]


def test_a_restored_network_trains(tmp_path):
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3))
    save_module(module, tmp_path)
    restored = load_module(nn.Sequential(), tmp_path).train()
    restored(torch.rand(4, 1, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in restored.parameters())


def test_a_block_that_was_removed_stays_removed(tmp_path):
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    save_module(module, tmp_path)
    restored = load_module(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), tmp_path)
    assert len(restored) == 2


def test_a_class_from_elsewhere_is_refused(tmp_path):
    save_module(nn.Sequential(nn.ReLU()), tmp_path)
    structure = tmp_path / "structure.json"
    structure.write_text(
        structure.read_text().replace("torch.nn.modules.activation.ReLU", "os.Evil")
    )
    with pytest.raises(InputError, match=r"names the class os\.Evil"):
        load_module(nn.Sequential(), tmp_path)


@pytest.mark.parametrize("name", ["structure.json", "weights.safetensors"])
def test_a_truncated_file_is_one_clear_error(tmp_path, name):
    save_module(nn.Linear(2, 2), tmp_path)
    damaged = tmp_path / name
    damaged.write_bytes(damaged.read_bytes()[:20])
    with pytest.raises(InputError, match="a stored stage is damaged"):
        load_module(nn.Linear(2, 2), tmp_path)
