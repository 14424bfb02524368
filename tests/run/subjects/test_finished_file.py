"""What a quantize stage may ask of a file that is quantized as it is."""

import pytest

from edgekd.run.subjects.finished_file import key_faults, trains
from edgekd.stages.quantize import Quantize


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"ranges": "mse", "equalize": True}, ["ranges", "equalize"]),
        ({"rounding": "gptq"}, ["rounding"]),
        ({"smooth_quant": True}, ["smooth_quant"]),
        ({"method": "auto", "accuracy_drop": 1.0}, ["method"]),
        ({"bias_correction": False}, []),
    ],
)
def test_keys_that_need_a_network_are_refused_by_name(keys, named):
    found = key_faults([Quantize(**keys)], "this ONNX file", "NNCF")
    assert [fault.where for fault in found] == [f"stages.1.{name}" for name in named]
    assert all("NNCF quantizes this ONNX file itself" in fault.message for fault in found)


def test_auto_trains_only_as_its_last_resort():
    assert not trains(Quantize(method="auto"))
    assert trains(Quantize(method="auto", last_resort="qat"))
    assert trains(Quantize(method="qat"))
