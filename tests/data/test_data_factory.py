from pathlib import Path

import pytest

from edgekd.data import load_data
from edgekd.errors import InputError
from edgekd.values.recipe import DataTable

MODULE = """
import collections
import torch
from torch.utils.data import Dataset, TensorDataset

def arrays(count):
    return torch.arange(count * 4.0).view(count, 2, 2), torch.arange(count) % 2

class Ragged(Dataset):
    def __len__(self): return 3
    def __getitem__(self, index): return torch.zeros(index + 1), 0

class Items(Dataset):
    def __len__(self): return 10
    def __getitem__(self, index): return torch.full((2, 2), float(index)), index % 2

class Stream(torch.utils.data.IterableDataset):
    def __iter__(self): return iter([])

Parts = collections.namedtuple("Parts", "train validation test")

def pair(train=20): return arrays(train), arrays(6)
def triple(): return tuple(TensorDataset(*arrays(count)) for count in (20, 4, 6))
def named(): return Parts(train=Items(), validation=None, test=Items())
def mapping(): return {"train": arrays(20), "test": arrays(6), "labels": ["no", "yes"]}
def counted(): return mapping() | {"classes": 3}
def misspelt(): return {"train": arrays(20), "tset": arrays(6)}
def half(): return {"train": arrays(20)}
def number(): return 3
def strings(): return "ab", "cd"
def fails(): raise OSError("the disk is gone")
def ragged(): return Ragged(), Items()
def stream(): return Stream(), Items()
def batches(): return torch.zeros(3), Items()
"""


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    # A module stays imported for the process's life, so every test gets a name of its own.
    name = f"set_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    return tmp_path / name


def load(folder: Path, factory: str, **arguments: object) -> object:
    table = DataTable(source=f"{folder.name}:{factory}", arguments=arguments)
    return load_data(table, folder.parent)


@pytest.mark.parametrize(
    ("factory", "train", "validation", "test"),
    [("pair", 18, 2, 6), ("triple", 20, 4, 6), ("named", 8, 2, 10), ("mapping", 18, 2, 6)],
)
def test_every_form_of_a_factory_is_read(
    folder: Path, factory: str, train: int, validation: int, test: int
) -> None:
    data = load(folder, factory)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [
        train,
        validation,
        test,
    ]
    assert data.train.x.shape[1:] == (2, 2)
    assert data.classes == 2


def test_labels_of_a_mapping_are_kept_and_arguments_are_passed(folder: Path) -> None:
    assert load(folder, "mapping").labels == ("no", "yes")
    assert load(folder, "pair", train=40).training_rows == 40


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("misspelt", "returned an unknown part 'tset'"),
        ("counted", "3 classes, but 2 labels"),
        ("half", "returned no 'test'"),
        ("number", "returned int"),
        ("strings", "a part is of type str"),
        ("fails", "failed: OSError: the disk is gone"),
        ("ragged", "sample 1 has shape (2,)"),
        ("stream", "the Dataset has no length"),
        ("batches", "a part is of type Tensor"),
        ("absent", "has no 'absent'"),
        ("MODULE_CONSTANT", "has no 'MODULE_CONSTANT'"),
        ("collections", "is a module, which can't be called"),
    ],
)
def test_what_a_factory_does_wrong_is_one_error(folder: Path, factory: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(folder, factory)
    assert message in str(caught.value)


def test_wrong_arguments_are_refused_with_the_nearest(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(folder, "pair", trian=3)
    assert "can't be called with these arguments" in str(caught.value)
    assert caught.value.hint == "did you mean 'train'?"


def test_a_module_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no module named 'no_such_set'"):
        load_data(DataTable(source="no_such_set:make"), tmp_path)


def test_a_module_that_needs_another_names_it(tmp_path: Path) -> None:
    (tmp_path / "needy_set.py").write_text("import no_such_package\n")
    with pytest.raises(InputError, match="imports 'no_such_package', which isn't installed"):
        load_data(DataTable(source="needy_set:make"), tmp_path)


def test_a_module_that_does_not_parse_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "broken_set.py").write_text("def make(:\n")
    with pytest.raises(InputError, match="importing 'broken_set' failed: SyntaxError"):
        load_data(DataTable(source="broken_set:make"), tmp_path)
