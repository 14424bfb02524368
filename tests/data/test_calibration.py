from pathlib import Path

import pytest
import torch

from edgekd.data import Data, Samples, load_data
from edgekd.data.calibration import calibration_samples, load_calibration
from edgekd.data.sets import fashion_mnist
from edgekd.data.split import balanced, held_out
from edgekd.errors import InputError
from edgekd.values.recipe import Calibration, DataTable

SHIPPED = sorted((Path(__file__).parents[2] / "calibration").glob("*.toml"))


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data(DataTable(), Path())


def test_there_are_shipped_sets() -> None:
    assert {path.stem for path in SHIPPED} >= {"digits", "fashion-mnist"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_set_has_256_samples_of_equal_classes(path: Path) -> None:
    chosen, found = load_calibration(path.stem)
    assert (chosen.data, found) == (path.stem, path)
    if path.stem == "fashion-mnist" and not fashion_mnist.DEBIAN.exists():
        pytest.skip("needs dataset-fashion-mnist")
    data = load_data(DataTable(source=chosen.data), Path())
    samples = calibration_samples(Calibration(set=path.stem), data)
    assert len(samples) == len(chosen.ids) == 256
    labels = dict(zip(data.train.rows.tolist(), data.train.y.tolist(), strict=True))
    counts = torch.bincount(torch.tensor([labels[row] for row in chosen.ids]))
    assert (counts.min(), counts.max()) == (25, 26)
    assert torch.equal(samples, calibration_samples(Calibration(samples=256), data))


def test_a_set_names_the_same_samples_whatever_is_held_back(digits: Data) -> None:
    other = load_data(DataTable(validation=0.4), Path())
    wanted = calibration_samples(Calibration(set="digits"), digits)
    assert torch.equal(calibration_samples(Calibration(set="digits"), other), wanted)


def test_without_a_set_the_first_of_each_class_are_taken(digits: Data) -> None:
    samples = calibration_samples(Calibration(samples=10), digits)
    firsts = sorted(int((digits.train.y == label).nonzero()[0]) for label in range(10))
    assert torch.equal(samples, digits.train.x[firsts])


def test_an_unknown_set_is_refused_with_the_nearest_name(digits: Data) -> None:
    with pytest.raises(InputError) as caught:
        calibration_samples(Calibration(set="digit"), digits)
    assert caught.value.hint == "did you mean 'digits'?"


def test_a_set_of_other_data_is_refused(digits: Data) -> None:
    with pytest.raises(
        InputError, match="made for the data set 'fashion-mnist', but the data is 'digits'"
    ):
        calibration_samples(Calibration(set="fashion-mnist"), digits)


def test_ids_that_limit_left_out_are_refused() -> None:
    data = load_data(DataTable(limit=100), Path())
    with pytest.raises(InputError, match="id 100 is not among the 100 training samples"):
        calibration_samples(Calibration(set="digits"), data)


def test_other_samples_under_the_same_name_are_noticed(digits: Data) -> None:
    train = Samples(digits.train.x * 2, digits.train.y, digits.train.ids)
    with pytest.raises(InputError, match="SHA-256 mismatch") as caught:
        calibration_samples(
            Calibration(set="digits"), Data("digits", train, digits.validation, digits.test, 10)
        )
    assert "pixels / 16" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "own"\nids = [1, 1]\ndata = "digits"\npreprocessing = ""', "1 ids are repeated"),
        (
            'name = "its"\nids = [1]\ndata = "digits"\npreprocessing = ""',
            "does not match the file name",
        ),
        ('name = "own"\nids = []\ndata = "digits"\npreprocessing = ""', "at least 1 item"),
        ('name = "own"\nids = [1]\ndata = "digits"\npreprocesing = ""', "'preprocesing'"),
        ("name = ", "not valid TOML"),
    ],
)
def test_what_is_wrong_with_a_set_of_the_users_is_said(
    tmp_path: Path, digits: Data, text: str, message: str
) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        calibration_samples(Calibration(set=str(path)), digits)
    assert message in str(caught.value)


def test_a_set_in_the_working_directory_comes_first(
    tmp_path: Path, digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "calibration"
    folder.mkdir()
    text = 'name = "digits"\nids = [3, 1]\ndata = "digits"\npreprocessing = "none"\n'
    (folder / "digits.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert len(calibration_samples(Calibration(set="digits"), digits)) == 2


def test_held_out_samples_are_spread_over_each_class() -> None:
    y = torch.tensor([0] * 10 + [1] * 4 + [2])
    keep, hold = held_out(y, 0.2)
    # ten of class 0: positions (i + 0.5) * 10 / 2 = 2.5 and 7.5; four of class 1: 0.5 * 4 = 2.
    assert hold.tolist() == [2, 7, 12]
    assert keep.tolist() == [0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14]


def test_balanced_takes_turns() -> None:
    y = torch.tensor([0, 0, 0, 1, 2, 2])
    assert balanced(y, 3).tolist() == [0, 3, 4]
    assert balanced(y, 5).tolist() == [0, 1, 3, 4, 5]
    assert balanced(y, 99).tolist() == [0, 1, 2, 3, 4, 5]
