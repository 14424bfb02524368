"""The arena of TensorFlow Lite Micro, in which its own kernels crash where it is too small."""

from pathlib import Path

import numpy as np
import pytest
from tflite_files import O, T, integers, tflite

from edgekd.firmware import micro_runs
from edgekd.firmware.arena import measure_arena
from edgekd.firmware.micro_runs import Run, smallest_arena

pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")


def dense(width: int) -> bytes:
    """A fully connected layer with a scale for each output: the runtime takes memory for all those
    scales while it prepares the layer, and gives it back."""
    weights = np.random.default_rng(0).integers(-9, 10, (width, 8))
    scales = [0.01 + 0.0001 * n for n in range(width)]
    tensors = [T((1, 8), 0.05), T(weights.shape, scales, 0, weights), integers([0] * width),
               T((1, width), 0.1)]  # fmt: skip
    ops = [O("FULLY_CONNECTED", [0, 1, 2], [3], {}, "FullyConnectedOptions")]
    return tflite(tensors, ops, [0], [3])


def convolved(channels: int) -> bytes:
    """Two convolutions: their kernels end the process if they get no memory for their channels."""
    weights = [np.full((channels, 1, 1, inputs), 3, np.int8) for inputs in (4, channels)]
    scales = [0.01] * channels
    tensors = [
        T((1, 4, 4, 4), 0.05),
        T(weights[0].shape, scales, 0, weights[0]),
        integers([5] * channels),
        T((1, 4, 4, channels), 0.1),
        T(weights[1].shape, scales, 0, weights[1]),
        integers([7] * channels),
        T((1, 4, 4, channels), 0.2),
    ]
    options = {"strideH": 1, "strideW": 1, "padding": 0}
    ops = [
        O("CONV_2D", [0, 1, 2], [3], options, "Conv2DOptions"),
        O("CONV_2D", [3, 4, 5], [6], options, "Conv2DOptions"),
    ]
    return tflite(tensors, ops, [0], [6])


@pytest.mark.parametrize("content", [dense(64), dense(640), convolved(64)], ids=["64", "640", "c"])
def test_it_runs_in_the_reported_arena_but_not_in_16_bytes_less(content: bytes) -> None:
    arena, counted = smallest_arena(content)
    assert arena >= counted
    large = micro_runs.run(content, 1 << 20)
    assert micro_runs.run(content, arena) == large
    assert isinstance(micro_runs.run(content, arena - 16), str)


def test_memory_that_is_given_back_while_preparing_is_part_of_the_arena() -> None:
    """Scales and zero points of 640 outputs take some 5 KB for a while."""
    arena, counted = smallest_arena(dense(640))
    assert arena > counted + 1024


def test_a_crash_of_the_runtime_is_an_answer_and_ends_nothing_else() -> None:
    content = convolved(64)
    arena, _ = smallest_arena(content)
    told = [micro_runs.run(content, size) for size in range(1024, arena, 128)]
    assert all(isinstance(one, str) for one in told)
    assert any("killed by signal 11" in str(one) for one in told), (
        "no size crashed, so this test shows nothing"
    )


def test_a_run_whose_outputs_differ_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below 500 bytes it fails, below 800 it computes something else."""

    def run(content: bytes, size: int) -> Run | str:
        if size < 500:
            return "too small"
        return Run(300, "right" if size >= 800 else "wrong")

    monkeypatch.setattr(micro_runs, "run", run)
    assert smallest_arena(b"") == (800, 300)


def test_a_model_that_the_runtime_refuses_leaves_its_words(
    tflite_file: object, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="failed to allocate tensors"):
        smallest_arena(tflite([T((1, 8)), T((1, 8))], [O("RELU_N1_TO_1", [0], [1])], [0], [1]))
    path = tmp_path / "m.tflite"
    path.write_bytes(tflite([T((1, 8)), T((1, 8))], [O("RELU_N1_TO_1", [0], [1])], [0], [1]))
    found = measure_arena(path)
    assert (found.kind, found.value) == ("unavailable", None)
    assert "tflite-micro failed (exit status 1)" in found.reason


def test_what_is_measured_has_the_allocators_count_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(dense(64))
    found = measure_arena(path)
    assert (found.kind, found.reason) == ("measured", "")
    arena, counted = smallest_arena(dense(64))
    assert found.value == arena
    assert found.conditions["counted_by_its_allocator"] == str(counted)
