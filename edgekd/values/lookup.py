"""Looks up the TOML files that travel with the package by name."""

from pathlib import Path

from edgekd.package import data_folder


def toml_folders(kind: str) -> list[Path]:
    """The folders of a kind (targets, calibration): the working directory's, then the package's."""
    return [Path.cwd() / kind, data_folder(kind)]


def toml_files(kind: str) -> dict[str, Path]:
    """Every file of a kind by name; the first folder that has a name wins."""
    files: dict[str, Path] = {}
    for folder in toml_folders(kind):
        for path in sorted(folder.glob("*.toml")):
            files.setdefault(path.stem, path)
    return files
