"""The package's own files, on disk wherever edgekd is imported from."""

import atexit
import functools
import shutil
import tempfile
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path


@functools.cache
def package_folder() -> Path:
    """The package's own folder. Where edgekd is imported from a zip, a copy of it on disk that is
    removed when the process ends: compilers, emulators and boards need files."""
    source = resources.files("edgekd")
    if isinstance(source, Path):
        return source
    unpacked = Path(tempfile.mkdtemp(prefix="edgekd-package-"))
    atexit.register(shutil.rmtree, unpacked, ignore_errors=True)
    _unpack(source, unpacked / "edgekd")
    return unpacked / "edgekd"


def data_folder(kind: str) -> Path:
    """The folder of TOML files that travel with edgekd: `targets` or `calibration`. In a clone they
    stand beside the package, in a wheel inside it."""
    packaged = package_folder() / kind
    return packaged if packaged.is_dir() else package_folder().parent / kind


def _unpack(source: Traversable, to: Path) -> None:
    to.mkdir()
    for item in source.iterdir():
        if item.is_dir():
            _unpack(item, to / item.name)
        else:
            (to / item.name).write_bytes(item.read_bytes())
