"""The tutorial, from a checkpoint and a folder of images to the int8 file, as it is written."""

import json

import pytest
from pages import ROOT, blocks_of, commands_of

PAGE = ROOT / "docs/your-own-model.md"


@pytest.mark.slow
@pytest.mark.backend("tflite")
def test_the_tutorial_runs_as_written_and_ends_with_an_int8_file_that_keeps_its_budgets(shell):
    folder, run = shell
    for block in blocks_of(PAGE):
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
    printed = {line: run(line) for line in commands_of(PAGE) if not line.startswith("pip install")}
    assert printed["python predict.py images/test/zero/0000.png"] == "zero\n"
    report = json.loads((folder / "runs/digits/report.json").read_text(encoding="utf-8"))
    assert report["verdict"] == "pass"
    assert report["data"]["metric"] == "top-1"
    assert report["teacher"]["accuracy"] > 0.9
    int8 = [each for each in report["targets"][0]["artifacts"] if each["precision"] == "int8"]
    assert {each["format"] for each in int8} == {"onnx", "tflite"}
    for artifact in int8:
        assert (folder / "runs/digits" / artifact["path"]).stat().st_size == artifact["bytes"]
        assert artifact["accuracy"] > 0.9
        assert artifact["parity"]["verdict"] == "pass"


def test_every_file_that_the_tutorial_uses_is_on_its_page():
    titles = [block.title for block in blocks_of(PAGE) if block.title]
    recipe = next(block.text for block in blocks_of(PAGE) if block.title == "recipe.toml")
    assert "net:classifier" in recipe
    assert "folder_data:folders" in recipe
    assert {"net.py", "folder_data.py", "recipe.toml"} <= set(titles)
    for title in titles:
        if title.endswith(".py"):
            text = next(block.text for block in blocks_of(PAGE) if block.title == title)
            compile(text, title, "exec")
