"""Tables: scikit-learn's digits as CSV and Parquet, and texts through a tokenizer."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from edgekd.data import Data, load_data
from edgekd.errors import InputError
from edgekd.values.recipe import DataTable

DIGITS = load_digits()


def write_csv(path: Path, columns: dict[str, list[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def digit_columns(count: int) -> dict[str, list[object]]:
    pixels = {f"p{n}": DIGITS.data[:count, n].tolist() for n in range(64)}
    return {**pixels, "digit": DIGITS.target[:count].tolist()}


def load(path: Path, preprocess: dict[str, object] | None = None, **arguments: object) -> Data:
    table = DataTable(
        source="table", path=path.name, arguments=arguments, preprocess=preprocess or {}
    )
    return load_data(table, path.parent)


def test_columns_that_match_are_one_input(tmp_path) -> None:
    path = write_csv(tmp_path / "digits.csv", digit_columns(200))
    data = load(path, label="digit", inputs={"pixels": "p*"})
    assert [len(part) for part in (data.train, data.validation, data.test)] == [140, 20, 40]
    assert data.example.shape == (1, 64)
    assert torch.equal(data.train.x[0], torch.tensor(DIGITS.data[0], dtype=torch.float32))
    assert data.classes == 10


def test_a_folder_has_a_table_for_each_part(tmp_path) -> None:
    for part, count in (("train", 100), ("test", 30)):
        write_csv(tmp_path / "set" / f"{part}.csv", digit_columns(count))
    data = load(tmp_path / "set", label="digit", inputs={"x": "p*"}, test=0.5)
    assert (data.training_rows, len(data.test)) == (100, 30)


@pytest.mark.parametrize("classes", [lambda n: n % 3, lambda n: "abc"[n % 3]])
def test_rows_without_a_label_are_for_training_and_the_rest_are_split(tmp_path, classes) -> None:
    labels = ["" if number % 10 == 7 else classes(number) for number in range(60)]
    path = write_csv(tmp_path / "set.csv", {"a": list(range(60)), "label": labels})
    data = load(path)
    assert data.unlabelled == 6
    assert data.classes == 3
    assert bool((data.test.y >= 0).all())
    assert 7 not in data.test.x["a"].flatten() % 10


def test_a_gap_among_the_numbers_is_named_by_its_column_and_row(tmp_path) -> None:
    numbers = [0.5 * number for number in range(40)]
    columns = {"a": list(numbers), "b": list(numbers), "label": [n % 2 for n in range(40)]}
    columns["b"][19] = ""
    path = write_csv(tmp_path / "set.csv", columns)
    with pytest.raises(InputError) as caught:
        load(path)
    assert caught.value.message == "column 'b' has no finite number in row 20"
    assert "after the header" in caught.value.hint
    assert len(load(path, inputs=["a"]).test) == 8  # nobody reads the gap


COLUMNS: dict[str, list[object]] = {
    "city": [3, 1, 2, 2] * 5,
    "age": [0.5, 1.5, 2.5, 3.5] * 5,
    "member": [True, False, True, True] * 5,
    "label": ["yes", "no", "no", "yes"] * 5,
}


def write_jsonl(path: Path, columns: dict[str, list[object]]) -> Path:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_column_is_an_input_of_its_type_and_texts_are_classes(tmp_path) -> None:
    data = load(write_jsonl(tmp_path / "set.jsonl", COLUMNS))
    assert data.labels == ("no", "yes")
    x = data.train.x
    assert {name: leaf.dtype for name, leaf in x.items()} == {
        "city": torch.int64, "age": torch.float32, "member": torch.bool,
    }  # fmt: skip
    assert x["city"].shape == (len(data.train),)


def test_a_parquet_table_is_that_of_the_csv(tmp_path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = digit_columns(100)
    parquet.write_table(pyarrow.table(columns), tmp_path / "digits.parquet")
    of_csv = load(write_csv(tmp_path / "digits.csv", columns), label="digit", inputs={"x": "p*"})
    data = load(tmp_path / "digits.parquet", label="digit", inputs={"x": "p*"})
    assert torch.equal(data.train.x, of_csv.train.x)
    (tmp_path / "digits.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="not a complete Parquet file"):
        load(tmp_path / "digits.parquet", label="digit")


def test_parquet_without_pyarrow_names_the_package(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("edgekd.data.tables.has_module", lambda name: False)
    (tmp_path / "set.parquet").touch()
    with pytest.raises(InputError) as caught:
        load(tmp_path / "set.parquet")
    assert caught.value.hint == "pip install 'edgekd[tables]'"


def test_real_numbers_are_targets_of_a_regression(tmp_path) -> None:
    columns = {"a": [0.1, 0.2] * 10, "b": [1.0, 2.0] * 10, "u": [0.5] * 20, "v": [1.5] * 20}
    path = write_csv(tmp_path / "set.csv", columns)
    table = DataTable(
        source="table", path="set.csv", task="regression",
        arguments={"label": ["u", "v"], "inputs": {"x": ["a", "b"]}},
    )  # fmt: skip
    data = load_data(table, path.parent)
    assert data.train.y[0].tolist() == [0.5, 1.5]
    assert data.train.x.shape[1:] == (2,)


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "[PAD]": 1, "good": 2, "bad": 3, "film": 4}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


SENTENCES = {"text": ["good film", "bad film indeed yes"] * 10, "label": [1, 0] * 10}


def test_texts_go_through_the_tokenizer_of_the_recipe(tmp_path, tokenizer) -> None:
    path = write_csv(tmp_path / "films.csv", SENTENCES)
    data = load(path, {"tokenizer": {"file": tokenizer.name, "length": 3}})
    good = int((data.train.y == 1).nonzero()[0])
    assert data.train.x["input_ids"][good].tolist() == [2, 4, 0]
    assert data.train.x["attention_mask"][good].tolist() == [1, 1, 0]
    assert data.train.x["input_ids"][1 - good].tolist() == [3, 4, 0]
    assert data.train.x["attention_mask"].dtype == torch.int64


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), ("{}", "not a tokenizer.json")]
)
def test_a_tokenizer_that_is_not_there_is_refused(tmp_path, content, message) -> None:
    pytest.importorskip("tokenizers")
    path = write_csv(tmp_path / "films.csv", SENTENCES)
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load(path, {"tokenizer": {"file": "tokenizer.json", "length": 3}})


@pytest.mark.parametrize(
    ("name", "text", "arguments", "message"),
    [
        ("a.csv", "x,label\n1,0\n2\n", {}, "line 3 has 1 fields, but the header has 2"),
        ("a.csv", "", {}, "the table has no rows"),
        ("a.csv", "x,label\n", {}, "the table has no rows"),
        ("a.csv", "x,y,label\n1,2,0\n1,2,1\n", {"inputs": ["z"]}, "no column 'z'"),
        ("a.csv", "x,y\n1,2\n1,2\n", {}, "no column 'label'"),
        ("a.jsonl", '{"a": 1}\n{"b": 1}\n', {}, "line 2 has other keys"),
        ("a.jsonl", '{"a": 1\n', {}, "line 1 is not JSON"),
        ("a.txt", "a", {}, "not a table"),
        ("a.csv", "x,t,label\n1,a,0\n1,b,1\n2,c,0\n2,d,1\n", {}, "column 't' is text"),
        ("a.csv", "x,y,label\n,1,0\n2,1,1\n2,1,1\n2,1,0\n", {}, "no finite number in row 1"),
    ],
)
def test_a_table_that_is_wrong_is_refused(tmp_path, name, text, arguments, message) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        load(tmp_path / name, **arguments)


def test_numbers_with_gaps_stay_numbers(tmp_path) -> None:
    from edgekd.data.tables import read_table

    path = write_csv(tmp_path / "a.csv", {"a": [1, "", 3], "b": ["x", "", "y"]})
    table = read_table(path)
    assert np.isnan(table["a"][1])
    assert table["b"].tolist() == ["x", None, "y"]
