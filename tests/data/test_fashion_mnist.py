import gzip
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from edgekd.data import load_data
from edgekd.data.download import content_sha256, fetch
from edgekd.data.idx import read_idx
from edgekd.data.sets import fashion_mnist
from edgekd.errors import InputError, ToolError
from edgekd.values.recipe import DataTable

FILES = list(fashion_mnist.DOWNLOAD.sha256)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch):
    monkeypatch.delenv("EDGEKD_CACHE", raising=False)


def idx(shape: tuple[int, ...], values: bytes) -> bytes:
    header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4) for size in shape)
    return gzip.compress(header + values, mtime=0)


def contents() -> dict[str, bytes]:
    """A tiny set in the four files: 20 images of 28x28 to train on and 10 to test."""
    files = {}
    for prefix, count in (("train", 20), ("t10k", 10)):
        pixels = bytes(range(256)) * 784
        files[f"{prefix}-images-idx3-ubyte.gz"] = idx((count, 28, 28), pixels[: count * 784])
        files[f"{prefix}-labels-idx1-ubyte.gz"] = idx((count,), bytes(range(10)) * (count // 10))
    return files


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A web server on loopback with the tiny set, whose hashes stand in for the real ones."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name, raw in contents().items():
        (folder / name).write_bytes(raw)
        digest = hashlib.sha256(gzip.decompress(raw)).hexdigest()
        monkeypatch.setitem(fashion_mnist.DOWNLOAD.sha256, name, digest)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGEKD_DATA", raising=False)
    monkeypatch.delenv("EDGEKD_DATA_URL", raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_fetched_set_is_loaded_from_the_cache(mirror: str, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    paths = fetch("fashion-mnist", url=mirror, progress=lambda *step: steps.append(step))
    assert [path.name for path in paths] == FILES
    assert steps[-1] == ("fashion-mnist", 4, 4)
    data = load_data(DataTable(source="fashion-mnist"), Path())
    assert data.train.x.shape == (10, 1, 28, 28)
    assert data.test.y.tolist() == list(range(10))
    assert data.test.x[0, 0, 0, :3].tolist() == pytest.approx([0.0, 1 / 255, 2 / 255])
    assert not list(tmp_path.rglob("*.part"))


def test_files_that_are_right_are_not_fetched_again(mirror: str) -> None:
    first = fetch("fashion-mnist", url=mirror)
    assert fetch("fashion-mnist", url="http://127.0.0.1:9/nothing") == first


def test_a_mirror_with_other_content_is_refused(mirror: str, tmp_path: Path) -> None:
    (tmp_path / "mirror" / FILES[1]).write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ToolError, match="the content does not match the data set") as caught:
        fetch("fashion-mnist", url=mirror)
    assert caught.value.where == FILES[1]
    assert caught.value.exit_code == 3


def test_without_network_there_is_one_clear_error(
    mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKD_DATA_URL", "http://127.0.0.1:9")
    with pytest.raises(ToolError, match=r"could not be downloaded.*refused") as caught:
        fetch("fashion-mnist")
    assert "EDGEKD_DATA" in caught.value.hint


def test_only_web_addresses_are_fetched(mirror: str) -> None:
    with pytest.raises(InputError, match="not a URL"):
        fetch("fashion-mnist", url="file:///etc")


def test_a_set_without_a_download_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to download for 'digits'"):
        fetch("digits")


def test_a_missing_set_names_both_ways_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKD_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    with pytest.raises(InputError, match="in none of the folders") as caught:
        load_data(DataTable(source="fashion-mnist"), Path())
    assert caught.value.hint == (
        "apt install dataset-fashion-mnist, or: edgekd data fetch fashion-mnist"
    )


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not an IDX file"),
        (b"not gzip at all", "not a complete gzip file"),
        (contents()[FILES[0]][:-20], "not a complete gzip file"),
        (gzip.compress(b"", mtime=0), "not an IDX file"),
        (gzip.compress(b"PK" * 20, mtime=0), "not an IDX file"),
        (contents()[FILES[1]], "an IDX file of type 0x08 with 1 axes"),
        (idx((3, 28, 28), b"\0" * 784), "784 values where the header says 2352"),
    ],
)
def test_a_file_that_is_not_whole_idx_is_one_error(
    tmp_path: Path, raw: bytes, message: str
) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        read_idx(path, rank=3)
    assert message in str(caught.value)


def test_images_and_labels_of_different_number_are_refused(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own" / "fashion-mnist"
    folder.mkdir(parents=True)
    for name, raw in contents().items():
        (folder / name).write_bytes(raw)
    (folder / FILES[1]).write_bytes(idx((7,), bytes(7)))
    monkeypatch.setenv("EDGEKD_DATA", str(tmp_path / "own"))
    with pytest.raises(InputError, match="20 images, but 7 labels"):
        load_data(DataTable(source="fashion-mnist"), Path())


@pytest.mark.slow
@pytest.mark.skipif(not fashion_mnist.DEBIAN.exists(), reason="needs dataset-fashion-mnist")
def test_debians_files_have_the_content_that_is_fetched() -> None:
    for name, digest in fashion_mnist.DOWNLOAD.sha256.items():
        assert content_sha256((fashion_mnist.DEBIAN / name).read_bytes()) == digest
    data = load_data(DataTable(source="fashion-mnist"), Path())
    assert [len(part) for part in (data.train, data.validation, data.test)] == [54000, 6000, 10000]
    assert torch.bincount(data.validation.y).tolist() == [600] * 10
