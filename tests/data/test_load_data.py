from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.data import load_data
from edgekd.errors import EdgekdError, Faults, InputError
from edgekd.values.recipe import DataTable

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write an .npz of 40 + 10 good samples of four classes, some arrays replaced or left out."""

    def write(**changes: object) -> Path:
        arrays: dict[str, object] = {
            "x_train": np.random.default_rng(0).random((40, 3, 5)).astype(np.float32),
            "y_train": np.arange(40) % 4,
            "x_test": np.zeros((10, 3, 5), np.float32),
            "y_test": np.arange(10) % 4,
        } | changes
        path = tmp_path / "set.npz"
        np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
        return path

    return write


def refused(path: Path) -> EdgekdError:
    with pytest.raises(InputError) as caught:
        load_data(DataTable(source=path.name), path.parent)
    assert caught.value.exit_code == 2
    return caught.value


def test_digits_are_split_the_same_way_every_time() -> None:
    first, again = (load_data(DataTable(), Path()) for _ in range(2))
    assert first.sha256 == again.sha256
    assert first.train.x.shape == (1295, 1, 8, 8)
    assert (len(first.validation), len(first.test), first.classes) == (143, 359, 10)
    assert first.train.x.dtype == torch.float32
    assert (first.train.x.min(), first.train.x.max()) == (0.0, 1.0)
    assert first.training_rows == 1295 + 143
    assert torch.bincount(first.test.y).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]


def test_no_sample_is_in_two_parts() -> None:
    data = load_data(DataTable(), Path())
    parts = [data.train.rows.tolist(), data.validation.rows.tolist()]
    assert sorted(parts[0] + parts[1]) == list(range(1438))
    seen = {x.numpy().tobytes() for x in data.train.x}
    assert not any(x.numpy().tobytes() in seen for x in data.test.x)


def test_validation_is_the_share_that_the_recipe_names() -> None:
    data = load_data(DataTable(validation=0.25), Path())
    assert len(data.validation) == pytest.approx(1438 * 0.25, abs=5)
    assert torch.bincount(data.validation.y).min() >= 34


def test_limit_keeps_the_first_training_samples_and_every_test_sample(save: Save) -> None:
    path = save()
    data = load_data(DataTable(source="set.npz", limit=20), path.parent)
    assert sorted([*data.train.rows.tolist(), *data.validation.rows.tolist()]) == list(range(20))
    assert (len(data.test), data.classes, data.training_rows) == (10, 4, 40)


def test_an_npz_with_its_own_validation_keeps_all_training_samples(save: Save) -> None:
    path = save(x_validation=np.ones((4, 3, 5), np.float32), y_validation=np.arange(4))
    data = load_data(DataTable(source="set.npz"), path.parent)
    assert (len(data.train), len(data.validation), data.held_back) == (40, 4, False)


def test_bytes_of_images_become_zero_to_one(save: Save) -> None:
    path = save(
        x_train=np.full((40, 3, 5), 255, np.uint8), x_test=np.full((10, 3, 5), 51, np.uint8)
    )
    data = load_data(DataTable(source="set.npz"), path.parent)
    assert data.train.x.unique().tolist() == [1.0]
    assert data.test.x.unique().tolist() == pytest.approx([0.2])


def test_an_unknown_set_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError) as caught:
        load_data(DataTable(source="fashion_mnist"), Path())
    assert "unknown data set 'fashion_mnist'" in str(caught.value)
    assert caught.value.hint == "did you mean 'fashion-mnist'?"


def test_an_unknown_argument_of_a_set_is_refused() -> None:
    with pytest.raises(InputError, match="unknown key 'size'"):
        load_data(DataTable(arguments={"size": 8}), Path())


def test_a_missing_file_is_one_error(tmp_path: Path) -> None:
    assert str(refused(tmp_path / "absent.npz")).endswith("absent.npz: no such file")


@pytest.mark.parametrize("size", [0, 10, 500, -30])
def test_a_truncated_npz_is_one_error(save: Save, size: int) -> None:
    path = save()
    path.write_bytes(path.read_bytes()[:size])
    assert "not a complete .npz file" in str(refused(path)) or "it is no .npz" in str(refused(path))


def test_arrays_of_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, x_train=np.array([{"a": 1}], dtype=object))
    assert "array 'x_train' contains objects: nothing is unpickled" in str(refused(path))


def test_a_misspelt_array_is_refused_together_with_the_missing_one(save: Save) -> None:
    error = refused(save(x_test=None, xtest=np.zeros((10, 3, 5))))
    assert isinstance(error, Faults)
    assert [fault.message for fault in error.faults] == [
        "unknown array 'xtest'",
        "array 'x_test' is missing",
    ]
    assert error.faults[0].hint == "did you mean 'x_test'?"


def test_nan_in_the_inputs_is_refused_with_the_first_sample(save: Save) -> None:
    x = np.zeros((40, 3, 5), np.float32)
    x[7, 1, 2] = np.nan
    x[9, 0, 0] = np.inf
    assert "NaN or infinity in 2 of 40 inputs, first in sample 7" in str(refused(save(x_train=x)))


def test_numbers_beyond_float32_are_refused(save: Save) -> None:
    assert "NaN or infinity" in str(refused(save(x_train=np.full((40, 3, 5), 1e300))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": np.array([0, 1, 2, 4] + [0] * 6)}, "label 4 of sample 3 is out of range"),
        ({"y_train": np.arange(40) % 4 - 2}, "label -2 of sample 0 is out of range"),
        ({"y_train": np.where(np.arange(40) % 4 == 3, 255, np.arange(40) % 4)}, "out of range"),
        ({"y_train": np.zeros(40, np.float32)}, "labels are floating-point numbers"),
        ({"y_train": np.zeros((40, 4), np.int64)}, "y has shape (40, 4)"),
        ({"y_train": np.zeros(39, np.int64)}, "40 inputs, but 39 labels"),
        ({"y_train": np.zeros(40, int), "y_test": np.zeros(10, int)}, "every label is 0"),
        ({"x_train": np.zeros(40)}, "x has shape (40,)"),
        ({"x_test": np.zeros((10, 3, 6))}, "samples of shape (3, 6)"),
        ({"x_test": np.zeros((0, 3, 5)), "y_test": np.zeros(0, int)}, "no samples"),
        ({"x_train": np.full((40, 3, 5), "a")}, "x holds"),
        ({"classes": np.array([3])}, "out of range"),
        ({"classes": np.array("four")}, "'classes' is not a single integer"),
    ],
)
def test_what_is_wrong_with_the_samples_is_said(
    save: Save, changes: dict[str, object], message: str
) -> None:
    assert message in str(refused(save(**changes)))


def test_a_class_without_training_samples_is_fine_when_their_number_is_given(save: Save) -> None:
    path = save(classes=np.array(6))
    assert load_data(DataTable(source="set.npz"), path.parent).classes == 6


def test_shifting_samples_that_are_not_images_is_refused(save: Save) -> None:
    path = save()
    with pytest.raises(InputError, match="samples have shape \\(3, 5\\)"):
        load_data(DataTable(source="set.npz", shift=1), path.parent)


def test_too_few_samples_to_hold_back_are_refused(save: Save) -> None:
    path = save()
    with pytest.raises(InputError, match="4 training samples are too few"):
        load_data(DataTable(source="set.npz", limit=4), path.parent)
