"""WebDataset's shards, of scikit-learn's digits."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from edgekd.data import Data, load_data
from edgekd.data.streamed import Streamed
from edgekd.errors import InputError
from edgekd.values.recipe import DataTable

DIGITS = load_digits()
IMAGES = (DIGITS.images * 15).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def write_shard(path: Path, rows: range, **more: bytes) -> None:
    with tarfile.open(path, "w") as archive:
        for row in rows:
            files = {"png": png(IMAGES[row]), "cls": str(DIGITS.target[row]).encode(), **more}
            for ending, content in files.items():
                info = tarfile.TarInfo(f"digits/{row:05}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path) -> Path:
    root = tmp_path / "shards"
    root.mkdir()
    write_shard(root / "train-000.tar", range(60))
    write_shard(root / "train-001.tar", range(60, 100))
    write_shard(root / "val-000.tar", range(100, 130))
    return root


def load(root: Path, source: str = "webdataset", **table: object) -> Data:
    return load_data(DataTable(source=source, path=root.name, **table), root.parent)


def test_samples_of_shards_are_read_in_any_order(shards) -> None:
    data = load(shards, stream=True, workers=0)
    assert isinstance(data.train.inputs, Streamed)
    assert (data.training_rows, len(data.test), data.classes) == (100, 30, 10)
    index = torch.tensor([80, 3])
    x, y = data.train.gather(index)
    rows = data.train.rows[index]
    expected = torch.from_numpy(IMAGES[rows]).float().unsqueeze(1) / 255
    assert torch.equal(x, expected)
    assert y.tolist() == DIGITS.target[rows].tolist()
    assert torch.equal(load(shards).test.x, data.test.x)


def test_a_shard_that_is_cut_off_is_refused(shards) -> None:
    whole = (shards / "train-001.tar").read_bytes()
    (shards / "train-001.tar").write_bytes(whole[: 512 * 40 + 600])
    with pytest.raises(InputError, match=r"001.tar: (not a whole tar file|the tar file is cut)"):
        load(shards)


@pytest.mark.parametrize("beyond", [0, 100])
def test_a_shard_that_is_cut_off_after_a_whole_file_is_refused(shards, beyond: int) -> None:
    """Which Python's tarfile reads as the end."""
    path = shards / "train-001.tar"
    with tarfile.open(path) as archive:
        starts = [info.offset for info in archive]
    path.write_bytes(path.read_bytes()[: starts[20] + beyond])
    with pytest.raises(InputError, match=r"001.tar: the tar file is cut off"):
        load(shards)


def test_a_sample_without_its_input_is_refused_by_its_key(shards) -> None:
    with pytest.raises(InputError, match=r"sample train-000.tar:digits/00000 has no '.jpg'"):
        load(shards, arguments={"inputs": ["jpg"]})
    with pytest.raises(InputError, match=r"no shards for 'train'"):
        load(shards.parent)


def test_a_file_that_does_not_decode_is_named_by_its_key(shards) -> None:
    content = bytearray((shards / "train-000.tar").read_bytes())
    place = content.find(b"\x89PNG", 40 * 1024)
    content[place : place + 8] = bytes(8)
    (shards / "train-000.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"sample \d+ \(train-000.tar:digits/\d+\) can't be read"):
        load(shards)


def test_several_files_of_a_sample_are_inputs_by_their_endings(shards) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(3.0))
    parts = {"train-000": range(60), "train-001": range(60, 70), "val-000": range(9)}
    for part, rows in parts.items():
        write_shard(shards / f"{part}.tar", rows, npy=buffer.getvalue())
    data = load(shards)
    assert {name: tuple(leaf.shape[1:]) for name, leaf in data.example.items()} == {
        "png": (1, 8, 8), "npy": (3,),
    }  # fmt: skip
