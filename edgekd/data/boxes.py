"""Images with boxes, as the data sets of detection return them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.image_sizes import Size, differing, refuse_differing
from edgekd.data.images import damaged, left_out, read_image, refuse_damaged
from edgekd.data.tasks import NO_LABEL
from edgekd.errors import InputError

Box = tuple[int, float, float, float, float]
"""Class, then x and y of the centre, width and height as shares of the image."""


@dataclass(frozen=True, eq=False)
class BoxFiles:
    """Image files with targets (N, M, 5): boxes, class -1 after the last one."""

    root: Path
    files: tuple[Path, ...]
    targets: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Any, NDArray[np.float32]]:
        return read_image(self.files[row]), self.targets[row]

    def name_of(self, row: int) -> str:
        """A sample's file, for messages."""
        return str(self.files[row].relative_to(self.root))

    @property
    def fingerprint(self) -> str:
        """A hash of the files' names, sizes and times of change, and of the boxes."""
        digest = hashlib.sha256(self.targets.tobytes())
        for file in self.files:
            status = file.stat()
            digest.update(f"{file.relative_to(self.root)}\0{status.st_size}\0".encode())
            digest.update(f"{status.st_mtime_ns}\0".encode())
        return digest.hexdigest()


Place = tuple[Path, Path]
"""Where a part's images and their boxes lie."""

Listed = list[tuple[Path, list[Box]]]
"""The images of a part with their boxes."""


def train_and_test(
    parts: Mapping[str, Place], root: Path, lacking: str, allowed: str
) -> dict[str, Place]:
    """The parts that were found; validation is the test part where that is missing. Raises
    `InputError` where one of the two is `lacking`; `allowed` has a place for its name."""
    found = dict(parts)
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    for part in ("train", "test"):
        if part not in found:
            where = str(root)
            message = f"no {lacking} for '{part}'"
            raise InputError(message, where=where, allowed=allowed.format(part=part))
    return found


def box_parts(
    root: Path,
    parts: Mapping[str, Listed],
    labels: Sequence[str],
    skip: bool,
    sizes: Mapping[Path, Size] | None = None,
    resized: bool = False,
) -> Any:
    """The parts as a factory returns them, with as many rows of targets as the fullest image has
    boxes. An image that is damaged, or not of its listed size (width, height), is an `InputError`,
    or left out and counted with `skip`; with `resized` one of the same proportions is counted."""
    files = [file for listed in parts.values() for file, _ in listed]
    unreadable = damaged(files, decode=skip)
    others = [each for each in differing(sizes or {}) if each.path not in unreadable]
    scaled = [each for each in others if resized and each.resized]
    wrong = [each for each in others if each not in scaled]
    if not skip:
        refuse_damaged(unreadable, str(root))
        refuse_differing(wrong, str(root))
    bad = {*unreadable, *(each.path for each in wrong)}
    most = max((len(boxes) for listed in parts.values() for _, boxes in listed), default=0)
    made: dict[str, Any] = {"labels": tuple(labels), "task": "detection"}
    for part, listed in parts.items():
        kept = [(file, boxes) for file, boxes in listed if file not in bad]
        targets = np.full((len(kept), max(most, 1), 5), float(NO_LABEL), np.float32)
        for row, (_, boxes) in enumerate(kept):
            if boxes:
                targets[row, : len(boxes)] = boxes
        made[part] = BoxFiles(root, tuple(file for file, _ in kept), targets)
    counted = ((wrong, "of another size than listed left out"), (scaled, "resized after listing"))
    notes = [f"{_images(len(those))} {words}" for those, words in counted if those]
    return {**made, "notes": (*left_out(unreadable), *notes)}


def _images(count: int) -> str:
    return f"{count:,} image" if count == 1 else f"{count:,} images"
