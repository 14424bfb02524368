"""Where the TOML files that travel with the package are looked up by name."""

import sys
from pathlib import Path


def toml_folders(kind: str) -> list[Path]:
    """The folders of a kind (targets, calibration): the working directory's, then the package's."""
    packaged = Path(__file__).parents[2] / kind
    installed = Path(sys.prefix) / "share" / "edgekd" / kind
    return [Path.cwd() / kind, packaged, installed]


def toml_files(kind: str) -> dict[str, Path]:
    """Every file of a kind by name, the first folder that has it winning."""
    files: dict[str, Path] = {}
    for folder in toml_folders(kind):
        for path in sorted(folder.glob("*.toml")):
            files.setdefault(path.stem, path)
    return files
