"""A network's key follows its weights, its structure and the user's code, and nothing else."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekd.network.identity import module_key, source_files
from edgekd.network.load import load_network, network_key
from edgekd.values.recipe import Network

MODEL = """
from {package}layers_of_{name} import make
def net():
    return make()
"""
LAYERS = """
from torch import nn
from other_of_{name} import WIDTH
def make():
    return nn.Linear(WIDTH, 2)
"""


@pytest.fixture
def fresh_modules():
    """Forgets what a test imported: names of one test must not be seen by the next."""
    before = set(sys.modules)
    yield
    for name in {name for name in set(sys.modules) - before if "_of_" in name or "zoo" in name}:
        del sys.modules[name]


def write_project(folder: Path, name: str) -> Path:
    (folder / f"model_of_{name}.py").write_text(MODEL.format(package="", name=name))
    (folder / f"layers_of_{name}.py").write_text(LAYERS.format(name=name))
    (folder / f"other_of_{name}.py").write_text("WIDTH = 3\n")
    return folder


def test_every_module_that_a_factory_imports_is_a_source(tmp_path, fresh_modules):
    folder = write_project(tmp_path, "a")
    found = source_files(["model_of_a"], folder)
    assert list(found) == ["layers_of_a", "model_of_a", "other_of_a"]
    assert all(path.parent == folder for path in found.values())


@pytest.mark.parametrize("edited", ["model_of_b", "layers_of_b", "other_of_b"])
def test_an_edit_of_an_imported_module_changes_the_key(edited, tmp_path, fresh_modules):
    folder = write_project(tmp_path, "b")
    network = Network(factory="model_of_b:net")
    before = network_key(network, folder)
    assert network_key(network, folder) == before
    path = folder / f"{edited}.py"
    path.write_text(path.read_text() + "# another remark\n")
    assert network_key(network, folder) != before


def test_modules_of_a_package_are_followed_with_relative_imports_too(tmp_path, fresh_modules):
    package = tmp_path / "zoo_c" / "nets"
    package.mkdir(parents=True)
    (tmp_path / "zoo_c" / "__init__.py").write_text("")
    (tmp_path / "zoo_c" / "common.py").write_text("RATE = 1\n")
    (package / "__init__.py").write_text("from .tiny import net\n")
    (package / "tiny.py").write_text("from ..common import RATE\nfrom . import sizes\n")
    (package / "sizes.py").write_text("")
    found = source_files(["zoo_c.nets"], tmp_path)
    assert set(found) == {
        "zoo_c", "zoo_c.common", "zoo_c.nets", "zoo_c.nets.sizes", "zoo_c.nets.tiny"
    }  # fmt: skip


def test_installed_packages_and_edgekd_itself_are_no_sources(tmp_path, fresh_modules):
    (tmp_path / "model_of_d.py").write_text(
        "import json, torch\nfrom edgekd.models.resnet import resnet8\n"
    )
    assert list(source_files(["model_of_d"], tmp_path)) == ["model_of_d"]


def test_a_file_that_does_not_parse_and_a_missing_module_are_passed_over(tmp_path, fresh_modules):
    (tmp_path / "model_of_e.py").write_text("import no_such_module_e\ndef broken(:\n")
    assert list(source_files(["model_of_e", "no_such_module_e"], tmp_path)) == ["model_of_e"]


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3, stride=1), nn.BatchNorm2d(2), nn.Dropout(0.5))


def test_the_same_module_has_the_same_key():
    assert module_key(two_layers()) == module_key(two_layers())
    assert module_key(two_layers().eval()) == module_key(two_layers().train())


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m[0].weight.data.add_(1e-6),
        lambda m: m[1].running_mean.add_(1e-6),
        lambda m: setattr(m[0], "stride", (2, 2)),
        lambda m: setattr(m[2], "p", 0.25),
        lambda m: m.append(nn.ReLU()),
    ],
    ids=["weight", "buffer", "stride", "rate", "layer"],
)
def test_any_change_of_a_module_changes_its_key(change):
    changed = two_layers()
    with torch.no_grad():
        change(changed)
    assert module_key(changed) != module_key(two_layers())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_tensors_of_every_type_are_hashed(dtype):
    module = nn.Module()
    module.register_buffer("kept", torch.zeros(3).to(dtype))
    other = nn.Module()
    other.register_buffer("kept", torch.ones(3).to(dtype))
    assert module_key(module) != module_key(other)


@pytest.mark.parametrize("stored", ["embedding.weight", "other.weight", "head.weight"])
def test_tied_weights_load_as_safetensors_stores_them(stored, tmp_path, fresh_modules):
    (tmp_path / "model_of_f.py").write_text(
        "from torch import nn\n"
        "class Tied(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.embedding = nn.Embedding(5, 4)\n"
        "        self.head = nn.Linear(4, 5, bias=False)\n"
        "        self.other = nn.Linear(4, 5, bias=False)\n"
        "        self.head.weight = self.other.weight = self.embedding.weight\n"
    )
    wanted = torch.arange(20.0).view(5, 4)
    save_file({stored: wanted}, tmp_path / "tied.safetensors")
    network = Network(factory="model_of_f:Tied", weights=Path("tied.safetensors"))
    module = load_network(network, tmp_path, "model")
    assert module.head.weight is module.other.weight is module.embedding.weight
    torch.testing.assert_close(module.head.weight.detach(), wanted, rtol=0, atol=0)


def test_a_name_that_is_missing_and_not_tied_is_still_refused(tmp_path, fresh_modules):
    from edgekd.errors import InputError
    from edgekd.network.load import load_weights

    save_file({"weight": torch.zeros(2, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="lacks 'bias'"):
        load_weights(nn.Linear(3, 2), tmp_path / "w.safetensors")


def test_packages_of_an_environment_below_this_one_are_not_the_users_code(tmp_path, monkeypatch):
    package = tmp_path / "lib" / "site-packages" / "below_this_one"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import json\n")
    monkeypatch.syspath_prepend(str(package.parent))
    assert source_files(["below_this_one"]) == {}
