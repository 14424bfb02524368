"""Detection sets in the format of YOLO."""

from pathlib import Path
from typing import Any

from edgekd.data.boxes import Box, Listed, box_parts, train_and_test
from edgekd.data.class_folders import PARTS
from edgekd.data.images import SUFFIXES
from edgekd.data.sets import SETS
from edgekd.errors import InputError
from edgekd.store import read_errors


@SETS.register(paper="https://arxiv.org/abs/1506.02640")
def yolo(path: Path, names: list[str] = [], skip: bool = False) -> Any:  # noqa: B006 - never changed
    """PATH/images/train/NAME.jpg with PATH/labels/train/NAME.txt, and the same for val and test; or
    PATH/train/images and PATH/train/labels.

    A line of a label file is "class x y width height", shares of the image; an image without a file
    has no boxes. `names` are the classes, or the lines of PATH/classes.txt. Images need
    `resize = [height, width]` under [data.preprocess].
    """
    places = {part: folders for part in PARTS if (folders := _folders(path, part)) is not None}
    parts = train_and_test(places, path, "images", "images/{part} or {part}/images")
    labels = names or _names(path)
    listed = {part: _listed(*folders, len(labels)) for part, folders in parts.items()}
    return box_parts(path, listed, labels, skip)


def _folders(root: Path, part: str) -> tuple[Path, Path] | None:
    for name in PARTS[part]:
        for images, labels in (
            (root / "images" / name, root / "labels" / name),
            (root / name / "images", root / name / "labels"),
        ):
            if images.is_dir():
                return images, labels
    return None


def _names(root: Path) -> list[str]:
    path = root / "classes.txt"
    if not path.is_file():
        hint = "arguments.names = ['cat', 'dog'], in the order of data.yaml"
        raise InputError("the classes have no names", where=str(path), hint=hint)
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _listed(images: Path, labels: Path, classes: int) -> Listed:
    files = sorted(file for file in images.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError("no images", where=str(images))
    return [
        (file, _boxes(labels / file.relative_to(images).with_suffix(".txt"), classes))
        for file in files
    ]


def _boxes(path: Path, classes: int) -> list[Box]:
    if not path.is_file():
        return []
    with read_errors(path, "a label file"):
        lines = path.read_text(encoding="utf-8").splitlines()
    return [_box(line, classes, f"{path}:{n}") for n, line in enumerate(lines, 1) if line.strip()]


def _box(line: str, classes: int, where: str) -> Box:
    try:
        values = [float(text) for text in line.split()]
        label, x, y, width, height = values
    except ValueError:
        allowed = "class x y width height"
        raise InputError(f"'{line}' is not a box", where=where, allowed=allowed) from None
    if not 0 <= label < classes or label != int(label):
        message = f"class {label:g} is out of range"
        raise InputError(message, where=where, allowed=f"0 to {classes - 1}")
    if not all(0 <= value <= 1 for value in values[1:]):
        raise InputError(f"'{line}' lies outside the image", where=where, allowed="shares, 0 to 1")
    return int(label), x, y, width, height
