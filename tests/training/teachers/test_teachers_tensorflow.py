"""Keras, SavedModel and TFLite teachers, made here with TensorFlow: one import of it for all."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.data import Data, load_data
from edgekd.errors import InputError
from edgekd.training.teachers import load_teacher
from edgekd.values.recipe import DataTable, Network

pytestmark = [pytest.mark.slow, pytest.mark.backend("tflite")]

SHAPES = {"last": (8, 8, 1), "plain": (8, 8), "flat": (64,)}


@pytest.fixture(scope="module")
def tf() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def data() -> Data:
    torch.set_num_threads(1)
    return load_data(DataTable(), Path())


@pytest.fixture(scope="module")
def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(64, 10).requires_grad_(False)


def model(
    tf: Any, linear: nn.Linear, shape: tuple[int, ...], *more: Any, batch: int | None = None
) -> Any:
    """A Keras model of flatten and W x + b: one channel, so every layout flattens alike."""
    dense = tf.keras.layers.Dense(10)
    layers = [tf.keras.Input(shape, batch_size=batch), tf.keras.layers.Flatten(), dense, *more]
    made = tf.keras.Sequential(layers)
    dense.set_weights([linear.weight.numpy().T, linear.bias.numpy()])
    return made


def teach(data: Data, path: Path) -> Any:
    source = "tflite" if path.suffix == ".tflite" else "keras"
    return load_teacher(Network.model_validate({source: path}), Path(), data, "teachers.0")


def refused(data: Data, path: Path) -> str:
    with pytest.raises(InputError) as caught:
        teach(data, path)
    return str(caught.value)


@pytest.mark.parametrize("name", SHAPES)
def test_a_keras_file_and_its_saved_model_teach_in_any_layout(
    tf: Any, data: Data, linear: nn.Linear, tmp_path: Path, name: str
) -> None:
    made = model(tf, linear, SHAPES[name])
    made.save(tmp_path / "m.keras")
    made.export(str(tmp_path / "saved"), verbose=False)
    x = data.test.x[:9]
    for path in (tmp_path / "m.keras", tmp_path / "saved"):
        teacher = teach(data, path)
        assert teacher.module is None
        torch.testing.assert_close(teacher.logits(x), linear(x.flatten(1)))


def test_two_saved_models_have_different_keys(
    tf: Any, data: Data, linear: nn.Linear, tmp_path: Path
) -> None:
    model(tf, linear, (64,)).export(str(tmp_path / "a"), verbose=False)
    model(tf, linear, (8, 8)).export(str(tmp_path / "b"), verbose=False)
    assert teach(data, tmp_path / "a").key != teach(data, tmp_path / "b").key


def test_a_lambda_in_a_keras_file_is_not_executed(
    tf: Any, data: Data, linear: nn.Linear, tmp_path: Path
) -> None:
    made = model(tf, linear, (64,), tf.keras.layers.Lambda(lambda x: x * 2))
    made.save(tmp_path / "m.keras")
    assert "it contains 'keras.layers.Lambda'" in refused(data, tmp_path / "m.keras")


def test_a_saved_model_that_reads_files_is_refused(tf: Any, data: Data, tmp_path: Path) -> None:
    module = tf.Module()
    module.serve = tf.function(
        lambda x: {
            "y": x[:, :10] * float(0) + tf.cast(tf.strings.length(tf.io.read_file("/x")), "float32")
        },
        input_signature=[tf.TensorSpec([None, 64], tf.float32)],
    )
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.serve)
    assert "its graph contains ReadFile" in refused(data, tmp_path / "m")


@pytest.mark.parametrize("raw", [b"", b"PK\3\4 and no more", b"junk"])
def test_what_is_no_keras_file_is_one_error(data: Data, tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "m.keras").write_bytes(raw)
    assert "not a complete Keras file" in refused(data, tmp_path / "m.keras")


def test_a_folder_that_is_no_saved_model_is_one_error(data: Data, tmp_path: Path) -> None:
    assert "no saved_model.pb in this folder" in refused(data, tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"junk" * 9)
    assert "not a complete SavedModel" in refused(data, tmp_path)


def test_a_model_of_other_shapes_is_refused(
    tf: Any, data: Data, linear: nn.Linear, tmp_path: Path
) -> None:
    tf.keras.Sequential([tf.keras.Input((9, 9, 1)), tf.keras.layers.Flatten()]).save(
        tmp_path / "in.keras"
    )
    assert "its input has shape (B, 9, 9, 1)" in refused(data, tmp_path / "in.keras")
    model(tf, linear, (64,), tf.keras.layers.Dense(7)).save(tmp_path / "out.keras")
    assert "outputs of shape (64, 7)" in refused(data, tmp_path / "out.keras")


def tflite(tf: Any, made: Any, data: Data | None = None) -> bytes:
    """The model as TFLite; full int8 when calibration data is given."""
    converter = tf.lite.TFLiteConverter.from_keras_model(made)
    if data is not None:
        samples = data.train.x.movedim(1, -1).numpy()
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_a_tflite_file_teaches_for_any_batch(
    tf: Any, data: Data, linear: nn.Linear, tmp_path: Path, batch: int | None
) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(tflite(tf, model(tf, linear, (8, 8, 1), batch=batch)))
    teacher = teach(data, path)
    for count in (1, 7, 2):
        x = data.test.x[:count]
        torch.testing.assert_close(teacher.logits(x), linear(x.flatten(1)), atol=1e-5, rtol=1e-5)


def test_quantized_inputs_and_outputs_are_translated(
    tf: Any, data: Data, linear: nn.Linear, tmp_path: Path
) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(tflite(tf, model(tf, linear, (8, 8, 1)), data))
    expected = linear(data.test.x.flatten(1))
    found = teach(data, path).logits(data.test.x)
    wrong = (found - expected).abs()
    step = float((expected.max() - expected.min()) / 255)
    assert 0 < wrong.mean() < 2 * step


def test_quantized_probabilities_are_noticed_with_their_step(
    tf: Any, data: Data, linear: nn.Linear, tmp_path: Path
) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(tflite(tf, model(tf, linear, (8, 8, 1), tf.keras.layers.Softmax()), data))
    teacher = teach(data, path)
    assert teacher.notes == ("gives probabilities, not logits: log(p + 0.002) is used",)
    expected = linear(data.test.x.flatten(1)).softmax(1)
    assert (teacher.logits(data.test.x).softmax(1) - expected).abs().max() < 0.03


def test_a_truncated_tflite_file_is_one_error(
    tf: Any, data: Data, linear: nn.Linear, tmp_path: Path
) -> None:
    path = tmp_path / "m.tflite"
    raw = tflite(tf, model(tf, linear, (8, 8, 1)))
    for size in (0, 8, 100, len(raw) // 2, len(raw) - 40):
        path.write_bytes(raw[:size])
        assert "m.tflite: not a TFLite file" in refused(data, path)
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    assert "m.tflite: not a TFLite file" in refused(data, path)
