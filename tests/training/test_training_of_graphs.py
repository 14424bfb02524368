"""Quantization-aware training through the same loop, with losses on layers of the graph."""

import copy

import pytest
import torch
from contexts import context
from torch import nn

from edgekd.data.samples import Data, Samples
from edgekd.models.resnet import resnet8
from edgekd.network.evaluation import evaluate
from edgekd.training.distillation import teach
from edgekd.training.teachers.module import ModuleTeacher
from edgekd.training.teachers.outputs import Outputs
from edgekd.training.teaching import Teaching

torch.set_num_threads(1)


def teacher() -> ModuleTeacher:
    return ModuleTeacher("float", "float-teacher", 1.0, float_network(), Outputs())


def data() -> Data:
    x = torch.randn(96, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    samples = Samples(x, x.flatten(1)[:, :3].argmax(1))
    return Data("hidden", samples, samples, samples, 3)


def float_network() -> nn.Module:
    torch.manual_seed(0)
    return resnet8(channels=1, classes=3, widths=(4, 4, 8)).eval()


def prepared() -> torch.fx.GraphModule:
    """The float network fused, exported, and with fake quantizers around each convolution."""
    from torch.fx.experimental.optimization import fuse
    from torchao.quantization.pt2e import (
        FakeQuantize,
        MovingAverageMinMaxObserver,
        MovingAveragePerChannelMinMaxObserver,
        allow_exported_model_train_eval,
    )
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import (
        QuantizationAnnotation,
        QuantizationSpec,
        Quantizer,
    )

    activation = QuantizationSpec(
        dtype=torch.uint8,
        observer_or_fake_quant_ctr=FakeQuantize.with_args(observer=MovingAverageMinMaxObserver),
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
    )
    weight = QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=FakeQuantize.with_args(
            observer=MovingAveragePerChannelMinMaxObserver
        ),
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )

    class Convolutions(Quantizer):
        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            for node in model.graph.nodes:
                if node.target is torch.ops.aten.conv2d.default:
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        input_qspec_map={node.args[0]: activation, node.args[1]: weight},
                        output_qspec=activation,
                        _annotated=True,
                    )
            return model

        def validate(self, model: torch.fx.GraphModule) -> None:
            pass

    batch = torch.export.Dim("batch", min=2, max=256)
    example = (data().train.x[:2],)
    program = torch.export.export(fuse(float_network()), example, dynamic_shapes=({0: batch},))
    return allow_exported_model_train_eval(prepare_qat_pt2e(program.module(), Convolutions()))


HINT = {"name": "hint", "student": "stages.1", "weight": 0.5}
PLAN = Teaching(
    epochs=4,
    batch_size=32,
    learning_rate=0.01,
    losses=({"name": "kl", "weight": 0.5}, HINT),
    keep="last",
)


@pytest.mark.slow
def test_a_prepared_graph_learns_with_features_and_goes_on_after_a_break(tmp_path):
    teachers = [teacher()]
    graph = prepared()
    start = copy.deepcopy(graph.state_dict())
    whole = teach(graph, context(PLAN, data=data(), teachers=teachers, work=tmp_path / "a"))
    assert any(not torch.equal(start[key], value) for key, value in whole.state_dict().items())
    assert not any("edgekd_tap" in name for name, _ in whole.named_modules())

    def stop(done: int, total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(
            prepared(),
            context(PLAN, data=data(), teachers=teachers, work=tmp_path / "b", on_step=stop),
        )
    steps: list[int] = []
    broken = teach(
        prepared(),
        context(
            PLAN,
            data=data(),
            teachers=teachers,
            work=tmp_path / "b",
            on_step=lambda done, total: steps.append(done),
        ),
    )
    assert steps[0] == 7
    for key, value in whole.state_dict().items():
        assert torch.equal(value, broken.state_dict()[key]), key
    assert evaluate(whole, data().test) == evaluate(broken, data().test)


@pytest.mark.slow
def test_a_trained_graph_converts_and_answers_as_it_did(tmp_path):
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    plan = PLAN.model_copy(update={"epochs": 2})
    graph = teach(prepared(), context(plan, data=data(), teachers=[teacher()], work=tmp_path))
    before = evaluate(graph, data().test)
    converted = convert_pt2e(graph, fold_quantize=True)
    assert evaluate(converted, data().test) == pytest.approx(before, abs=0.05)
