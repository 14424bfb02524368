"""Layer taps, on modules and on exported and prepared graphs."""

import threading

import pytest
import torch
from torch import nn

from edgekd.errors import InputError
from edgekd.models.resnet import resnet8
from edgekd.network.taps import Taps, layer_names

torch.set_num_threads(1)
X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LAYERS = ("stem", "stages.1", "stages.2.0.conv2", "classifier")


def network() -> nn.Module:
    torch.manual_seed(0)
    return resnet8(channels=1, widths=(4, 8, 8)).eval()


def exported(module: nn.Module) -> torch.fx.GraphModule:
    batch = torch.export.Dim("batch", min=2, max=256)
    return torch.export.export(module, (X,), dynamic_shapes=({0: batch},)).module()


def expected(module: nn.Module) -> dict[str, torch.Tensor]:
    with Taps(module, LAYERS) as taps, torch.no_grad():
        module(X)
        return dict(taps.outputs)


def test_a_tap_holds_the_named_layers_output():
    module = network()
    with torch.no_grad():
        stem = module.stem(X)
        stage = module.stages[1](module.stages[0](stem))
        found = expected(module)
    assert torch.equal(found["stem"], stem)
    assert torch.equal(found["stages.1"], stage)
    assert torch.equal(found["classifier"], module(X))


def test_hooks_are_gone_afterwards_even_after_an_error():
    module = network()
    taps = Taps(module, LAYERS)

    def fails() -> None:
        with taps:
            module(X)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fails()
    assert taps.outputs == {}
    assert not any(part._forward_hooks for part in module.modules())


def test_two_taps_on_one_module_do_not_disturb_each_other():
    module = network()
    with Taps(module, ["stem"]) as first:
        with Taps(module, ["stem", "classifier"]) as second:
            module(X)
        assert set(first.outputs) == {"stem"}
        module(2 * X)
        assert set(first.outputs) == {"stem"}
    assert second.outputs == {}


def test_another_threads_forward_pass_is_not_taken():
    module = network()
    with Taps(module, ["stem"]) as taps, torch.no_grad():
        module(X)
        mine = taps.outputs["stem"]
        other = threading.Thread(target=module, args=(5 * X,))
        other.start()
        other.join()
        assert taps.outputs["stem"] is mine


def test_a_layer_that_is_not_there_is_refused_with_the_nearest_name():
    for module in (network(), exported(network())):
        with pytest.raises(InputError, match=r"no layer 'stages\.1\.0\.convv2'") as caught:
            Taps(module, ["stages.1.0.convv2"], "losses.1: student")
        assert caught.value.hint == "did you mean 'stages.1.0.conv2'?"
        assert caught.value.where == "losses.1: student"
        assert "stem" in caught.value.allowed


def test_an_exported_graph_is_tapped_by_the_names_of_its_former_layers():
    module = network()
    graph = exported(module)
    assert set(LAYERS) <= set(layer_names(graph))
    with Taps(graph, LAYERS) as taps, torch.no_grad():
        graph(X)
        for name, value in expected(module).items():
            assert torch.allclose(taps.outputs[name], value, atol=1e-6), name


def test_an_exported_graph_is_as_before_afterwards():
    graph = exported(network())
    before, text = graph(X), str(graph.graph)
    with Taps(graph, LAYERS):
        assert str(graph.graph) != text
    assert str(graph.graph) == text
    assert torch.equal(graph(X), before)
    assert not any(isinstance(part, nn.Identity) for part in graph.modules())


def test_gradients_flow_through_a_tapped_graph():
    graph = exported(network())
    with Taps(graph, ["stem"]) as taps:
        graph(X)
        taps.outputs["stem"].sum().backward()
    gradients = dict(graph.named_parameters())
    assert gradients["stem.0.weight"].grad is not None
    assert gradients["classifier.weight"].grad is None


def test_a_graph_prepared_for_quantization_is_tapped_in_both_modes():
    from torchao.quantization.pt2e import (
        FakeQuantize,
        MovingAverageMinMaxObserver,
        allow_exported_model_train_eval,
    )
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import (
        QuantizationAnnotation,
        QuantizationSpec,
        Quantizer,
    )

    fake = FakeQuantize.with_args(observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255)
    spec = QuantizationSpec(
        dtype=torch.uint8,
        observer_or_fake_quant_ctr=fake,
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
    )

    class Convolutions(Quantizer):
        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            for node in model.graph.nodes:
                if node.target is torch.ops.aten.conv2d.default:
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        input_qspec_map={node.args[0]: spec},
                        output_qspec=spec,
                        _annotated=True,
                    )
            return model

        def validate(self, model: torch.fx.GraphModule) -> None:
            pass

    from torch.fx.experimental.optimization import fuse

    graph = prepare_qat_pt2e(exported(fuse(network())), Convolutions())
    allow_exported_model_train_eval(graph)
    names = layer_names(graph)
    assert {"stem", "stages.1.0.conv2", "classifier"} <= set(names)
    assert not any("activation_post_process" in name for name in names)
    with Taps(graph, ["stem", "stages.1"]) as taps:
        for switch in (graph.train, graph.eval, graph.train):
            switch()
            taps.outputs.clear()
            graph(X)
            assert taps.outputs["stem"].shape == (2, 4, 8, 8)
            assert taps.outputs["stages.1"].shape == (2, 8, 4, 4)
    assert not any("edgekd_tap" in name for name, _ in graph.named_modules())


def test_a_recurrent_layer_is_tapped_at_its_outputs_of_every_step():
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(x)[0])

    module, x = Tagger(), torch.randn(2, 5, 3)
    with Taps(module, ["lstm"]) as taps, torch.no_grad():
        logits = module(x)
        assert torch.equal(module.head(taps.outputs["lstm"]), logits)


def test_a_block_that_returns_more_than_its_output_is_tapped_at_its_output():
    class Block(nn.Linear):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
            return super().forward(x), None

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block(x)[0]

    module = Network()
    with Taps(module, ["block"]) as taps, torch.no_grad():
        assert torch.equal(module(torch.ones(2, 3)), taps.outputs["block"])
