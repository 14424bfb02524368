"""Folders that Hugging Face's datasets saved: scikit-learn's digits, and sentences."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from edgekd.data import Data, load_data
from edgekd.data.inputs import Held
from edgekd.data.streamed import Streamed
from edgekd.errors import InputError
from edgekd.values.recipe import DataTable

DIGITS = load_digits()
IMAGES = (DIGITS.images * 15).astype(np.uint8)
NAMES = list("0123456789")


def load(root: Path, **table: object) -> Data:
    given = DataTable(source="datasets-folder", path=root.name, **table)
    return load_data(given, root.parent)


def refusal(root: Path, **table: object) -> str:
    with pytest.raises(InputError) as caught:
        load(root, **table)
    return f"{caught.value} | {caught.value.hint}"


@pytest.fixture
def datasets() -> Any:
    return pytest.importorskip("datasets")


@pytest.fixture
def part(datasets) -> Callable[..., Any]:
    """Digits as a `Dataset` of images with classes."""

    def make(rows: range, names: list[str] = NAMES) -> Any:
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
        )
        images = [Image.fromarray(IMAGES[row]) for row in rows]
        columns = {"image": images, "label": [int(DIGITS.target[row]) for row in rows]}
        return datasets.Dataset.from_dict(columns, features=features)

    return make


@pytest.fixture
def saved(datasets, part, tmp_path) -> Path:
    """Train in two files, and validation."""
    parts = datasets.DatasetDict(train=part(range(100)), validation=part(range(100, 130)))
    parts.save_to_disk(tmp_path / "digits", num_shards={"train": 2, "validation": 1})
    return tmp_path / "digits"


def test_a_dict_of_parts_is_streamed_from_the_disk(saved) -> None:
    data = load(saved, stream=True, workers=0)
    assert data.labels == tuple(NAMES)
    assert (data.training_rows, len(data.test)) == (100, 30)
    assert isinstance(data.train.inputs, Streamed)
    assert torch.equal(data.test.x[0, 0], torch.from_numpy(IMAGES[100]).float() / 255)
    index = torch.tensor([70, 3])
    _, y = data.train.gather(index)
    assert y.tolist() == DIGITS.target[data.train.rows[index]].tolist()


def test_a_small_set_is_held_in_memory_with_the_same_samples(saved) -> None:
    held, streamed = load(saved), load(saved, stream=True, workers=0)
    assert isinstance(held.train.inputs, Held)
    assert torch.equal(held.train.x, streamed.train.x)
    assert torch.equal(held.train.y, streamed.train.y)


def test_one_data_set_gives_the_same_share_of_each_class_to_the_test(part, tmp_path) -> None:
    part(range(200)).save_to_disk(tmp_path / "digits")
    data = load(tmp_path / "digits", arguments={"test": 0.25})
    counts = np.bincount(DIGITS.target[:200])
    assert data.test.y.bincount().tolist() == np.round(counts * 0.25).astype(int).tolist()
    assert data.training_rows + len(data.test) == 200


def test_samples_without_a_label_are_not_held_back_for_the_test(datasets, part, tmp_path) -> None:
    whole = part(range(100)).to_dict()
    whole["label"] = [None if row % 2 else label for row, label in enumerate(whole["label"])]
    features = part(range(1)).features
    parts = datasets.DatasetDict(train=datasets.Dataset.from_dict(whole, features=features))
    parts.save_to_disk(tmp_path / "digits")
    data = load(tmp_path / "digits")
    assert int((data.test.y < 0).sum()) == 0
    assert int((data.train.y < 0).sum()) == 50


def test_labels_that_are_texts_are_classes_in_order(datasets, tmp_path) -> None:
    rows = {"x": np.arange(40.0).reshape(20, 2), "label": ["up", "down"] * 10}
    strange = {"x": [[0.0, 1.0]], "label": ["left"]}
    train, other = (datasets.Dataset.from_dict(each) for each in (rows, strange))
    datasets.DatasetDict(train=train, test=train).save_to_disk(tmp_path / "moves")
    data = load(tmp_path / "moves")
    assert data.labels == ("down", "up")
    assert data.test.y.tolist() == [1, 0] * 10
    datasets.DatasetDict(train=train, test=other).save_to_disk(tmp_path / "others")
    found = refusal(tmp_path / "others")
    assert "column 'label': label 'left' is not among the training labels" in found
    assert "allowed: down, up" in found


def test_images_with_transparency_or_a_palette_are_read_as_rgb(datasets, part, tmp_path) -> None:
    features = part(range(1)).features
    modes = ("RGB", "RGBA", "P")
    images = [Image.fromarray(IMAGES[row]).convert(modes[row % 3]) for row in range(40)]
    labels = [int(label) for label in DIGITS.target[:40]]
    columns = {"image": images, "label": labels}
    whole = datasets.Dataset.from_dict(columns, features=features)
    whole.save_to_disk(tmp_path / "digits")
    assert load(tmp_path / "digits").example.shape == (1, 3, 8, 8)


def test_a_format_that_was_saved_hides_no_column(datasets, part, tmp_path) -> None:
    parts = datasets.DatasetDict(
        train=part(range(100)).with_format("numpy", columns=["label"]), test=part(range(100, 120))
    )
    parts.save_to_disk(tmp_path / "digits")
    assert load(tmp_path / "digits").example.shape == (1, 1, 8, 8)


def test_reading_a_folder_opens_no_connection(saved, monkeypatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"a connection to {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    assert len(load(saved).test) == 30


def test_a_file_that_is_cut_off_is_named_even_between_two_batches(datasets, part, tmp_path) -> None:
    """Which Arrow would read as a shorter file."""
    part(range(1200)).save_to_disk(tmp_path / "digits")
    (file,) = (tmp_path / "digits").glob("*.arrow")
    whole = file.read_bytes()
    with pyarrow.memory_map(str(file)) as stream:
        pyarrow.ipc.open_stream(stream).read_next_batch()
        between = stream.tell()
    for size in (between, len(whole) // 2, 0):
        file.write_bytes(whole[:size])
        found = refusal(tmp_path / "digits")
        assert f"{file}: the file is cut off | copy it again, or save the set again" in found


def test_a_file_that_is_missing_is_named(saved) -> None:
    (saved / "validation" / "data-00000-of-00001.arrow").unlink()
    found = refusal(saved)
    assert "not a folder that datasets saved" in found
    assert "data-00000-of-00001.arrow" in found


def test_an_image_that_does_not_decode_is_named_by_its_sample(part, tmp_path) -> None:
    part(range(60)).save_to_disk(tmp_path / "digits")
    (file,) = (tmp_path / "digits").glob("*.arrow")
    content = bytearray(file.read_bytes())
    place = content.find(b"\x89PNG", len(content) // 2)
    content[place : place + 8] = bytes(8)
    file.write_bytes(content)
    broken = len(content[:place].split(b"\x89PNG")) - 1
    found = refusal(tmp_path / "digits")
    assert f"(row {broken}) can't be read: UnidentifiedImageError" in found


def test_a_set_whose_file_was_changed_has_another_identity(saved) -> None:
    first = load(saved, stream=True, workers=0).train.inputs.identity
    assert load(saved, stream=True, workers=0).train.inputs.identity == first
    file = saved / "train" / "data-00000-of-00002.arrow"
    file.write_bytes(file.read_bytes())
    assert load(saved, stream=True, workers=0).train.inputs.identity != first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"label": "labl"}, "no column 'labl' (allowed: image, label) | did you mean 'label'?"),
        ({"inputs": ["imge"]}, "no column 'imge' (allowed: image, label) | did you mean 'image'?"),
        (
            {"inputs": ["image", "label"]},
            "'label' is the label and an input | arguments.inputs = ['image']",
        ),
    ],
)
def test_columns_that_can_not_be_read_are_refused(saved, arguments, words) -> None:
    assert words in refusal(saved, arguments=arguments)


def test_parts_with_other_columns_or_classes_are_refused(datasets, part, tmp_path) -> None:
    train = part(range(100))
    other = part(range(100, 120), NAMES[::-1])
    datasets.DatasetDict(train=train, test=other).save_to_disk(tmp_path / "turned")
    found = refusal(tmp_path / "turned")
    assert "turned: test: column 'label' is ClassLabel(names=['9', '8'" in found
    assert "as in train" in found
    lacking = part(range(100, 120)).remove_columns("label")
    datasets.DatasetDict(train=train, test=lacking).save_to_disk(tmp_path / "lacking")
    assert "test: no column 'label', which train has" in refusal(tmp_path / "lacking")


def test_a_split_of_another_name_is_refused(datasets, part, tmp_path) -> None:
    parts = datasets.DatasetDict(train=part(range(100)), tset=part(range(100, 120)))
    parts.save_to_disk(tmp_path / "digits")
    found = refusal(tmp_path / "digits")
    assert "there is no split 'test', only train, tset (allowed: train, training, valid" in found
    assert "rename 'tset' and save again" in found
    datasets.DatasetDict(all=part(range(9))).save_to_disk(tmp_path / "whole")
    assert "there is no split 'train', only all" in refusal(tmp_path / "whole")


def test_a_text_beside_other_columns_is_refused(datasets, tmp_path) -> None:
    rows = {"text": ["a word", "two words"] * 20, "place": list(range(40)), "label": [0, 1] * 20}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "texts")
    found = refusal(tmp_path / "texts")
    assert "column 'text' is text (allowed: numbers, or one text for a tokenizer)" in found
    assert "arguments.inputs = ['text']" in found


def test_a_text_goes_through_the_tokenizer(datasets, tmp_path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.models.WordLevel({"[UNK]": 0, "good": 1, "bad": 2}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    rows = {"id": list(range(40)), "text": ["good", "bad bad"] * 20, "label": [1, 0] * 20}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "texts")
    steps = {"tokenizer": {"file": "tokenizer.json", "length": 3}}
    data = load(tmp_path / "texts", arguments={"inputs": ["text"]}, preprocess=steps)
    first = data.train.rows[:2].tolist()
    expected = [[1, 0, 0] if row % 2 == 0 else [2, 2, 0] for row in first]
    assert data.train.gather(torch.arange(2))[0]["input_ids"].tolist() == expected
    assert data.notes == ()
    short = {"tokenizer": {"file": "tokenizer.json", "length": 1}}
    data = load(tmp_path / "texts", arguments={"inputs": ["text"]}, preprocess=short)
    cut = "of {} texts are longer than 1 tokens, and are cut to that length"
    assert [note.split(" (")[0] for note in data.notes] == [
        f"train: 16 {cut.format(32)}", f"test: 4 {cut.format(8)}",
    ]  # fmt: skip


def test_another_folder_is_refused(datasets, tmp_path) -> None:
    assert "not a folder that datasets saved" in refusal(tmp_path)
    assert "nothing: no such folder" in refusal(tmp_path / "nothing")


def test_datasets_that_is_not_installed_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("edgekd.data.sets.datasets_folder.has_module", lambda name: False)
    assert refusal(tmp_path).endswith("| pip install 'edgekd[datasets]'")
