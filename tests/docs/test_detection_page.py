"""The page on detection: its example runs as written, down to the mean average precision."""

import json

import pytest
from pages import ROOT, blocks_of, commands_of

from edgekd.installed import has_module

PAGE = ROOT / "docs/detection.md"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_example_runs_as_written(shell):
    folder, run = shell
    for block in blocks_of(PAGE):
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
    yolo = has_module("ultralytics")
    for line in commands_of(PAGE):
        if line.startswith("pip ") or ("yolo" in line and not yolo):
            continue
        run(f"{line} 2>&1", codes=(0, 1, 4))
    report = json.loads((folder / "runs/detection/report.json").read_text(encoding="utf-8"))
    artifacts = report["targets"][0]["artifacts"]
    assert {each["format"] for each in artifacts} == {"onnx", "tflite"}
    for artifact in artifacts:
        assert artifact["parity"]["verdict"] == "pass"
        assert set(artifact["parity"]["outputs"]) == {"stride8", "stride16"}
        assert artifact["accuracy"] > 0.3
