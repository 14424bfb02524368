"""WebDataset's tar shards on disk."""

from pathlib import Path
from typing import Any

from edgekd.data.class_folders import PARTS
from edgekd.data.sets import SETS
from edgekd.data.shards import index_shards
from edgekd.errors import InputError


@SETS.register(paper="")
def webdataset(path: Path, inputs: list[str] = [], label: str = "cls") -> Any:  # noqa: B006
    """Tar files PATH/train*.tar, PATH/val*.tar and PATH/test*.tar, or in folders of those names.

    Samples are read in any order by their place in the file, so training shuffles all of them.
    `inputs` are the endings that a network takes (jpg, png, npy, txt), by default all but `label`.
    """
    found: dict[str, list[Path]] = {}
    for part, names in PARTS.items():
        patterns = [pattern for name in names for pattern in (f"{name}*.tar", f"{name}/*.tar")]
        found[part] = sorted({file for pattern in patterns for file in path.glob(pattern)})
    if not found["test"]:
        found["test"], found["validation"] = found["validation"], []
    for part in ("train", "test"):
        if not found[part]:
            allowed = f"{part}*.tar or {part}/*.tar"
            raise InputError(f"no shards for '{part}'", where=str(path), allowed=allowed)
    return {part: index_shards(files, inputs, label) for part, files in found.items() if files}
