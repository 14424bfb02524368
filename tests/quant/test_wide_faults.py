"""Activations of 16 bits that can't be are refused by layer, before any calibration."""

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgekd.quant.export import export_graph
from edgekd.quant.wide_faults import layer_faults, wide_faults
from edgekd.values.target import load_target

HERE = "stages.0.int16_layers"


class Smooth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(F.gelu(self.stem(x)))
        return output


@pytest.fixture
def graph() -> fx.GraphModule:
    return export_graph(Smooth().eval(), torch.zeros(1, 4))


def test_a_backend_without_kernels_is_named_with_the_layers():
    (fault,) = wide_faults("int8", "qat", False, load_target("cortex-m4"), HERE, ["stem", "head"])
    assert fault.message.endswith("has no kernels for 16-bit activations in 'stem', 'head'")
    assert fault.allowed == "tflite"
    assert fault.hint.startswith("remove 'int16_layers', or a target without backends.")


def test_types_with_float_activations_have_no_wide_layers():
    (fault,) = wide_faults("int4", "qat", False, load_target("x86-vnni"), HERE, ["stem"])
    assert fault.hint == "dtype = \"int8\", or remove 'int16_layers'"


def test_an_unknown_layer_gets_the_nearest_name(graph):
    (fault,) = layer_faults(graph, ["haed"], (), False, HERE)
    assert fault.message == "there is no layer 'haed' that computes in integers"
    assert "head" in fault.hint
    assert "stem" in fault.allowed


def test_a_layer_can_not_be_both_ignored_and_wide(graph):
    (fault,) = layer_faults(graph, ["head"], ["head"], False, HERE)
    assert "keeps it in float" in fault.message


def test_strict_refuses_functions_without_a_kernel_of_16_bits(graph):
    assert layer_faults(graph, ["stem"], (), False, HERE) == []
    (fault,) = layer_faults(graph, ["stem"], (), True, HERE)
    assert "aten.gelu (gelu)" in fault.message
    assert "no 'strict'" in fault.hint
