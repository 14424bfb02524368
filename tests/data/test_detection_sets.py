"""COCO's and YOLO's formats: photographs that scikit-learn carries, with boxes drawn by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from edgekd.data import Data, load_data
from edgekd.errors import InputError
from edgekd.values.recipe import DataTable

BOXES = {
    "00": [(0, 10.0, 10.0, 30.0, 40.0)],
    "01": [(1, 0.0, 0.0, 50.0, 25.0), (0, 60.0, 30.0, 40.0, 20.0)],
}
"""Left, top, width and height in images of 100 x 50 pixels, by file."""


@pytest.fixture
def photographs(tmp_path) -> Path:
    """Three images in each part's folder; the last has no boxes."""
    picture = Image.fromarray(load_sample_image("flower.jpg"))
    for part in ("train", "val"):
        (tmp_path / "set/images" / part).mkdir(parents=True)
        for number in range(3):
            tile = picture.crop((number * 50, 0, number * 50 + 100, 50))
            tile.save(tmp_path / "set/images" / part / f"{number:02}.jpg")
    return tmp_path / "set"


def write_coco(root: Path, **changes: object) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    size = {"width": 100, "height": 50}
    images = [{"id": 5 + n, "file_name": f"{n:02}.jpg", **size} for n in range(3)]
    rows = [
        {"id": 1, "image_id": 5 + int(name), "category_id": (7, 3)[label], "bbox": box}
        for name, boxes in BOXES.items()
        for label, *box in boxes
    ]
    rows.append({"id": 9, "image_id": 7, "category_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 1})
    categories = [{"id": 7, "name": "leaf"}, {"id": 3, "name": "bud"}, {"id": 4, "name": "unused"}]
    table = {"images": images, "annotations": rows, "categories": categories, **changes}
    for part in ("train", "val"):
        (root / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(table))


def with_sizes(*sizes: tuple[float, float]) -> dict[str, object]:
    rows = [
        {"id": 5 + n, "file_name": f"{n:02}.jpg", "width": width, "height": height}
        for n, (width, height) in enumerate(sizes)
    ]
    return {"images": rows}


def write_yolo(root: Path) -> None:
    for part in ("train", "val"):
        (root / "labels" / part).mkdir(parents=True)
        for name, boxes in BOXES.items():
            lines = [
                f"{label} {(x + w / 2) / 100} {(y + h / 2) / 50} {w / 100} {h / 50}"
                for label, x, y, w, h in boxes
            ]
            (root / "labels" / part / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (root / "classes.txt").write_text("leaf\nbud\n")


def load(root: Path, source: str, **table: object) -> Data:
    steps = {"resize": [32, 64], **table.pop("preprocess", {})}
    table = DataTable(source=source, path=root.name, validation=0.34, preprocess=steps, **table)
    return load_data(table, root.parent)


@pytest.mark.parametrize(
    "bbox", [[5, 5, 9], [5, 5, float("nan"), 9], [5, 5, -6, 9], [200, 5, 9, 9], "5 5 9 9"]
)
def test_an_annotation_that_is_no_box_is_named(photographs, bbox) -> None:
    row = {"id": 41, "image_id": 6, "category_id": 7, "bbox": bbox}
    write_coco(photographs, annotations=[row])
    with pytest.raises(InputError, match=r"annotation 41 has no box: .* in an image of 100x50"):
        load(photographs, "coco")


def test_an_entry_without_what_coco_has_is_named(photographs) -> None:
    write_coco(photographs, annotations=[{"id": 1, "image_id": 5, "category_id": 7}])
    with pytest.raises(InputError, match="entry 0 of 'annotations' has no 'bbox'"):
        load(photographs, "coco")


EXPECTED = np.array([[0.25, 0.6, 0.3, 0.8], [0.25, 0.25, 0.5, 0.5], [0.8, 0.8, 0.4, 0.4]])


def test_coco_and_yolo_give_the_same_boxes_as_shares_of_the_image(photographs) -> None:
    write_coco(photographs)
    write_yolo(photographs)
    for source, first, names in (("coco", 1, ("bud", "leaf")), ("yolo", 0, ("leaf", "bud"))):
        data = load(photographs, source)
        assert data.task.name == "detection"
        assert data.labels == names
        assert data.example.shape == (1, 3, 32, 64)
        y = data.test.y.numpy()
        assert y.shape == (3, 2, 5)
        np.testing.assert_allclose(y[0, 0], [first, *EXPECTED[0]], atol=1e-6)
        np.testing.assert_allclose(y[1, 0], [1 - first, *EXPECTED[1]], atol=1e-6)
        np.testing.assert_allclose(y[1, 1], [first, *EXPECTED[2]], atol=1e-6)
        assert (y[0, 1, 0], y[2, 0, 0]) == (-1, -1)


def test_a_crop_that_would_leave_the_boxes_behind_is_refused(photographs) -> None:
    write_yolo(photographs)
    with pytest.raises(InputError, match="would move images away from their targets"):
        load(photographs, "yolo", preprocess={"crop": 16})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"annotations": [{"image_id": 9, "category_id": 7, "bbox": []}]},
            "isn't listed",
        ),
        ({"categories": None}, "it has no list 'categories'"),
    ],
)
def test_faulty_annotations_are_refused(photographs, changes, message) -> None:
    write_coco(photographs, **changes)
    with pytest.raises(InputError, match=message):
        load(photographs, "coco")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", "class 2 is out of range"),
        ("0 0.5 0.5 0.1", "is not a box"),
        ("0 50 50 10 10", "lies outside the image"),
    ],
)
def test_a_faulty_label_line_is_named(photographs, line, message) -> None:
    write_yolo(photographs)
    (photographs / "labels/train/01.txt").write_text(f"0 0.5 0.5 0.2 0.2\n{line}\n")
    with pytest.raises(InputError) as caught:
        load(photographs, "yolo")
    assert message in str(caught.value)
    assert caught.value.where.endswith("labels/train/01.txt:2")


def test_what_is_missing_is_named(photographs) -> None:
    with pytest.raises(InputError, match="no annotations for 'train'"):
        load(photographs, "coco")
    with pytest.raises(InputError, match="the classes have no names"):
        load(photographs, "yolo")
    assert load(photographs, "yolo", arguments={"names": ["a", "b"]}).classes == 2


def test_an_image_that_is_not_as_large_as_listed_is_refused_or_left_out(photographs) -> None:
    write_coco(photographs, **with_sizes((100, 50), (90, 50), (100, 70)))
    with pytest.raises(InputError) as caught:
        load(photographs, "coco")
    place = photographs / "images/train/01.jpg"
    expected = f"'{place}' is 100x50, and 3 more (allowed: 90x50, as its annotations say)"
    assert str(caught.value) == f"{photographs}: {expected}"
    assert caught.value.hint == "set arguments.skip = true to leave such images out and count them"


def test_images_of_other_sizes_are_left_out_and_counted(photographs) -> None:
    write_coco(photographs, **with_sizes((100, 50), (100, 50), (100, 70)))
    data = load(photographs, "coco", arguments={"skip": True})
    assert (data.training_rows, len(data.test)) == (2, 2)
    assert data.notes[0] == "2 images of another size than listed left out"


def test_images_that_were_resized_are_taken_when_the_recipe_says_so(photographs) -> None:
    """Boxes are shares: those in pixels of the listed sizes are right in the resized image."""
    doubled = [
        {"id": n, "image_id": 5, "category_id": 7, "bbox": [20.0, 20.0, 60.0, 80.0]} for n in (1, 2)
    ]
    sizes = with_sizes((200, 100), (100, 50), (301, 150))
    write_coco(photographs, annotations=doubled, **sizes)
    with pytest.raises(InputError, match=r"is 100x50, and 3 more") as caught:
        load(photographs, "coco")
    assert caught.value.hint.endswith("pixels of the listed sizes: arguments.resized = true")
    data = load(photographs, "coco", arguments={"resized": True})
    assert data.notes[0] == "4 images resized after listing"
    np.testing.assert_allclose(data.test.y[0, 0, 1:].numpy(), EXPECTED[0], atol=1e-6)


def test_resized_does_not_take_images_of_other_proportions(photographs) -> None:
    write_coco(photographs, **with_sizes((200, 100), (100, 50), (100, 70)))
    with pytest.raises(InputError, match=r"02.jpg' is 100x50, and 1 more \(allowed: 100x70"):
        load(photographs, "coco", arguments={"resized": True})


def test_an_image_that_its_orientation_tag_turns_gets_a_hint_of_its_own(photographs) -> None:
    for part in ("train", "val"):
        path = photographs / f"images/{part}/00.jpg"
        with Image.open(path) as image:
            tags = image.getexif()
            tags[0x0112] = 6
            image.save(path, exif=tags)
    write_coco(photographs, **with_sizes((50, 100), (100, 50), (100, 50)))
    with pytest.raises(InputError, match=r"is 100x50, and 1 more \(allowed: 50x100") as caught:
        load(photographs, "coco")
    assert "turn the pixels (PIL.ImageOps.exif_transpose)" in caught.value.hint


def test_a_listed_size_of_nothing_is_refused(photographs) -> None:
    write_coco(photographs, **with_sizes((100, 50), (0, 50), (100, 50)))
    with pytest.raises(InputError, match=r"image '01.jpg' is 0x50 \(allowed: pixels above 0\)"):
        load(photographs, "coco")
