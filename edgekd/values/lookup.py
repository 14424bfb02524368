"""Looks up the package's TOML files by name."""

from pathlib import Path

from edgekd.package import data_folder


def toml_folders(kind: str) -> list[Path]:
    """The folders of a kind (targets, calibration): in the working directory, then in the
    package."""
    return [Path.cwd() / kind, data_folder(kind)]


def toml_files(kind: str) -> dict[str, Path]:
    """Every file of a kind by name; the first folder with that name wins."""
    files: dict[str, Path] = {}
    for folder in toml_folders(kind):
        for path in sorted(folder.glob("*.toml")):
            files.setdefault(path.stem, path)
    return files
