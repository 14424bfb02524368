"""The page on report.json names every field that the schema has, and its script runs."""

import json
import re

import pytest
from pages import ROOT, blocks_of

from edgekd.report.schema import SCHEMA_FILE

PAGE = ROOT / "docs/report-json.md"
SCHEMA = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
VALUES = {"Report": SCHEMA, **SCHEMA["$defs"]}


def fields_on_the_page(name: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {name}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    return [field for cell in cells for field in re.findall(r"`(\w+)`", cell)]


@pytest.mark.parametrize("name", VALUES)
def test_a_value_has_the_fields_of_the_schema(name):
    assert sorted(fields_on_the_page(name)) == sorted(VALUES[name]["properties"])


def test_the_script_prints_the_verdict_and_a_line_for_each_file_and_budget(
    tmp_path, monkeypatch, capsys
):
    judged = {"metric": "size_kb", "limit": 400, "value": 53.2, "verdict": "pass"}
    artifact = {
        "path": "artifacts/x86/model.onnx",
        "accuracy": 0.9972,
        "measurements": [{"metric": "latency_ms_p50", "value": 0.05}],
        "budgets": [judged],
    }
    report = {"schema": 1, "verdict": "pass", "targets": [{"artifacts": [artifact]}]}
    (tmp_path / "runs/first").mkdir(parents=True)
    (tmp_path / "runs/first/report.json").write_text(json.dumps(report))
    monkeypatch.chdir(tmp_path)
    (script,) = [block.text for block in blocks_of(PAGE) if block.language == "python"]
    exec(compile(script, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.splitlines() == [
        "pass",
        "artifacts/x86/model.onnx 0.9972 0.05",
        "   size_kb 400 53.2 pass",
    ]
