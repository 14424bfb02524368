"""Detection sets in COCO's format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.data.boxes import Box, Listed, box_parts, train_and_test
from edgekd.data.class_folders import PARTS
from edgekd.data.sets import SETS
from edgekd.errors import InputError
from edgekd.store import read_errors


@SETS.register(paper="https://arxiv.org/abs/1405.0312")
def coco(path: Path, skip: bool = False, resized: bool = False) -> Any:
    """PATH/annotations/*train*.json with the images in PATH/train*, and the same for val and test;
    or PATH/train/_annotations.coco.json beside the images.

    Targets are those of `detection`; crowds are left out. Images need `resize = [height, width]`
    under [data.preprocess]. An image that is damaged or not as large as the list says is refused by
    name, or left out and counted with `skip`; `resized` takes those that were resized as a whole
    after the boxes were listed.
    """
    places = {part: place for part in PARTS if (place := _place(path, part)) is not None}
    allowed = "annotations/*{part}*.json or {part}/_annotations.coco.json"
    found = train_and_test(places, path, "annotations", allowed)
    tables = {part: _read(file) for part, (file, _) in found.items()}
    names = {row["id"]: str(row["name"]) for row in tables["train"]["categories"]}
    used = {row["category_id"] for row in tables["train"]["annotations"]}
    order = {key: number for number, key in enumerate(sorted(used & set(names)))}
    parts = {
        part: _listed(tables[part], folder, order, str(file))
        for part, (file, folder) in found.items()
    }
    sizes = {
        folder / row["file_name"]: (row["width"], row["height"])
        for part, (_, folder) in found.items()
        for row in tables[part]["images"]
    }
    return box_parts(path, parts, [names[key] for key in order], skip, sizes, resized)


def _place(root: Path, part: str) -> tuple[Path, Path] | None:
    """A part's annotations, and the folder of its images."""
    for name in PARTS[part]:
        beside = root / name / "_annotations.coco.json"
        if beside.is_file():
            return beside, beside.parent
        for file in sorted(root.glob(f"annotations/*{name}*.json")):
            folders = (*sorted(root.glob(f"{name}*")), *sorted(root.glob(f"images/{name}*")))
            return file, next((folder for folder in folders if folder.is_dir()), root / "images")
    return None


KEYS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
"""The lists of a COCO file, and what is read of their entries."""


def _read(path: Path) -> Mapping[str, Any]:
    with read_errors(path, "a COCO file"):
        text = path.read_text(encoding="utf-8")
    try:
        table: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg}, line {error.lineno}", where=str(path)) from None
    _check_keys(table, path)
    for row in table["images"]:
        if not all(isinstance(row[side], int | float) and row[side] > 0 for side in SIDES):
            message = f"image '{row['file_name']}' is {row['width']}x{row['height']}"
            raise InputError(message, where=str(path), allowed="pixels above 0")
    return table


SIDES = ("width", "height")


def _check_keys(table: Any, path: Path) -> None:
    """`InputError` for a list, or a key of its entries, that is missing."""
    for key, wanted in KEYS.items():
        if not isinstance(table, dict) or not isinstance(table.get(key), list):
            raise InputError(f"it has no list '{key}'", where=str(path), allowed="COCO's format")
        for number, row in enumerate(table[key]):
            missing = [each for each in wanted if not isinstance(row, dict) or each not in row]
            if missing:
                message = f"entry {number} of '{key}' has no '{missing[0]}'"
                raise InputError(message, where=str(path), allowed="COCO's format")


def _listed(table: Mapping[str, Any], folder: Path, order: Mapping[int, int], where: str) -> Listed:
    boxes: dict[int, list[Box]] = {row["id"]: [] for row in table["images"]}
    sizes = {row["id"]: (row["width"], row["height"]) for row in table["images"]}
    for row in table["annotations"]:
        if row.get("iscrowd"):
            continue
        if row["image_id"] not in boxes or row["category_id"] not in order:
            message = f"annotation {row.get('id')} is of an image or a category that isn't listed"
            raise InputError(message, where=where)
        box = _box(order[row["category_id"]], row["bbox"], *sizes[row["image_id"]])
        if box is None:
            size = "x".join(map(str, sizes[row["image_id"]]))
            raise InputError(
                f"annotation {row.get('id')} has no box: {row['bbox']} in an image of {size}",
                where=where,
                allowed="left, top, width and height in pixels",
            )
        boxes[row["image_id"]].append(box)
    return [(folder / row["file_name"], boxes[row["id"]]) for row in table["images"]]


def _box(label: int, bbox: Any, width: float, height: float) -> Box | None:
    """COCO's left, top, width and height in pixels, within the image, as a target; None for other
    numbers, and for a box outside the image. COCO itself has boxes without a width or height."""
    try:
        numbers = np.asarray(bbox, np.float64)
    except (TypeError, ValueError):
        return None
    if numbers.shape != (4,) or not np.isfinite(numbers).all():
        return None
    left, top = max(0.0, bbox[0] / width), max(0.0, bbox[1] / height)
    right, bottom = min(1.0, (bbox[0] + bbox[2]) / width), min(1.0, (bbox[1] + bbox[3]) / height)
    if right < left or bottom < top:
        return None
    return label, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
