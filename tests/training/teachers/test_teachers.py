import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from edgekd.data import Augmentation, Data, Samples, load_data
from edgekd.errors import EdgekdError, InputError, MissingPackage
from edgekd.models.resnet import resnet20
from edgekd.training.teachers import load_teacher
from edgekd.training.teachers.layout import arrangement
from edgekd.training.teachers.outputs import Outputs, outputs_of
from edgekd.values.recipe import TEACHER, DataTable, Network

DIGITS_TEACHER = TEACHER.parent
CLASSES = 10


@pytest.fixture(scope="module")
def data() -> Data:
    torch.set_num_threads(1)
    return load_data(DataTable(), Path())


@pytest.fixture(scope="module")
def linear() -> nn.Linear:
    """What every model file here computes: flatten in our order, then W x + b."""
    torch.manual_seed(0)
    return nn.Linear(64, CLASSES).requires_grad_(False)


def logits_of(linear: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return linear(x.flatten(1))


def teach(data: Data, folder: Path, **table: object) -> Any:
    return load_teacher(Network.model_validate(table), folder, data, "teachers.0")


def refused(data: Data, folder: Path, **table: object) -> EdgekdError:
    with pytest.raises(InputError) as caught:
        teach(data, folder, **table)
    assert caught.value.exit_code == 2
    return caught.value


def write_onnx(
    path: Path, linear: nn.Linear, softmax: bool = False, batch: int | str = "n"
) -> None:
    """A model whose weight is an initializer and whose bias is a Constant node."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(linear.weight.numpy().T.copy(), "weight")
    bias = numpy_helper.from_array(linear.bias.numpy(), "value")
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Constant", [], ["bias"], value=bias),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["p"]))
    inputs = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, 8, 8])
    name = "p" if softmax else "logits"
    outputs = helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, len(linear.bias)])
    graph = helper.make_graph(nodes, "linear", [inputs], [outputs], [weight])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def test_the_digits_teacher_of_the_demo_is_right_on_unseen_digits(data: Data) -> None:
    teacher = teach(
        data,
        DIGITS_TEACHER,
        factory="edgekd.models.resnet:resnet20",
        arguments={"channels": 1},
        weights="digits_teacher.safetensors",
    )
    hits = teacher.logits(data.test.x).argmax(1) == data.test.y
    assert hits.double().mean() >= 0.985
    assert teacher.notes == ()


def test_a_network_is_frozen_in_eval_mode_and_can_be_tapped(data: Data) -> None:
    teacher = teach(
        data,
        DIGITS_TEACHER,
        factory="edgekd.models.resnet:resnet20",
        arguments={"channels": 1},
        weights="digits_teacher.safetensors",
        weight=2.0,
    )
    original = resnet20(channels=1)
    original.load_state_dict(load_file(DIGITS_TEACHER / "digits_teacher.safetensors"))
    x = data.test.x[:4]
    assert not teacher.module.training
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())
    assert torch.equal(teacher.logits(x), original.eval()(x).detach())
    assert teacher.weight == 2.0


def test_networks_of_other_values_have_other_keys(data: Data, tmp_path: Path) -> None:
    """Kept outputs of one are not another's: a factory without weights draws them by the seed."""
    table: dict[str, Any] = {
        "factory": "edgekd.models.resnet:resnet8",
        "arguments": {"channels": 1, "widths": [8, 16, 16]},
    }

    def drawn(seed: int) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return teach(data, tmp_path, **table)

    assert drawn(1).key == drawn(1).key
    assert drawn(1).key != drawn(2).key
    save_file(drawn(1).module.state_dict(), tmp_path / "weights.safetensors")
    table["weights"] = "weights.safetensors"
    assert drawn(1).key == drawn(2).key


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 3}, "fails on samples of shape (1, 8, 8)"),
        ({"channels": 1, "classes": 7}, "outputs of shape (64, 7)"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused(
    data: Data, arguments: dict[str, int], message: str
) -> None:
    factory = "edgekd.models.resnet:resnet8"
    assert message in str(refused(data, Path(), factory=factory, arguments=arguments))


@pytest.mark.backend("onnx")
@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_an_onnx_file_teaches_for_any_batch(
    data: Data, linear: nn.Linear, tmp_path: Path, batch: int | str
) -> None:
    write_onnx(tmp_path / "m.onnx", linear, batch=batch)
    teacher = teach(data, tmp_path, onnx="m.onnx")
    assert teacher.module is None
    for count in (1, 7):
        x = data.test.x[:count]
        torch.testing.assert_close(teacher.logits(x), logits_of(linear, x))


@pytest.mark.backend("onnx")
def test_probabilities_become_logits_and_are_noted(
    data: Data, linear: nn.Linear, tmp_path: Path
) -> None:
    write_onnx(tmp_path / "m.onnx", linear, softmax=True)
    teacher = teach(data, tmp_path, onnx="m.onnx")
    x = data.test.x[:20]
    expected = logits_of(linear, x).log_softmax(1)
    torch.testing.assert_close(teacher.logits(x), expected, atol=1e-4, rtol=1e-4)
    assert teacher.notes == ("gives probabilities, not logits: log(p + 1e-07) is used",)


@pytest.mark.backend("onnx")
def test_a_truncated_onnx_file_is_one_error(data: Data, linear: nn.Linear, tmp_path: Path) -> None:
    write_onnx(tmp_path / "m.onnx", linear)
    raw = (tmp_path / "m.onnx").read_bytes()
    for size in (0, 20, len(raw) // 2):
        (tmp_path / "m.onnx").write_bytes(raw[:size])
        error = refused(data, tmp_path, onnx="m.onnx")
        fault = "not an ONNX file, or truncated" if size else "the file is empty"
        assert f"m.onnx: {fault}" in str(error)


@pytest.mark.parametrize(
    ("source", "package", "module", "extra"),
    [
        ("onnx", "onnxruntime", "onnxruntime", "onnx"),
        ("tflite", "ai-edge-litert", "ai_edge_litert.interpreter", "tflite"),
        ("keras", "tensorflow", "tensorflow", "keras"),
    ],
)
def test_a_runtime_that_is_not_installed_is_named_with_its_pip_command(
    data: Data,
    linear: nn.Linear,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    package: str,
    module: str,
    extra: str,
) -> None:
    path = tmp_path / "model"
    if source == "onnx":
        write_onnx(path, linear)
    elif source == "keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", json.dumps({}))
    else:
        path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    error = refused(data, tmp_path, **{source: "model"})
    assert isinstance(error, MissingPackage)
    assert (error.message, error.hint) == (
        f"{package} is not installed",
        f"pip install 'edgekd[{extra}]'",
    )


@pytest.mark.parametrize("source", ["onnx", "tflite", "keras", "logits", "program"])
def test_a_missing_file_is_one_error(data: Data, tmp_path: Path, source: str) -> None:
    assert "absent: no such file" in str(refused(data, tmp_path, **{source: "absent"}))


def recorded(data: Data, linear: nn.Linear) -> np.ndarray:
    """Logits of the training samples in the order of their source."""
    rows = torch.cat([data.train.rows, data.validation.rows])
    x = torch.cat([data.train.x, data.validation.x])
    return logits_of(linear, x[rows.argsort()]).numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_recorded_logits_are_found_whatever_the_order_and_split(
    data: Data, linear: nn.Linear, tmp_path: Path, dtype: type
) -> None:
    np.save(tmp_path / "l.npy", recorded(data, linear).astype(dtype))
    teacher = teach(data, tmp_path, logits="l.npy")
    for samples in (data.train, data.validation):
        x = samples.x.flip(0)[:50]
        torch.testing.assert_close(teacher.logits(x), logits_of(linear, x), atol=2e-3, rtol=2e-3)


def test_recorded_logits_of_all_parts_teach_the_test_set_too(
    data: Data, linear: nn.Linear, tmp_path: Path
) -> None:
    test = logits_of(linear, data.test.x).numpy()
    np.savez(tmp_path / "l.npz", train=recorded(data, linear), test=test)
    teacher = teach(data, tmp_path, logits="l.npz")
    torch.testing.assert_close(teacher.logits(data.test.x), torch.from_numpy(test))


def test_recorded_logits_fit_a_limited_recipe(
    data: Data, linear: nn.Linear, tmp_path: Path
) -> None:
    np.save(tmp_path / "l.npy", recorded(data, linear))
    few = load_data(DataTable(limit=100), Path())
    teacher = teach(few, tmp_path, logits="l.npy")
    torch.testing.assert_close(teacher.logits(few.train.x), logits_of(linear, few.train.x))


def test_a_sample_without_recorded_logits_is_an_error(
    data: Data, linear: nn.Linear, tmp_path: Path
) -> None:
    np.save(tmp_path / "l.npy", recorded(data, linear))
    with pytest.raises(InputError, match="359 of 359 samples have no recorded logits"):
        teach(data, tmp_path, logits="l.npy").logits(data.test.x)


def test_recorded_logits_refuse_augmented_data(
    data: Data, linear: nn.Linear, tmp_path: Path
) -> None:
    np.save(tmp_path / "l.npy", recorded(data, linear))
    shifted = Data("digits", data.train, data.validation, data.test, 10, Augmentation(shift=1))
    assert "the data is augmented" in str(refused(shifted, tmp_path, logits="l.npy"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((1437, 10), np.float32), "1437 rows (allowed: 1438, one per sample)"),
        (np.zeros((1438, 9), np.float32), "float32 of shape (1438, 9)"),
        (np.zeros((1438, 10), np.int64), "int64 of shape (1438, 10)"),
        (np.full((1438, 10), np.nan, np.float32), "NaN or infinity"),
        (np.array([{}] * 3, dtype=object), "it contains objects"),
    ],
)
def test_wrong_recorded_logits_are_refused(
    data: Data, tmp_path: Path, values: np.ndarray, message: str
) -> None:
    np.save(tmp_path / "l.npy", values)
    assert message in str(refused(data, tmp_path, logits="l.npy"))


def test_a_truncated_file_of_logits_is_one_error(data: Data, tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", np.zeros((1438, 10)))
    raw = (tmp_path / "l.npy").read_bytes()
    for size in (0, 50, 2000):
        (tmp_path / "l.npy").write_bytes(raw[:size])
        assert "not a complete .npy file" in str(refused(data, tmp_path, logits="l.npy"))


def test_a_misspelt_part_of_recorded_logits_is_refused(data: Data, tmp_path: Path) -> None:
    np.savez(tmp_path / "l.npz", trian=np.zeros((1438, 10)))
    error = refused(data, tmp_path, logits="l.npz")
    assert (error.message, error.hint) == ("unknown array 'trian'", "did you mean 'train'?")


@pytest.mark.parametrize(
    ("wanted", "sample", "shape"),
    [
        ((3, 4, 5), (3, 4, 5), (2, 3, 4, 5)),
        ((4, 5, 3), (3, 4, 5), (2, 4, 5, 3)),
        ((None, None, 3), (3, 4, 5), (2, 4, 5, 3)),
        ((4, 5), (1, 4, 5), (2, 4, 5)),
        ((60,), (3, 4, 5), (2, 60)),
        ((7, 3), (3, 7), (2, 7, 3)),
    ],
)
def test_samples_are_arranged_as_the_model_wants_them(
    wanted: tuple[int | None, ...], sample: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    x = torch.rand(2, *sample)
    arranged = arrangement(wanted, sample, "m")(x)
    assert arranged.shape == shape
    if shape == (2, 4, 5, 3):
        assert torch.equal(arranged[:, :, :, 1], x[:, 1])


def test_an_input_that_no_arrangement_fits_is_refused() -> None:
    with pytest.raises(InputError, match=r"m: its input has shape \(B, 9, \?\)"):
        arrangement((9, None), (1, 8, 8), "m")


def test_only_rows_that_sum_to_one_and_are_not_negative_are_probabilities() -> None:
    half = torch.full((4, 2), 0.5)
    assert outputs_of(half, 2, "m").probabilities
    assert not outputs_of(torch.tensor([[1.5, -0.5]]), 2, "m").probabilities
    assert not outputs_of(torch.tensor([[0.5, 0.5], [0.5, 0.6]]), 2, "m").probabilities
    assert not outputs_of(half.log(), 2, "m").probabilities
    assert Outputs(True, 0.0).logits(half)[0].tolist() == pytest.approx([-0.6931472] * 2)


def test_outputs_with_nan_are_refused() -> None:
    with pytest.raises(InputError, match="NaN or infinity in the outputs"):
        outputs_of(torch.tensor([[float("nan"), 1.0]]), 2, "m")


def test_samples_know_their_rows() -> None:
    samples = Samples(torch.zeros(5, 1), torch.arange(5)).take(torch.tensor([4, 1, 3]))
    assert samples.take(torch.tensor([2, 0])).rows.tolist() == [3, 4]
