"""What the data says of its targets: in a recipe, in a source, and how samples carry it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.data.load import load_data
from edgekd.data.samples import Data, Samples
from edgekd.data.sets import SETS
from edgekd.data.sets.digit_profiles import profiles
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.data.tasks.keypoints import Keypoints
from edgekd.data.tasks.regression import Regression
from edgekd.data.tasks.segmentation import Segmentation
from edgekd.errors import Faults, InputError
from edgekd.values.recipe import DataTable

SMALL = {
    "digit-boxes": ("detection", (1, 32, 32), (3, 5)),
    "digit-masks": ("segmentation", (1, 24, 24), (24, 24)),
    "digit-keypoints": ("keypoints", (1, 24, 24), (4, 2)),
    "digit-strings": ("ctc", (1, 8, 40), (4,)),
    "python-text": ("tokens", (32,), (32,)),
    "random-graphs": ("classification", (16, 18), ()),
    "cart-pole": ("policy", (4,), ()),
    "waveform": ("classification", (1, 21), ()),
}


def npz(folder: Path, **arrays: np.ndarray) -> DataTable:
    x = np.random.default_rng(0).random((12, 1, 4, 4), np.float32)
    whole = {"x_train": x, "x_test": x[:4], **arrays}
    np.savez(folder / "own.npz", **whole)
    return DataTable(source="own.npz")


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_named_set_brings_its_task_and_is_the_same_every_time(name):
    task, shape, target = SMALL[name]
    sizes = {"train": 40, "test": 10}
    table = DataTable(source=name, arguments=sizes)
    data = load_data(table, Path())
    assert data.task.name == task
    assert data.train.x.shape[1:] == shape
    assert data.train.y.shape[1:] == target
    assert len(data.train) + len(data.validation) == 40
    assert data.task.target_faults(data.test.y, data.classes, "test") == []
    assert load_data(table, Path()).sha256 == data.sha256
    assert SETS.get(name).paper


def test_targets_of_scenes_lie_where_their_digits_are():
    sizes = {"train": 20, "test": 5}
    masks = load_data(DataTable(source="digit-masks", arguments=sizes), Path()).train
    bright = masks.x[:, 0] > 0.3
    assert bool(bright[masks.y > 0].all()), "a pixel of a digit is inked"
    assert not bool(bright[masks.y == 0].any()), "and one of the background is not"
    boxes = load_data(DataTable(source="digit-boxes", arguments=sizes), Path()).train
    for image, targets in zip(boxes.x[:, 0], boxes.y, strict=True):
        inside = torch.zeros(32, 32, dtype=torch.bool)
        for _, x, y, width, height in targets[targets[:, 0] >= 0].tolist():
            top, left = round((y - height / 2) * 32), round((x - width / 2) * 32)
            box = image[top : top + round(height * 32), left : left + round(width * 32)]
            inside[top : top + round(height * 32), left : left + round(width * 32)] = True
            assert min(box.amax(0).min(), box[0].max(), box[-1].max()) > 0.1
        assert float(image[~inside].max()) <= 0.15, "all ink lies in the boxes"


def test_a_recipe_says_what_the_targets_of_a_file_are(tmp_path):
    table = npz(tmp_path, y_train=np.zeros((12, 4, 4), int), y_test=np.zeros((4, 4, 4), int))
    table = table.model_copy(update={"task": "segmentation"})
    with pytest.raises(InputError, match=r"y has shape \(12, 4, 4\)"):
        load_data(table.model_copy(update={"task": None}), tmp_path)
    np.savez(
        tmp_path / "own.npz",
        **dict(np.load(tmp_path / "own.npz")) | {"y_train": np.ones((12, 4, 4), int)},
    )
    data = load_data(table, tmp_path)
    assert data.task == Segmentation()
    assert data.classes == 2
    keypoints = {"name": "keypoints", "radius": 2.5}
    points = npz(tmp_path, y_train=np.ones((12, 2, 2)), y_test=np.ones((4, 2, 2)))
    data = load_data(points.model_copy(update={"task": keypoints}), tmp_path)
    assert data.task == Keypoints(radius=2.5)
    assert data.classes == 0


@pytest.mark.parametrize(
    ("task", "y", "fault"),
    [
        ("segmentation", np.full((12, 4, 4), 0.5), "targets are floating-point numbers"),
        ("segmentation", np.full((12, 4, 4), -2), "label -2 of sample 0"),
        ("regression", np.full((12, 1), np.nan), "NaN or infinity"),
        ("keypoints", np.zeros((12, 4)), "(N, K, 2)"),
        ("segmantation", np.zeros(12, int), "unknown task 'segmantation'"),
    ],
)
def test_targets_that_do_not_fit_are_refused(tmp_path, task, y, fault):
    table = npz(tmp_path, y_train=y, y_test=y[:4]).model_copy(update={"task": task})
    with pytest.raises((InputError, Faults)) as raised:
        load_data(table, tmp_path)
    faults = getattr(raised.value, "faults", [raised.value])
    assert any(fault in f"{each} {each.hint}" for each in faults), str(raised.value)


def test_one_real_number_a_sample_is_a_vector_of_one(tmp_path):
    table = npz(tmp_path, y_train=np.zeros(12), y_test=np.zeros(4))
    data = load_data(table.model_copy(update={"task": "regression"}), tmp_path)
    assert data.train.y.shape[1:] == (1,)


def test_a_named_set_keeps_its_task_but_takes_other_parameters():
    with pytest.raises(InputError, match="'diabetes' has targets for regression, not for tokens"):
        load_data(DataTable(source="diabetes", task="tokens"), Path())
    wish = {"name": "regression", "tolerance": 1.0}
    data = load_data(DataTable(source="diabetes", task=wish), Path())
    assert data.task == data.validation.task == Regression(tolerance=1.0)
    assert data.train.y.mean() == pytest.approx(0.0, abs=0.1)


def test_moving_images_away_from_their_targets_is_refused():
    sizes = {"train": 40, "test": 10}
    with pytest.raises(InputError, match="away from their targets \\(segmentation\\)"):
        load_data(DataTable(source="digit-masks", arguments=sizes, shift=1), Path())
    with pytest.raises(InputError, match="away from their targets"):
        load_data(DataTable(source="digit-profiles", flip=True), Path())


def test_two_views_stay_together_and_teachers_are_shown_theirs():
    data = load_data(DataTable(source="digit-profiles"), Path())
    assert data.shown.shape == (1, 1, 8, 8)
    assert data.example.shape == (1, 2, 15)
    part = data.train.take(torch.tensor([5, 3]))
    assert torch.equal(profiles(part.shown[:, 0]), part.x)
    assert Samples(part.x, part.y).shown is part.x
    other = Samples(part.x, part.y, part.ids, part.shown + 1)
    assert other.sha256 != part.sha256, "what teachers see is part of the content"


def test_the_task_is_part_of_the_datas_content_unless_it_is_classification():
    x, y = torch.zeros(4, 2), torch.zeros(4, 1)
    near, far = (Samples(x, y, task=Regression(tolerance=tolerance)) for tolerance in (0.1, 0.2))
    one, other = (Data("d", part, part, part, 0) for part in (near, far))
    assert one.train.sha256 == other.train.sha256
    assert one.sha256 != other.sha256
    assert Samples(x, y).task is CLASSIFICATION
