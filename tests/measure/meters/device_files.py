"""The files in which Linux shows what a device measures."""

from pathlib import Path


def write(root: Path, files: dict[str, object]) -> None:
    """One line each, below `root`."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
