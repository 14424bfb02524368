"""The page on data: its example runs as written, and its tables are those of the code."""

import json
import re

import pytest
from pages import ROOT, blocks_of, commands_of

from edgekd.data.sets import SETS
from edgekd.values.preprocess import Preprocess

PAGE = ROOT / "docs/data.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_runs_as_written(shell):
    folder, run = shell
    for block in blocks_of(PAGE):
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
    printed = [run(f"{line} 2>&1", codes=(0, 1, 4)) for line in commands_of(PAGE)]
    assert "data: train is streamed (new random draws in each epoch" in printed[1]
    report = json.loads((folder / "runs/photographs/report.json").read_text(encoding="utf-8"))
    (artifact,) = report["targets"][0]["artifacts"]
    assert artifact["parity"]["verdict"] == "pass"
    assert artifact["accuracy"] > 0.8
    assert "parity verified over 32 samples" in run("edgekd verify runs/photographs 2>&1")
    lines = [line for line in TEXT.splitlines() if line.startswith("data: train is streamed")]
    assert len(lines) == 1


def test_every_step_of_preprocessing_stands_in_the_table():
    section = TEXT.split("## Preprocessing")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(
        Preprocess.model_fields
    )


def test_every_reader_stands_in_the_table():
    readers = {name for name in SETS.names() if "path" in SETS.get(name).parameters}
    assert readers
    for name in readers:
        assert f'`"{name}"`' in TEXT


def test_the_memory_of_an_epoch_is_the_measured_one():
    path = max((ROOT / "benchmarks/streaming").glob("rate_and_memory.*.json"))
    memory = json.loads(path.read_text(encoding="utf-8"))["memory"]
    assert memory["set_gb"] == 20.0
    assert memory["growth_second_half_mb"] < 20
    assert f"stayed below\n{max(memory['during_mb']):.0f} MB" in TEXT
