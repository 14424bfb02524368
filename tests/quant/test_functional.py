"""Networks that work in place, or in nested regions, quantize to what they compute."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import InputError
from edgekd.quant.calibration import calibrate
from edgekd.quant.export import export_graph
from edgekd.quant.inspection import float_islands
from edgekd.quant.qat import finish_qat, prepare_qat
from edgekd.values.target import Scheme

aten = torch.ops.aten
SCHEME = Scheme(activations="int8-affine")


def snr(expected: Tensor, found: Tensor) -> float:
    """Signal to noise in decibels."""
    noise = (expected - found).double().square().sum().clamp_min(1e-30)
    return float(10 * torch.log10(expected.double().square().sum() / noise))


def _copy_into_slices(x: Tensor) -> Tensor:
    x[:, 0:2] = (x[:, 0:2] * 2 - 0.5) / 8
    x[:, 2:4] = (x[:, 2:4] * 2) ** 2 / 4
    return x


def _copy_into_the_end(x: Tensor) -> Tensor:
    x[:, -3:] = x[:, :3].sigmoid()
    return x


def _index_put(x: Tensor) -> Tensor:
    x[:, [0, 3]] = x[:, [3, 0]] * 0.5
    return x


def _by_mask(x: Tensor) -> Tensor:
    x[x > 0.3] = 0.1
    x[x.mean((2, 3)) < 0.0] = 0.0
    return x


def _channels_last_slice(x: Tensor) -> Tensor:
    x[..., 1:3] += 1.0
    return x


def _view_is_written(x: Tensor) -> Tensor:
    x.flatten(2)[:, :, 0].zero_()
    return x


IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu_": lambda x: x.relu_(),
    "relu6": lambda x: F.relu6(x, inplace=True),
    "add_": lambda x: x.add_(0.5),
    "sub_": lambda x: x.sub_(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).view(1, 6, 1, 1)),
    "mul_": lambda x: x.mul_(1.5),
    "div_": lambda x: x.div_(2.0),
    "clamp_": lambda x: x.clamp_(-0.2, 0.3),
    "hardswish": lambda x: F.hardswish(x, inplace=True),
    "leaky_relu_": lambda x: F.leaky_relu_(x, 0.1),
    "sigmoid_": lambda x: x.sigmoid_(),
    "tanh_": lambda x: x.tanh_(),
    "dropout_": lambda x: F.dropout(x, 0.5, training=False, inplace=True),
    "masked_fill_": lambda x: x.masked_fill_(x > 0.3, 0.1),
    "copy_into_slices": _copy_into_slices,
    "copy_into_the_end": _copy_into_the_end,
    "index_put_": _index_put,
    "by_mask": _by_mask,
    "added_to_a_slice": _channels_last_slice,
    "a_view_is_zeroed": _view_is_written,
}


class InPlace(nn.Module):
    """A change in place of the input (`where` = "input") or of what a convolution gives."""

    def __init__(self, change: Callable[[Tensor], Tensor], where: str) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.change, self.where = change, where

    def forward(self, x: Tensor) -> Tensor:
        if self.where == "input":
            self.change(x)  # its result is in x
            return self.last(self.first(x))
        y = self.first(x)
        self.change(y)
        return self.last(y)


@pytest.mark.parametrize("where", ["input", "middle"])
@pytest.mark.parametrize("change", IN_PLACE)
def test_what_works_in_place_quantizes_to_what_it_computes(change, where):
    torch.manual_seed(0)
    module = InPlace(IN_PLACE[change], where).eval()
    x = torch.randn(16, 6, 8, 8)
    kept = x.clone()
    with torch.no_grad():
        expected = module(x.clone())
        graph = export_graph(module, x[:1])
        assert torch.allclose(graph(x), expected, atol=1e-6)
        assert snr(expected, calibrate(module, x[:1], x, SCHEME)(x)) > 30
    assert torch.equal(x, kept)  # the samples are as they were
    assert not any(
        node.op == "call_function"
        and isinstance(node.target, torch._ops.OpOverload)
        and node.target._schema.is_mutable
        for node in graph.graph.nodes
    )


def test_training_starts_from_the_same_function():
    torch.manual_seed(0)
    module, x = InPlace(_copy_into_slices, "middle").eval(), torch.randn(16, 6, 8, 8)
    with torch.no_grad():
        expected = module(x.clone())
    found = finish_qat(prepare_qat(module, x[:1], x, SCHEME), x[:1])(x)
    assert snr(expected, found) > 30


def test_overwritten_slices_become_one_concatenation():
    graph = export_graph(InPlace(_copy_into_slices, "middle").eval(), torch.randn(1, 6, 8, 8))
    joined = [node for node in graph.graph.nodes if node.target is aten.cat.default]
    assert len(joined) == 1
    assert len(joined[0].args[0]) == 3
    assert not any(node.target is aten.slice_scatter.default for node in graph.graph.nodes)


def _fill_a_channel(x: Tensor) -> Tensor:
    x[:, 1] = 0.5
    return x


def _scale_every_other_channel(x: Tensor) -> Tensor:
    x[:, ::2] *= 0.5
    return x


@pytest.mark.parametrize("change", [_fill_a_channel, _scale_every_other_channel])
def test_rows_that_are_overwritten_stay_on_a_grid(change):
    module, x = InPlace(change, "middle").eval(), torch.randn(16, 6, 8, 8)
    with torch.no_grad():
        expected = module(x.clone())
    graph = calibrate(module, x[:1], x.clone(), SCHEME)
    assert snr(expected, graph(x)) > 30
    assert float_islands(graph) == []


class Regions(nn.Module):
    """Parts without gradients, and parts for which automatic casting is off."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(device_type=x.device.type, enabled=False):
            x = F.relu(self.first(x)) * 2.0 + 1.0
        with torch.no_grad():
            x = x + torch.ones_like(x)
        output: Tensor = self.last(x.mean((2, 3)))
        return output


def test_regions_without_gradient_or_casting_are_inlined():
    torch.manual_seed(0)
    module, x = Regions().eval(), torch.randn(16, 3, 8, 8)
    graph = export_graph(module, x[:1])
    assert all(
        not isinstance(node.target, torch._ops.HigherOrderOperator) for node in graph.graph.nodes
    )
    with torch.no_grad():
        assert torch.allclose(graph(x), module(x), atol=1e-6)
        assert snr(module(x), calibrate(module, x[:1], x, SCHEME)(x)) > 30


@pytest.mark.parametrize("inplace", [False, True])
def test_batch_statistics_at_inference_are_refused_with_the_layers_name(inplace):
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8, track_running_stats=False),
        nn.ReLU(inplace=inplace),
    )
    with pytest.raises(InputError, match="batch norm '1' uses batch statistics at inference") as e:
        export_graph(module.eval(), torch.randn(1, 3, 8, 8), "stages.0")
    assert e.value.where == "stages.0"
    assert "track_running_stats=True" in e.value.hint


class Counting(nn.Module):
    """Outputs that depend on earlier calls or, with `read` off, a counter that no output reads."""

    seen: Tensor

    def __init__(self, read: bool) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        self.seen.mul_(0.5).add_(x.mean())
        return x * self.seen if self.read else x * 2


def test_a_network_that_remembers_its_calls_is_refused_with_the_buffers_name():
    with pytest.raises(InputError, match=r"forward\(\) changes the buffer 'seen'") as caught:
        export_graph(Counting(read=True), torch.ones(1, 3))
    assert "take it as an input and return it" in caught.value.hint


def test_a_counter_that_no_answer_reads_is_left_out():
    graph = export_graph(Counting(read=False), torch.ones(1, 3))
    assert torch.equal(graph(torch.ones(2, 3)), torch.full((2, 3), 2.0))
    assert list(graph.buffers()) == []


class Viewed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(x).view(x.size(0), -1, 4)


def test_a_view_to_the_batch_size_needs_no_size_operator():
    graph = export_graph(Viewed(), torch.randn(1, 2, 8))
    assert [node.target for node in graph.graph.nodes if node.op == "call_function"] == [
        aten.relu.default,
        aten.reshape.default,
    ]
    assert graph(torch.randn(3, 2, 8)).shape == (3, 4, 4)


REWRITTEN: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "stack": (lambda x: torch.stack([x, x + 1], -2).sum(-1), "aten.stack.default"),
    "stack of parts": (lambda x: torch.stack(x.chunk(2, 1), 1).flatten(1, 2), "aten.stack.default"),
    "sum": (lambda x: x.sum((2, 3)), "aten.sum.dim_IntList"),
    "sum that keeps its dimension": (lambda x: x.sum(-1, keepdim=True), "aten.sum.dim_IntList"),
    "repeat": (lambda x: x.repeat(1, 2, 1, 3), "aten.repeat.default"),
    "tile": (lambda x: x.tile(1, 2, 1, 1), "aten.tile.default"),
    "expand": (lambda x: x * x.mean(1, keepdim=True).expand(-1, 6, -1, -1), "aten.expand.default"),
    "normalize": (lambda x: F.normalize(x, dim=1), "aten.expand_as.default"),
    "reversed with a factor": (
        lambda x: torch.rsub(x, x.mean(1, keepdim=True), alpha=2),
        "aten.rsub.Tensor",
    ),
}


@pytest.mark.parametrize("name", REWRITTEN)
def test_an_operator_without_an_integer_kernel_becomes_some_that_have_one(name):
    function, operator = REWRITTEN[name]

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    x = torch.randn(3, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    graph = export_graph(Net(), x[:1])
    assert operator not in {str(node.target) for node in graph.graph.nodes}
    assert torch.allclose(graph(x), function(x), rtol=1e-5, atol=1e-6)


def test_a_sum_of_conditions_stays_a_sum():
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + (x > 0).sum(1, keepdim=True)

    graph = export_graph(Net(), torch.randn(1, 6))
    assert "aten.sum.dim_IntList" in {str(node.target) for node in graph.graph.nodes}
