"""Operators in notes: the user's layers, each kind once."""

import pytest

from edgekd.formats.operator_notes import by_kind, by_layer, converted_layer, shown_name


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("model.RNN/torch.nn.modules.rnn.LSTM_rnn;38", "rnn"),
        (
            "model.Net/torch.nn.modules.container.Sequential_net/torch.nn.modules.conv.Conv2d_0;3",
            "net.0",
        ),
        ("model.Net/model.Temporal_block_one;1", "block_one"),
        ("__main__._ByPosition/edgekd.quant.named_layers.Layer_net|0|conv_1;3", "net.0.conv_1"),
        ("__main__._ByPosition/edgekd.quant.named_layers.Layer_|net|0|to;3", "net.0.to"),
        ("model.Net;;model.Net/torch.nn.modules.conv.Conv1d_c;1", ""),
        ("__main__._ByPosition;7", ""),
        ("serving_default_output_0_output", ""),
    ],
)
def test_a_converters_name_tells_the_users_layer(name, layer):
    assert converted_layer(name) == layer


def test_many_operators_of_a_layer_are_one_note():
    slices = [("SLICE", "rnn")] * 466
    others = [(kind, "rnn") for kind in ("TANH", "MUL", "ADD", "LOGISTIC", "TANH")]
    assert by_layer([*slices, *others, ("SOFTMAX", "")]) == [
        "466 x SLICE, 2 x TANH, MUL, ADD and 1 other kind (rnn)",
        "SOFTMAX",
    ]


def test_a_kind_in_many_layers_is_one_note():
    layers = [("aten.gelu", f"mlp.{index}") for index in range(5)]
    assert by_kind([*layers, ("aten.softmax", "head")]) == [
        "5 x aten.gelu (mlp.0, mlp.1, mlp.2, ...)",
        "aten.softmax (head)",
    ]


def test_a_name_that_tells_no_layer_is_shown_as_it_is():
    assert shown_name("main._ByPosition/edgekd.quant.named_layers.Layer_net|0;3") == "net.0"
    assert shown_name("model/re_lu_1/Relu;0") == "model/re_lu_1/Relu;0"
