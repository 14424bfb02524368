import json
import os
import re
import stat
from pathlib import Path

import jsonschema
import pytest
from synthetic_report import synthetic_report

from edgekd.errors import InputError, ToolError
from edgekd.report.files import compare_runs, load_report, report_text, rounded, write_report
from edgekd.report.schema import SCHEMA_FILE, report_schema, schema_text


def test_what_is_written_is_read_back_and_written_again_to_the_byte(tmp_path: Path) -> None:
    json_path, page_path = write_report(synthetic_report(), tmp_path)
    first = json_path.read_text(encoding="utf-8"), page_path.read_text(encoding="utf-8")
    write_report(load_report(tmp_path), tmp_path)
    assert (json_path.read_text(encoding="utf-8"), page_path.read_text(encoding="utf-8")) == first
    assert first[0].endswith("}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert stat.S_IMODE(json_path.stat().st_mode) == 0o644


def test_the_shipped_schema_is_that_of_the_values() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text()
    jsonschema.Draft202012Validator.check_schema(report_schema())


def test_a_written_report_keeps_to_the_schema_and_a_broken_one_does_not() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text("utf-8")))
    table = json.loads(report_text(synthetic_report()))
    validator.validate(table)
    assert (table["schema"], table["verdict"]) == (1, "fail")
    table["targets"][0]["artifacts"][0]["budgets"][0]["verdict"] = "maybe"
    del table["teacher"]["macs"]
    paths = {tuple(error.path) for error in validator.iter_errors(table)}
    assert paths == {("teacher",), ("targets", 0, "artifacts", 0, "budgets", 0, "verdict")}


def test_the_parts_that_scripts_rely_on_are_there() -> None:
    table = json.loads(report_text(synthetic_report()))
    assert {"schema", "verdict", "seed", "versions", "teacher", "stages", "targets"} <= set(table)
    assert {"accuracy", "parameters", "macs", "bytes"} <= set(table["teacher"])
    stage = {"kind", "cached", "seconds", "accuracy", "parameters", "macs"}
    assert stage <= set(table["stages"][0])
    first = table["targets"][0]["artifacts"][0]
    assert {
        "path", "format", "runtime", "sha256", "bytes", "accuracy", "agreement_with_teacher",
        "parity", "measurements", "budgets",
    } <= set(first)  # fmt: skip
    assert {"reference", "max_lsb", "top1_agreement"} <= set(first["parity"])
    assert {"metric", "value", "kind", "device", "ci"} <= set(first["measurements"][0])
    assert {"metric", "limit", "value", "kind", "verdict"} <= set(first["budgets"][0])
    missing = table["targets"][2]["artifacts"][0]
    assert missing["accuracy"] is None
    assert missing["reasons"]["accuracy"] == "no Edge TPU is attached"


def test_floats_keep_six_digits_and_whole_numbers_all_of_theirs() -> None:
    tables = {"a": [0.123456789, 1234567, 1093608.0], "b": 1.23456789e-7}
    assert rounded(tables) == {"a": [0.123457, 1234567, 1093608.0], "b": 1.23457e-7}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a readable report: Expecting property name"),
        ("[1]", "not an edgekd report: it has no 'schema'"),
        ('{"schema": 2}', "unknown report schema 2 (allowed: 1)"),
        ('{"schema": 1, "verdict": "pass", "seed": 0}', "versions: required, but missing"),
    ],
)
def test_a_file_that_is_not_a_report_is_one_clear_error(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(InputError) as caught:
        load_report(tmp_path)
    assert message in str(caught.value)


def test_a_folder_without_a_report_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"report\.json: no such file") as caught:
        load_report(tmp_path)
    assert "edgekd compress" in caught.value.hint


def test_a_key_that_the_report_does_not_have_is_named(tmp_path: Path) -> None:
    table = json.loads(report_text(synthetic_report()))
    table["targets"][0]["artifacts"][0]["sha"] = "0"
    (tmp_path / "report.json").write_text(json.dumps(table))
    with pytest.raises(InputError, match="unknown key 'sha'"):
        load_report(tmp_path)


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="can't be written: No such file or directory"):
        write_report(synthetic_report(), tmp_path / "gone")


def test_a_write_that_fails_leaves_the_old_report_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.json").write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ToolError, match="can't be written: No space left on device"):
        write_report(synthetic_report(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").read_text() == "old"


def test_several_runs_are_compared_on_one_page(tmp_path: Path) -> None:
    for seed in ("seed-0", "seed-1"):
        (tmp_path / seed).mkdir()
        write_report(synthetic_report(name=seed), tmp_path / seed)
    out = compare_runs([tmp_path / "seed-0", tmp_path / "seed-1"], tmp_path / "compared.html")
    page = out.read_text(encoding="utf-8")
    assert "2 runs compared" in page
    assert page.count('<svg role="img"') == 2
    rows = re.findall(r'<th scope="row">(.*?)<small>', page)
    assert rows == ["seed-0"] * 5 + ["seed-1"] * 5
    with pytest.raises(InputError, match="the same run is given twice"):
        compare_runs([tmp_path / "seed-0"] * 2, tmp_path / "compared.html")
