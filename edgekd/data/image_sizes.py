"""Images whose size isn't the one that a list of them says."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import InputError

Size = tuple[float, float]
"""Width and height in pixels."""

ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""

ON_ITS_SIDE = (5, 6, 7, 8)
"""Its values that swap width and height."""


@dataclass(frozen=True)
class Differing:
    """An image of another size than listed; `turned` if its EXIF orientation would explain it."""

    path: Path
    found: tuple[int, int]
    listed: Size
    turned: bool

    @property
    def resized(self) -> bool:
        """Whether it has the listed proportions, within a pixel: shares of the one are shares of
        the other."""
        width, height = self.found
        return (
            abs(width * self.listed[1] / self.listed[0] - height) <= 1
            or abs(height * self.listed[0] / self.listed[1] - width) <= 1
        )


def differing(sizes: Mapping[Path, Size]) -> list[Differing]:
    """The images that are not of their listed size; those that can't be read are left out."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(_differing, sizes.items())
        return [each for each in found if each is not None]


def _differing(listed: tuple[Path, Size]) -> Differing | None:
    from PIL import Image

    path, size = listed
    try:
        with Image.open(path) as image:
            found = image.size
            if found == size:
                return None
            turned = found[::-1] == size and image.getexif().get(ORIENTATION) in ON_ITS_SIDE
    except Exception:  # the check for damaged images reports it
        return None
    return Differing(path, found, size, turned)


def refuse_differing(those: list[Differing], where: str) -> None:
    """One `InputError` that names the first and their number."""
    if not those:
        return
    first = those[0]
    more = f", and {len(those) - 1:,} more" if len(those) > 1 else ""
    hint = "set arguments.skip = true to leave such images out and count them"
    if first.turned:
        hint = "the annotations follow the image's EXIF orientation, which is not applied: turn "
        hint += "the pixels (PIL.ImageOps.exif_transpose) and save it again, without that tag"
    elif all(each.resized for each in those):
        hint = "if the boxes are in pixels of the listed sizes: arguments.resized = true"
    raise InputError(
        f"'{first.path}' is {_shown(first.found)}{more}",
        where=where,
        allowed=f"{_shown(first.listed)}, as its annotations say",
        hint=hint,
    )


def _shown(size: Size) -> str:
    return f"{size[0]:g}x{size[1]:g}"
