"""A folder of images, whose folders name their classes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from edgekd.data.class_folders import find_files
from edgekd.data.images import SUFFIXES, damaged, left_out, read_image, refuse_damaged
from edgekd.data.sets import SETS


@SETS.register(paper="")
def image_folder(
    path: Path, test: float = Field(default=0.2, gt=0, lt=1), skip: bool = False
) -> Any:
    """Images in PATH/train/CLASS, PATH/val/CLASS and PATH/test/CLASS, or PATH/CLASS.

    Without parts, `test` of each class is held back. A damaged file is refused by name; with `skip`
    every file is decoded once, and damaged ones are left out and counted. Images of differing sizes
    need `resize` under [data.preprocess].
    """
    found = find_files(path, SUFFIXES, test)
    files = [file for part in found.parts.values() for file, _ in part]
    bad = damaged(files, decode=skip)
    if not skip:
        refuse_damaged(bad, str(path))
    parts = {
        name: [(file, label) for file, label in part if file not in bad]
        for name, part in found.parts.items()
    }
    datasets = replace(found, parts=parts).datasets(read_image)
    notes = left_out(bad)
    return {**datasets, "notes": notes}
