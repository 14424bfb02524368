import importlib
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd.factories import call

CASES = {
    "resnet:resnet8": ({}, (3, 32, 32), 10),
    "resnet:resnet14": ({"channels": 1}, (1, 28, 28), 10),
    "resnet:resnet20": ({"channels": 1}, (1, 8, 8), 10),
    "ds_cnn:ds_cnn": ({}, (1, 49, 10), 12),
    "ds_cnn:ds_cnn small": ({"small_stem": True, "classes": 10}, (1, 28, 28), 10),
    "mobilenet_v1:mobilenet_v1": ({}, (3, 96, 96), 2),
    "mobilenet_v1:mobilenet_v1 small": (
        {"channels": 1, "classes": 10, "strided": 3},
        (1, 28, 28),
        10,
    ),
    "mobilenet_v2:mobilenet_v2": ({"channels": 1}, (1, 28, 28), 10),
    "sensor_cnn:sensor_cnn": ({}, (3, 128), 6),
    "transformer:transformer": ({}, (1, 28, 28), 10),
    "transformer:transformer sequence": (
        {"size": 128, "channels": 3, "patch": 8, "kind": "sequence", "classes": 6},
        (3, 128),
        6,
    ),
    "autoencoder:autoencoder": ({}, (640,), 640),
    "distilled_transformer:distilled_transformer": ({}, (1, 28, 28), 10),
    "grid_detector:grid_detector": ({}, (1, 32, 32), (15, 8, 8)),
    "segmenter:segmenter": ({}, (1, 24, 24), (11, 24, 24)),
    "segmenter:heatmaps": ({}, (1, 24, 24), (4, 12, 12)),
    "string_reader:string_reader": ({}, (1, 8, 40), (20, 11)),
    "language_model:language_model": ({}, (32,), (32, 37)),
    "graph_network:graph_network": ({}, (16, 18), 4),
    "mlp:mlp": ({}, (10,), 1),
}
# MLPerf Tiny v1's reference models, as Keras counts their parameters.
MLPERF_TINY = {
    "resnet:resnet8": 78_666,
    "ds_cnn:ds_cnn": 24_908,
    "mobilenet_v1:mobilenet_v1": 221_794,
    "autoencoder:autoencoder": 269_992,
}


def make(name: str) -> nn.Module:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    arguments = CASES[name][0]
    return call(f"edgekd.models.{name.split()[0]}", arguments, Path(), "test").eval()


def values(module: nn.Module) -> int:
    """Parameters and batch-norm statistics: what Keras counts."""
    state = module.state_dict().items()
    return sum(tensor.numel() for name, tensor in state if "num_batches_tracked" not in name)


def test_every_network_of_the_package_is_tested_here() -> None:
    folder = Path(importlib.import_module("edgekd.models").__file__ or "").parent
    files = {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}
    assert files == {name.split(":")[0] for name in CASES}


@pytest.mark.parametrize(("name", "count"), MLPERF_TINY.items())
def test_mlperf_tinys_networks_have_its_number_of_values(name: str, count: int) -> None:
    assert values(make(name)) == count


@pytest.mark.parametrize("name", CASES)
def test_every_network_exports_with_a_free_batch_and_the_same_outputs(name: str) -> None:
    module, (_, shape, classes) = make(name), CASES[name]
    wanted = classes if isinstance(classes, tuple) else (classes,)
    example = torch.rand(2, *shape)
    free = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(module, (example,), dynamic_shapes=free)
    x = torch.rand(3, *shape)
    outputs = program.module()(x)
    assert outputs.shape == (3, *wanted)
    torch.testing.assert_close(outputs, module(x))


@pytest.mark.parametrize("name", CASES)
def test_modules_have_tidy_names_and_parameters_all_get_gradients(name: str) -> None:
    module = make(name)
    for path, _ in module.named_modules():
        assert re.fullmatch(r"([a-z_]+\d?(\.|$)|\d+(\.|$))*", path)
    module.train()
    module(torch.rand(4, *CASES[name][1])).square().sum().backward()
    missing = [path for path, parameter in module.named_parameters() if parameter.grad is None]
    assert missing == []


def test_ds_cnn_pads_as_the_reference_does() -> None:
    stem = make("ds_cnn:ds_cnn").stem
    assert stem(torch.rand(1, 1, 49, 10)).shape == (1, 64, 25, 5)


@pytest.mark.parametrize(("strided", "size"), [(5, 3), (3, 12), (0, 96)])
def test_mobilenet_v1_has_the_requested_number_of_strides(strided: int, size: int) -> None:
    from edgekd.models.mobilenet_v1 import mobilenet_v1

    module = mobilenet_v1(strided=strided, width=0.1).eval()
    assert module.blocks(module.stem(torch.rand(1, 3, 96, 96))).shape[2:] == (size, size)


def test_attention_is_scaled_dot_product_attention() -> None:
    from edgekd.models.transformer import Attention

    torch.manual_seed(0)
    attention, x = Attention(8, heads=2), torch.rand(2, 5, 8)
    parts = [
        attention._split(part(x)) for part in (attention.query, attention.key, attention.value)
    ]
    mixed = nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(x), attention.output(mixed))


def test_mobilenet_v2_keeps_the_input_where_the_shape_stays() -> None:
    from edgekd.models.mobilenet_v2 import InvertedResidual

    torch.manual_seed(0)
    block, x = InvertedResidual(4, 4, 6, 1).eval(), torch.rand(1, 4, 5, 5)
    nn.init.zeros_(block.project[1].weight)
    torch.testing.assert_close(block(x), x)
    assert not InvertedResidual(4, 4, 6, 2).residual


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        ("transformer:transformer", {"patch": 5}, "28 is not divisible by patches of 5"),
        ("transformer:transformer", {"heads": 3}, "64 is not divisible by 3 heads"),
        ("sensor_cnn:sensor_cnn", {"widths": [8]}, "1 widths for 3 kernels"),
        ("sensor_cnn:sensor_cnn", {"kernels": [4, 4, 4]}, "only odd sizes keep the length"),
        ("mobilenet_v1:mobilenet_v1", {"strided": 6}, "can have 0 to 5 strides of 2"),
    ],
)
def test_shapes_that_can_not_be_made_are_refused(
    factory: str, arguments: dict[str, object], message: str
) -> None:
    from edgekd.errors import InputError

    with pytest.raises(InputError) as caught:
        call(f"edgekd.models.{factory}", arguments, Path(), "student")
    assert message in str(caught.value)


def test_a_language_model_looks_back_only_and_stays_within_its_table() -> None:
    model, tokens = make("language_model:language_model"), torch.randint(0, 37, (1, 32)).float()
    before = model(tokens)
    tokens[0, 20] = (tokens[0, 20] + 1) % 37
    after = model(tokens)
    torch.testing.assert_close(after[:, :20], before[:, :20])
    assert not torch.equal(after[:, 20:], before[:, 20:])
    torch.testing.assert_close(model(tokens * 0 - 2), model(tokens * 0))


def test_a_graph_network_does_not_mind_the_order_of_the_nodes() -> None:
    model, edges = make("graph_network:graph_network"), torch.rand(16, 16).round()
    edges = torch.triu(edges, 1) + torch.triu(edges, 1).T
    features, order = torch.rand(16, 2), torch.randperm(16)
    one = torch.cat([features, edges], 1)
    other = torch.cat([features[order], edges[order][:, order]], 1)
    torch.testing.assert_close(model(one[None]), model(other[None]))
