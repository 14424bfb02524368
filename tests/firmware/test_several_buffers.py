"""Generated C with several inputs and outputs: indices, a state that goes in and out, and names."""

from pathlib import Path

import numpy as np
import pytest
from tflite_files import O, T, tflite

from edgekd.devices.cortex_m import open_cortex_m
from edgekd.errors import InputError
from edgekd.firmware import emulation, hosted
from edgekd.firmware.generate import generate
from edgekd.firmware.render import by_label
from edgekd.firmware.tflm import micro_sources
from edgekd.values.artifact import Artifact, TensorInfo, sha256_of
from edgekd.values.measurement import unavailable

TABLE = np.random.default_rng(0).integers(-128, 128, (10, 8))
GRID, SUM = (0.05, 3), (0.1, -5)


def content(rows: int = 10, kind: str = "int32") -> bytes:
    """Rows by `ids` plus `state`: the sum is the next state, and its positive part an output."""
    tensors = [
        T((1, 4), (), dtype=kind, name="serving_default_ids:0"),
        T((1, 4, 8), *SUM, name="serving_default_state:0"),
        T((rows, 8), *GRID, values=TABLE[:rows]),
        T((1, 4, 8), *GRID),
        T((1, 4, 8), *SUM, name="next.state"),
        T((1, 4, 8), *SUM, name="positive"),
    ]
    ops = [
        O("GATHER", [2, 0], [3], {"axis": 0}, "GatherOptions"),
        O("ADD", [3, 1], [4], {}, "AddOptions"),
        O("RELU", [4], [5]),
    ]
    return tflite(tensors, ops, [0, 1], [4, 5])


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    (tmp_path / "net.tflite").write_bytes(content())
    return generate(tmp_path / "net.tflite").write(tmp_path)[1]


@pytest.fixture
def artifact(generated: Path) -> Artifact:
    def info(name: str, dtype: str, grid: tuple[float, int] | None, *shape: int) -> TensorInfo:
        scale, zero = grid or (None, None)
        return TensorInfo(
            name=name, shape=(1, 4, *shape), dtype=dtype, scale=scale, zero_point=zero
        )

    return Artifact(
        path=generated, format="c", runtime="c", precision="int8", target="cortex-m4",
        sha256=sha256_of(generated), bytes=1,
        inputs=(info("ids", "int64", None), info("state", "int8", SUM, 8)),
        outputs=(info("next", "int8", SUM, 8), info("positive", "int8", SUM, 8)),
    )  # fmt: skip


def by_litert(folder: Path, ids: np.ndarray, state: np.ndarray) -> list[np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(folder / "net.tflite"),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    entries, exits = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for i, s in zip(ids, state, strict=True):
        interpreter.set_tensor(entries[0]["index"], i[None].astype(np.int32))
        interpreter.set_tensor(entries[1]["index"], s[None])
        interpreter.invoke()
        rows.append([interpreter.get_tensor(each["index"])[0] for each in exits])
    return [np.stack(each) for each in zip(*rows, strict=True)]


def samples(count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    return draw.integers(0, 10, (count, 4)), draw.integers(-128, 128, (count, 4, 8)).astype(np.int8)


def test_every_output_is_that_of_litert(generated: Path, tmp_path: Path) -> None:
    ids, state = samples()
    taken = [ids.astype(np.int32).view(np.int8).reshape(20, -1), state.reshape(20, -1)]
    program = hosted.build(generated, tmp_path, ("-O1", *hosted.SANITIZERS))
    found = hosted.run(program, np.concatenate(taken, axis=1))
    following, positive = by_litert(tmp_path, ids, state)
    np.testing.assert_array_equal(found[:, :32].reshape(20, 4, 8), following)
    np.testing.assert_array_equal(found[:, 32:].reshape(20, 4, 8), positive)


def test_an_index_outside_the_table_reads_its_nearest_row(generated: Path, tmp_path: Path) -> None:
    ids = np.array([[-7, 0, 9, 2**31 - 1]], np.int32)
    state = np.full((1, 32), SUM[1], np.int8)  # zero
    program = hosted.build(generated, tmp_path, ("-O1", *hosted.SANITIZERS))
    found = hosted.run(program, np.concatenate([ids.view(np.int8).reshape(1, -1), state], axis=1))
    rows = found[0, :32].reshape(4, 8)
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[2], rows[3])
    assert not np.array_equal(rows[0], rows[3])


def test_the_header_names_each_buffer_with_its_scale(generated: Path) -> None:
    header = generated.with_suffix(".h").read_text()
    for line in (
        "#define NET_INPUT_IDS_BYTES 16",
        "#define NET_INPUT_STATE_SCALE 0.1",
        "#define NET_INPUT_STATE_ZERO_POINT (-5)",
        "#define NET_OUTPUT_NEXT_STATE_BYTES 32",
        "#define NET_INPUT_COUNT 2",
        "#define NET_INPUT_SIZES {16, 32}",
        "static inline int32_t *net_input_ids(int8_t *arena)",
        "static inline int8_t *net_output_positive(int8_t *arena)",
    ):
        assert line in header, line
    assert "NET_INPUT_IDS_SCALE" not in header


def test_the_micro_runtimes_header_has_the_same_names(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(content())
    arena = unavailable("arena", "not measured", device="host")
    made = micro_sources(tmp_path / "net.tflite", arena)
    assert "#define NET_INPUT_IDS_TYPE_INT32 1" in made.header
    assert "#define NET_OUTPUT_NEXT_STATE_SCALE 0.1" in made.header
    assert "AddGather" in made.resolver


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["a"], ["INPUT"]),
        (["ids", "mask"], ["INPUT_IDS", "INPUT_MASK"]),
        (["a.b", "a b"], ["INPUT0", "INPUT1"]),
        (['";/*', "x"], ["INPUT0", "INPUT1"]),
        (["x" * 40, "y"], ["INPUT0", "INPUT1"]),
        (["StatefulPartitionedCall:1", "StatefulPartitionedCall:0"], ["INPUT0", "INPUT1"]),
    ],
)
def test_names_become_labels_only_where_they_differ(names: list[str], labels: list[str]) -> None:
    assert list(by_label("INPUT", [T((1,), name=name) for name in names])) == labels


@pytest.mark.slow
@pytest.mark.skipif(bool(emulation.missing_tools()), reason="no emulated Cortex-M here")
def test_an_emulated_processor_takes_and_gives_all_of_them(artifact, tmp_path: Path) -> None:
    ids, state = samples()
    device = open_cortex_m("cortex-m4")
    try:
        floats = (state.astype(np.float32) - SUM[1]) * np.float32(SUM[0])
        following, positive = device.infer(artifact, [ids, floats], {})
    finally:
        device.close()
    for found, expected in zip((following, positive), by_litert(tmp_path, ids, state), strict=True):
        np.testing.assert_allclose(found, (expected.astype(np.float32) - SUM[1]) * 0.1, atol=1e-6)


def test_inputs_that_generated_c_does_not_take_are_refused(artifact: Artifact) -> None:
    from edgekd.devices.cortex_m import _bytes_of

    ids, state = samples(2)
    with pytest.raises(InputError, match=r"it takes 2 inputs \(ids, state\)"):
        _bytes_of([ids], artifact)
    with pytest.raises(InputError, match="takes int32, but got 4294967296"):
        _bytes_of([np.full((2, 4), 2**32), state], artifact)


def test_indices_of_another_type_than_int32_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(content(kind="int64"))
    with pytest.raises(InputError, match="tensor 0 is int64"):
        generate(tmp_path / "net.tflite")
