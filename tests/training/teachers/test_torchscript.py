import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd.data import load_data
from edgekd.errors import InputError
from edgekd.training.teachers import load_teacher
from edgekd.training.teachers.torchscript import open_torchscript
from edgekd.values.recipe import DataTable, Network


def save(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module.eval()).save(str(path))
    return path


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        open_torchscript(path)
    return caught.value


def test_a_torchscript_teacher_gives_the_logits_of_its_module(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10))
    save(module, tmp_path / "t.pt")
    data = load_data(DataTable(), Path())
    teacher = load_teacher(Network(torchscript=Path("t.pt")), tmp_path, data, "teachers.1")
    x = data.train.shown[:5]
    with torch.no_grad():
        expected = module(x)
    torch.testing.assert_close(teacher.logits(x), expected)
    assert teacher.module is None


class Writes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "/tmp/never")
        return x


class Reads(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/hostname", False, 1)


@pytest.mark.parametrize(("module", "name"), [(Writes(), "save"), (Reads(), "from_file")])
def test_code_that_reaches_files_is_refused_before_it_is_loaded(tmp_path, module, name):
    try:
        path = save(module, tmp_path / "t.pt")
    except RuntimeError as error:
        pytest.skip(f"this PyTorch does not compile it: {error}")
    assert f"its code calls '{name}', which can reach files" in str(refused(path))


def test_an_unknown_namespace_is_refused(tmp_path):
    path = save(nn.Linear(2, 2), tmp_path / "t.pt")
    changed = tmp_path / "changed.pt"
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(changed, "w") as after:
        for name in before.namelist():
            raw = before.read(name)
            if name.endswith(".py"):
                raw += b"    ops.theirs.run(input)\n"
            after.writestr(name, raw)
    assert "its code calls 'theirs'" in str(refused(changed))


@pytest.mark.parametrize("size", [0, 10, 400, -1, -100])
def test_a_truncated_file_is_one_error(tmp_path, size):
    path = save(nn.Linear(2, 2), tmp_path / "t.pt")
    path.write_bytes(path.read_bytes()[:size])
    assert "not a complete TorchScript file" in str(refused(path))


def test_a_checkpoint_is_no_torchscript(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "t.pt")
    error = refused(tmp_path / "t.pt")
    assert "not a TorchScript program" in str(error)
    assert "weights = " in error.hint


def test_outputs_that_are_no_tensor_are_refused(tmp_path):
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    predictor = open_torchscript(save(Two(), tmp_path / "t.pt"))
    with pytest.raises(InputError, match="its output is a tuple"):
        predictor.predict(torch.ones(1, 2))
