import random
import struct

import pytest

from edgekd.errors import InputError
from edgekd.formats.tflite import read_tflite


def test_operators_tensors_and_constants_are_read(tflite_file):
    graph = read_tflite(tflite_file("HARD_SWISH"))
    assert [op.op for op in graph.ops] == ["CONV_2D", "HARD_SWISH", "RELU"]
    assert graph.parameter_bytes == 8 * 4 + 8 * 4
    source = graph.tensors[graph.inputs[0]]
    assert (source.shape, source.dtype, source.scales, source.zero_points) == (
        (1, 4, 4, 4), "int8", (0.5,), (-1,),
    )  # fmt: skip
    weight = graph.tensors[graph.ops[0].inputs[1]]
    assert weight.values is not None
    assert weight.values[:3].tolist() == [0, 1, 2]
    assert graph.ops[0].attributes["DilationHFactor"] == 1


def test_a_code_above_127_is_read_from_the_wide_field(tflite_file):
    """GELU is 150: the deprecated byte can't hold it and says 127."""
    assert read_tflite(tflite_file("GELU")).ops[1].op == "GELU"


def test_another_file_is_refused_by_its_identifier(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x08\x01" * 40)
    with pytest.raises(InputError, match="no 'TFL3' identifier"):
        read_tflite(path)


@pytest.mark.parametrize("found", ["missing", "empty", "folder"])
def test_a_file_that_is_not_there_is_one_clear_error(tmp_path, found):
    path = tmp_path / "model.tflite"
    if found == "empty":
        path.touch()
    if found == "folder":
        path.mkdir()
    with pytest.raises(InputError) as caught:
        read_tflite(path)
    assert caught.value.where == str(path)
    words = {"missing": "no such file", "empty": "the file is empty", "folder": "a folder"}
    assert words[found] in caught.value.message


def test_every_truncation_is_refused(tflite_file):
    path = tflite_file()
    content = path.read_bytes()
    for length in range(8, len(content) - 4, 7):
        path.write_bytes(content[:length])
        try:
            graph = read_tflite(path)
        except InputError:
            continue
        else:  # only padding and what nobody refers to may be cut off
            assert [op.op for op in graph.ops] == ["CONV_2D", "RELU"]
            assert length > len(content) * 0.9


def test_mutations_end_in_an_input_error_or_in_a_graph(tflite_file):
    path = tflite_file("MEAN")
    content = path.read_bytes()
    dice = random.Random(1)
    refused = 0
    for _ in range(500):
        mutant = bytearray(content)
        for _ in range(dice.choice([1, 3, 20])):
            mutant[dice.randrange(8, len(mutant))] = dice.randrange(256)
        path.write_bytes(mutant)
        try:
            read_tflite(path)
        except InputError:
            refused += 1
    assert refused > 100


def test_a_vector_that_claims_four_thousand_million_elements_is_refused_at_once(tflite_file):
    path = tflite_file()
    content = bytearray(path.read_bytes())
    at = content.index(struct.pack("<I4i", 4, 1, 4, 4, 4))  # the input's shape: length, then sizes
    content[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(InputError, match="truncated or corrupt"):
        read_tflite(path)


@pytest.mark.parametrize("end", ["inputs", "outputs"])
def test_an_input_or_output_that_is_left_out_is_refused(end, tflite_file):
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    path = tflite_file()
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    setattr(model.subgraphs[0], end, [-1])
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    with pytest.raises(InputError, match="an input or output is missing"):
        read_tflite(path)
