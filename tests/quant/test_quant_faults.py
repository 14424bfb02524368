"""What a quantization is refused for, before anything is exported."""

import pytest

from edgekd.quant.faults import ignored_faults, method_faults, mixed_faults, storing, target_faults
from edgekd.quant.mixed import Mixed
from edgekd.values.target import load_target

HERE = "stages.1"


@pytest.mark.parametrize(
    ("dtype", "method", "allowed"),
    [
        ("fp16", "qat", "calibrate"),
        ("bf16", "lsq", "calibrate"),
        ("int4", "pact", "calibrate, auto, qat, lsq"),
        ("ternary", "lsq", "calibrate, qat"),
        ("binary", "pact", "calibrate, qat"),
    ],
)
def test_a_method_that_a_type_does_not_have_is_refused(dtype, method, allowed) -> None:
    (fault,) = method_faults(dtype, method, HERE)
    assert (
        str(fault)
        == f"stages.1.method: {dtype} doesn't support the method '{method}' (allowed: {allowed})"
    )


def test_every_method_of_a_type_is_accepted() -> None:
    for method in ("calibrate", "qat", "lsq", "pact"):
        assert method_faults("int8", method, HERE) == []


@pytest.mark.parametrize(
    ("dtype", "keys", "message"),
    [
        ("fp16", {"layers": 1}, "fp16 doesn't support mixed precision"),
        ("bf16", {"layers": 1}, "bf16 doesn't support mixed precision"),
        (
            "int8",
            {"layers": 1, "wide": "int8"},
            "'int8' is not wider than int8 (allowed: int16, float)",
        ),
        ("int8", {"layers": 1, "wide": "int4"}, "(allowed: int16, float)"),
        ("int4", {"layers": 1, "wide": "int4"}, "(allowed: int8, float)"),
        ("int4", {"layers": 3}, "3 wide layers of 3 leave none for int4 (allowed: 1 to 2)"),
    ],
)
def test_mixed_precision_that_cannot_be_is_refused(dtype, keys, message) -> None:
    (fault,) = mixed_faults(dtype, Mixed(**keys), 3, 10, HERE)
    assert message in str(fault)


def test_what_mixed_precision_may_be_is_accepted() -> None:
    assert mixed_faults("binary", Mixed(layers=2, wide="int4"), 3, 0, HERE) == []
    assert mixed_faults("int8", Mixed(accuracy_drop=1.0), 3, 10, HERE) == []
    assert mixed_faults("fp16", None, 0, 0, HERE) == []


def test_a_drop_needs_samples_to_be_measured_on() -> None:
    (fault,) = mixed_faults("int4", Mixed(accuracy_drop=1.0), 3, 0, HERE)
    assert str(fault).startswith("stages.1.mixed.accuracy_drop: the drop is measured on validation")


def test_only_a_target_that_stores_narrow_weights_takes_them() -> None:
    assert storing(load_target("x86")) == ["onnx"]
    (fault,) = target_faults("int4", False, load_target("coral-usb"), HERE)
    assert "no backend of coral-usb stores int4 weights (tflite, edgetpu)" in str(fault)
    assert "it would only be a simulation" in str(fault)
    (fault,) = target_faults("binary", False, load_target("jetson-orin"), HERE)
    assert "TensorRT can't read binary weights" in str(fault)
    (fault,) = target_faults("int8", True, load_target("coral-usb"), HERE)
    assert "the Edge TPU runs int8 only" in str(fault)
    assert target_faults("int8", False, load_target("coral-usb"), HERE) == []


def test_ignored_names_are_layers_or_what_holds_them() -> None:
    layers = ["stem.0", "blocks.0.conv", "classifier"]
    assert ignored_faults(["blocks", "stem.0"], layers, HERE) == []
    (fault,) = ignored_faults(["stem.O"], layers, HERE)
    assert "there is no layer 'stem.O' with weights" in str(fault)
    assert fault.hint == "did you mean 'stem.0'?"
    (fault,) = ignored_faults(["stem", "blocks", "classifier"], layers, HERE)
    assert "every layer is ignored" in str(fault)
