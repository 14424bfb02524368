"""Fetching a public data set once into the user's cache folder and checking its content."""

import gzip
import hashlib
import os
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from edgekd.errors import InputError, ToolError, nearest
from edgekd.store import cache_folder, make_folder
from edgekd.values.progress import Progress, silent

"""Called as progress(what, done, total)."""


@dataclass(frozen=True)
class Download:
    """Gzipped files that each of `urls` (folders, tried in order) offers.

    `sha256` is of each file's *decompressed* content by name: mirrors compress differently.
    """

    urls: tuple[str, ...]
    sha256: Mapping[str, str]


def data_folders(name: str) -> list[Path]:
    """Where a set's files may be: `$EDGEKD_DATA/NAME`, then the cache folder."""
    folders = [downloaded_folder(name)]
    if os.environ.get("EDGEKD_DATA"):
        folders.insert(0, Path(os.environ["EDGEKD_DATA"]).expanduser() / name)
    return folders


def downloaded_folder(name: str) -> Path:
    """Where a fetched set is: under data/ in the cache that runs share."""
    return cache_folder() / "data" / name


def fetch(
    name: str,
    folder: Path | None = None,
    url: str | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Download a named set into `folder` (the cache folder by default); correct files stay.

    `url` (or `$EDGEKD_DATA_URL`) replaces the set's own addresses. InputError for a set that has
    nothing to download, ToolError when no address gives a file with the right content.
    """
    downloads = _downloads()
    if name not in downloads:
        raise InputError(
            f"nothing to download for '{name}'",
            where="edgekd data fetch",
            allowed=", ".join(downloads),
            hint=nearest(name, downloads),
        )
    download = downloads[name]
    folder = folder or downloaded_folder(name)
    other = url or os.environ.get("EDGEKD_DATA_URL")
    urls = (other,) if other else download.urls
    make_folder(folder)
    paths = []
    for done, (file, digest) in enumerate(download.sha256.items()):
        progress(file, done, len(download.sha256))
        path = folder / file
        if not (path.exists() and content_sha256(path.read_bytes()) == digest):
            _write(path, _download(file, digest, urls))
        paths.append(path)
    progress(name, len(paths), len(paths))
    return paths


def content_sha256(raw: bytes) -> str:
    """The hash of the decompressed bytes; empty if they aren't complete gzip data."""
    try:
        return hashlib.sha256(gzip.decompress(raw)).hexdigest()
    except (OSError, EOFError, zlib.error):
        return ""


def _downloads() -> dict[str, Download]:
    """The `DOWNLOAD` of every named set whose file has one."""
    from edgekd.data.sets import SETS

    downloads: dict[str, Download] = {}
    for name in SETS.names():
        download = vars(sys.modules[SETS.get(name).make.__module__]).get("DOWNLOAD")
        if isinstance(download, Download):
            downloads[name] = download
    return downloads


def _download(file: str, digest: str, urls: tuple[str, ...]) -> bytes:
    failures = []
    for base in urls:
        address = f"{base.rstrip('/')}/{file}"
        if not address.startswith(("http://", "https://")):
            raise InputError("not a URL", where=address, allowed="http:// or https://")
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                raw: bytes = answer.read()
        except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
            failures.append(f"{address}: {getattr(error, 'reason', None) or error}")
            continue
        if content_sha256(raw) == digest:
            return raw
        failures.append(f"{address}: the content does not match the data set (SHA-256 mismatch)")
    raise ToolError(
        f"could not be downloaded: {'; '.join(failures)}",
        where=file,
        hint="behind a firewall, set EDGEKD_DATA_URL to a mirror, or copy the files by hand to "
        "$EDGEKD_DATA",
    )


def _write(path: Path, raw: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(raw)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ToolError(f"can't be written: {error.strerror}", where=str(path)) from None
