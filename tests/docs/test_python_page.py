"""The page on the Python API: its code runs, in its order, and it names what the package has."""

import re

import pytest
from pages import ROOT, blocks_of

import edgekd

PAGE = ROOT / "docs/python-api.md"
TEXT = PAGE.read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs/reference.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_code_of_the_page_runs_in_its_order(shell):
    folder, run = shell
    printed = []
    for number, block in enumerate(blocks_of(PAGE)):
        name = block.title or f"block_{number}.py"
        (folder / name).write_text(block.text, encoding="utf-8")
        printed.append(run(f"python {name}"))
    assert printed[0].startswith("pass\n")
    assert "artifacts/x86/model.tflite int8" in printed[0]
    assert "x86: 1. distill" in printed[1]
    assert "latency_ms_p90 5.0 pass" in printed[2]
    assert "QuantizeLinear" in printed[3]
    assert printed[4].startswith("Raspberry Pi 5 ")
    assert "unknown target 'x87'" in printed[5]
    assert "did you mean 'x86'?" in printed[5]


def test_every_public_name_is_on_the_page_or_in_the_reference():
    named = set(re.findall(r"edgekd\.(\w+)", TEXT)) | set(re.findall(r"\.(\w+)$", REFERENCE, re.M))
    named |= {
        name for names in re.findall(r"members: \[(.*)\]", REFERENCE) for name in names.split(", ")
    }
    assert set(edgekd.__all__) - named == {"__version__"}
