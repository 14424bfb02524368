import hashlib
from pathlib import Path

import pytest

from edgekd.values.artifact import Artifact

MODEL = Artifact(
    path=Path("model.tflite"),
    format="tflite",
    runtime="litert",
    precision="int8",
    target="a board",
    sha256="0" * 64,
    bytes=7,
    inputs=(),
    outputs=(),
    lineage=("quantized",),
    notes=("one float island",),
)


def test_what_a_tool_made_has_its_own_bytes_and_one_more_line_of_lineage(tmp_path):
    made = tmp_path / "model_vela.tflite"
    made.write_bytes(b"commands")
    compiled = MODEL.derived(made, "compiled by Vela", format="vela")
    assert (compiled.path, compiled.bytes) == (made, 8)
    assert compiled.sha256 == hashlib.sha256(b"commands").hexdigest()
    assert compiled.lineage == ("quantized", "compiled by Vela")
    assert (compiled.format, compiled.runtime) == ("vela", "litert")
    assert compiled.notes == MODEL.notes


def test_a_packed_file_keeps_the_lineage_of_what_it_holds(tmp_path):
    made = tmp_path / "model.onnx.huffman"
    made.write_bytes(b"codes")
    assert MODEL.derived(made).lineage == MODEL.lineage


@pytest.mark.filterwarnings("error")
def test_counts_among_the_facts_are_written_without_a_warning(tmp_path):
    made = tmp_path / "model_edgetpu.tflite"
    made.write_bytes(b"commands")
    table = MODEL.derived(made, facts={"compiled_ops": 3}).model_dump(mode="json")
    assert table["facts"] == {"compiled_ops": 3.0}
