import numpy as np
import pytest
from tflite_files import G, O, T, tflite_of

from edgekd.errors import InputError
from edgekd.firmware.facts import Facts
from edgekd.firmware.stored_facts import facts_in
from edgekd.formats.tflite import read_tflite
from edgekd.formats.tflite_metadata import read_metadata, unpacked, with_metadata, with_names

FACTS = {"name": "Käse ☃", "version": "1.2", "licence": 'MIT "x"\n', "accuracy_percent": 98.25}


@pytest.fixture
def stored(tflite_file):
    def store(facts):
        path = tflite_file()
        path.write_bytes(with_metadata(path.read_bytes(), facts))
        return path

    return store


def test_what_is_written_is_read_back(stored, tflite_file):
    assert read_metadata(tflite_file()) == {}
    path = stored(FACTS)
    assert read_metadata(path) == FACTS
    path.write_bytes(with_metadata(path.read_bytes(), {"name": "other"}))
    assert read_metadata(path) == {"name": "other"}


def test_the_network_is_the_same_as_before(stored, tflite_file):
    before, after = read_tflite(tflite_file("TANH")), None
    path = tflite_file("TANH")
    path.write_bytes(with_metadata(path.read_bytes(), FACTS))
    after = read_tflite(path)
    assert after.ops == before.ops
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    for key, tensor in before.tensors.items():
        other = after.tensors[key]
        assert (tensor.name, tensor.shape, tensor.dtype) == (other.name, other.shape, other.dtype)
        assert (tensor.scales, tensor.zero_points) == (other.scales, other.zero_points)
        assert np.array_equal(tensor.values, other.values)


def test_the_same_facts_give_the_same_bytes_in_any_order(tflite_file):
    content = tflite_file().read_bytes()
    other = dict(reversed(FACTS.items()))
    assert with_metadata(content, FACTS) == with_metadata(content, other)


def test_constants_stay_aligned_for_vector_loads(stored):
    from ai_edge_litert import schema_py_generated as schema

    path = stored({"name": "x" * 77})
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    places = []
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            places.append(buffer._tab.Vector(buffer._tab.Offset(4)))
    assert len(places) == 3  # weights, bias, facts
    assert [place % 16 for place in places] == [0, 0, 0]


def test_litert_runs_it_and_gives_the_same_numbers(stored, tflite_file):
    from ai_edge_litert.interpreter import Interpreter

    outputs = []
    for path in (stored(FACTS), tflite_file()):
        interpreter = Interpreter(model_content=path.read_bytes())
        interpreter.allocate_tensors()
        x = np.arange(64, dtype=np.int8).reshape(1, 4, 4, 4)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    assert np.array_equal(*outputs)


def test_facts_reach_the_c_header(stored):
    assert facts_in(stored(FACTS)) == Facts(
        name="Käse ☃", version="1.2", licence='MIT "x"\n', accuracy_percent=98.25
    )
    assert facts_in(stored({"labels": ["a", "b"]})).labels == ("a", "b")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"nmae": "x"}, "unknown key 'nmae'"),
        ({"name": 5}, "valid string"),
        ({"accuracy_percent": "high"}, "valid number"),
    ],
)
def test_facts_of_another_kind_are_refused(stored, facts, words):
    with pytest.raises(InputError, match=words):
        facts_in(stored(facts))


@pytest.mark.parametrize("text", [b"[1]", b"{", b"\xff\xfe", b" " * (1 << 20) + b"{}"])
def test_a_damaged_entry_is_one_error(stored, text):
    path = stored({"k": "v"})
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    model.buffers[model.metadata[0].buffer].data = np.frombuffer(text, np.uint8)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    with pytest.raises(InputError, match="its metadata 'edgekd' is damaged"):
        read_metadata(path)


def test_names_reach_the_tensors_and_the_signature(tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    tensors = [T((1, 4), 0.5), T((1, 4), 0.5), T((1, 4), 0.5), T((1, 4), 0.5)]
    ops = [O("ADD", [0, 1], [2], {}, "AddOptions"), O("RELU", [2], [3])]
    content = tflite_of([G(tensors, ops, [0, 1], [2, 3], "serve")])
    path = tmp_path / "m.tflite"
    path.write_bytes(with_names(content, ["ids", "mask"], ["maps.0", "maps.1"]))
    graph = read_tflite(path)
    assert [graph.tensors[key].name for key in graph.inputs] == ["ids", "mask"]
    interpreter = Interpreter(model_path=str(path))
    assert interpreter.get_signature_list() == {
        "serve": {"inputs": ["ids", "mask"], "outputs": ["maps.0", "maps.1"]}
    }
    one = np.array([[1, 2, 3, -100]], np.int8)
    found = interpreter.get_signature_runner("serve")(ids=one, mask=one)
    assert found["maps.0"].tolist() == [[2, 4, 6, -128]]
    assert found["maps.1"].tolist() == [[2, 4, 6, 0]]
    with pytest.raises(ValueError, match="argument"):
        with_names(content, ["ids"], ["a", "b"])


def test_constants_after_the_flatbuffer_are_taken_into_it(tflite_file):
    """As ai-edge-quantizer writes them."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    path = tflite_file()
    content = path.read_bytes()
    before = [t.values for t in read_tflite(path).tensors.values() if t.values is not None]
    model = unpacked(content)
    place, kept = next((n, b.data) for n, b in enumerate(model.buffers) if b.data is not None)
    stored = np.asarray(kept, np.uint8).tobytes()
    buffer = schema.BufferT()
    buffer.offset, buffer.size = 1 << 16, len(stored)
    model.buffers[place] = buffer
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()).ljust(1 << 16, b"\0") + stored)
    path.write_bytes(with_metadata(path.read_bytes(), FACTS))
    after = [t.values for t in read_tflite(path).tensors.values() if t.values is not None]
    assert len(before) == len(after)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
