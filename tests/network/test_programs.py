import copy
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd.errors import InputError
from edgekd.network.load import load_network, network_key
from edgekd.values.recipe import Network

FREE = ({0: torch.export.Dim.AUTO},)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("scale", torch.tensor([2.0]))
        self.classifier = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.dropout(self.norm(self.conv(x)).relu().mean((2, 3)))
        return self.classifier(y * self.scale)


class Pwned:
    """What a hostile pickle does: it touches a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def network() -> Small:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def saved(network: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    program = torch.export.export(network, (torch.rand(2, 1, 6, 6),), dynamic_shapes=FREE)
    torch.export.save(program, path)
    return path


def load(path: Path) -> nn.Module:
    return load_network(Network(program=Path(path.name)), path.parent, "model")


def rewritten(path: Path, target: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """A copy of an archive with `change(name, content)` applied to every entry."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as out:
        for name in source.namelist():
            out.writestr(name, change(name, source.read(name)))
    return target


def changed_json(path: Path, target: Path, ending: str, edit: Callable[[str], str]) -> Path:
    def change(name: str, content: bytes) -> bytes:
        if not name.endswith(ending):
            return content
        edited = edit(content.decode())
        assert edited != content.decode()
        return edited.encode()

    return rewritten(path, target, change)


def test_a_program_gives_the_outputs_of_its_network_for_any_batch(
    network: Small, saved: Path
) -> None:
    module = load(saved)
    for count in (1, 2, 9):
        x = torch.rand(count, 1, 6, 6)
        assert torch.equal(module(x), network(x))
    assert {name for name, _ in module.named_parameters()} == {
        name for name, _ in network.named_parameters()
    }


def test_a_rewritten_but_unchanged_archive_is_loaded(saved: Path, tmp_path: Path) -> None:
    copied = rewritten(saved, tmp_path / "copy.pt2", lambda name, content: content)
    assert torch.equal(load(copied)(torch.ones(2, 1, 6, 6)), load(saved)(torch.ones(2, 1, 6, 6)))


def test_train_and_eval_switch_norms_and_dropout_and_survive_a_copy(
    network: Small, saved: Path
) -> None:
    module, original = copy.deepcopy(load(saved)), copy.deepcopy(network)
    x = torch.rand(16, 1, 6, 6)
    for mode in (True, False):
        module.train(mode)
        original.train(mode)
        outputs = []
        for one in (module, original):
            torch.manual_seed(1)
            outputs.append(one(x))
        assert torch.allclose(*outputs, atol=1e-6)
    assert torch.allclose(module.norm.running_mean, original.norm.running_mean)
    assert not torch.allclose(module(x), network(x), atol=1e-6)


def test_a_program_can_be_exported_again(saved: Path) -> None:
    program = torch.export.export(load(saved), (torch.rand(1, 1, 6, 6),))
    assert program.module()(torch.rand(1, 1, 6, 6)).shape == (1, 3)


def test_the_key_follows_the_file(saved: Path, tmp_path: Path) -> None:
    other = rewritten(saved, tmp_path / "copy.pt2", lambda name, content: content)
    keys = [
        network_key(Network(program=Path(path.name)), path.parent) for path in (saved, saved, other)
    ]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_program_is_one_error(saved: Path, tmp_path: Path, share: float) -> None:
    raw = saved.read_bytes()
    path = tmp_path / "model.pt2"
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(InputError, match=r"model\.pt2: not a complete torch.export file"):
        load(path)


def test_a_checkpoint_is_no_program(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "model.pt2")
    with pytest.raises(InputError, match=r"not a complete torch.export file"):
        load(tmp_path / "model.pt2")


def test_a_missing_program_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "absent.pt2")


def test_a_program_for_one_batch_size_is_refused_with_the_way_out(
    network: Small, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(network, (torch.rand(4, 1, 6, 6),)), path)
    with pytest.raises(InputError, match="its batch size is fixed at 4") as caught:
        load(path)
    assert "Dim.AUTO" in caught.value.hint


def test_nan_in_a_program_is_refused(network: Small, tmp_path: Path) -> None:
    broken = copy.deepcopy(network)
    broken.scale[0] = float("nan")
    path = tmp_path / "model.pt2"
    program = torch.export.export(broken, (torch.rand(2, 1, 6, 6),), dynamic_shapes=FREE)
    torch.export.save(program, path)
    with pytest.raises(InputError, match="NaN or infinity in the weights 'scale'"):
        load(path)


def test_pickled_sample_inputs_are_never_loaded(saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    buffer = io.BytesIO()
    torch.save(Pwned(mark), buffer)
    path = rewritten(
        saved,
        tmp_path / "model.pt2",
        lambda name, content: buffer.getvalue() if "sample_inputs" in name else content,
    )
    with pytest.raises(InputError, match="sample inputs are pickled objects"):
        load(path)
    assert not mark.exists()


def test_pickled_weights_are_never_loaded(saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    path = changed_json(
        saved,
        tmp_path / "model.pt2",
        "model_weights_config.json",
        lambda text: text.replace('"use_pickle": false', '"use_pickle": true', 1),
    )
    hostile = rewritten(
        path,
        tmp_path / "hostile.pt2",
        lambda name, content: pickle.dumps(Pwned(mark)) if name.endswith("weight_0") else content,
    )
    with pytest.raises(InputError, match="a tensor is pickled, and nothing is unpickled"):
        load(hostile)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("found", "put", "message"),
    [
        ("torch.ops.aten.relu.default", "torch.hub.load", "unknown operator 'torch.hub.load'"),
        ("torch.ops.aten.relu.default", "torch.ops.load_library", "unknown operator"),
        ("torch.ops.aten.relu.default", "torch.ops.aten.from_file", "unknown operator"),
        ("torch.ops.aten.relu.default", "_operator.methodcaller", "unknown operator"),
        ('"forward_arg_names": ["x"]', '"forward_arg_names": ["x=open(1)"]', "are not plain names"),
        ('"name": "relu"', '"name": "relu; import os"', "is not a plain name"),
        ("builtins.tuple", "collections.defaultdict", "inputs or outputs of type"),
    ],
)
def test_what_could_run_code_is_refused(
    saved: Path, tmp_path: Path, found: str, put: str, message: str
) -> None:
    path = changed_json(
        saved, tmp_path / "model.pt2", "models/model.json", lambda text: text.replace(found, put)
    )
    with pytest.raises(InputError) as caught:
        load(path)
    assert message in str(caught.value)


def test_an_expression_that_calls_something_is_refused(saved: Path, tmp_path: Path) -> None:
    def edit(text: str) -> str:
        table = json.loads(text)
        dims = json.dumps(table["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0])
        sizes = json.loads(dims)
        sizes["as_expr"]["expr_str"] = "__import__('os').getcwd()"
        return text.replace(dims, json.dumps(sizes))

    path = changed_json(saved, tmp_path / "model.pt2", "models/model.json", edit)
    with pytest.raises(InputError, match="is not a plain expression"):
        load(path)


def test_compiled_code_in_an_archive_is_refused(saved: Path, tmp_path: Path) -> None:
    path = rewritten(saved, tmp_path / "model.pt2", lambda name, content: content)
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{root}/data/aotinductor/model/model.so", b"\x7fELF")
    with pytest.raises(InputError, match=r"contains 'data/aotinductor/model/model.so'"):
        load(path)
