"""Reading pictures from files, and finding those that can't be read."""

from collections.abc import Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edgekd.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})

ENDINGS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND\xaeB`\x82"}
"""What a whole file has near its end."""

TAIL = 256


def read_image(path: Path) -> Any:
    """The picture, decoded, in gray or RGB. `OSError` or `ValueError` for a damaged file."""
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        return image if image.mode in ("L", "RGB") else image.convert("RGB")


def damage(path: Path) -> str:
    """Why a file is not a whole picture, by its header and its end; an empty string if it seems
    to be one. Nothing is decoded."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.size  # noqa: B018 - the header is read
        ending = ENDINGS.get(path.suffix.lower(), b"")
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            if ending not in file.read():
                return "truncated"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def damage_inside(path: Path) -> str:
    """Why a file can't be decoded; an empty string if it can."""
    try:
        read_image(path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def damaged(paths: Sequence[Path], decode: bool = False) -> dict[Path, str]:
    """The files that aren't whole pictures, with the reason; `decode` looks into each of them."""
    look = damage_inside if decode else damage
    with ThreadPoolExecutor() as pool:
        reasons = list(pool.map(look, paths))
    return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}


def refuse_damaged(bad: dict[Path, str], where: str) -> None:
    """One `InputError` that names the first damaged file and their number."""
    if bad:
        path, reason = next(iter(bad.items()))
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise InputError(
            f"'{path}' can't be read: {reason}{more}",
            where=where,
            hint="remove it, or set arguments.skip = true to leave such files out and count them",
        )


def left_out(bad: Sized) -> tuple[str, ...]:
    """The plan's note on images that are unreadable."""
    images = "image" if len(bad) == 1 else "images"
    return (f"{len(bad):,} unreadable {images} left out",) if bad else ()
