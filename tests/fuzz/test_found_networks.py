"""Networks that were wrong once, found at random and made small."""

import pytest
from checks import Case
from programs import Program, Step
from run import CHECKS, outcome

CONVOLUTION = "nn.Conv2d({c}, 4, 3)"
FOUND = {
    "a batch norm over the steps behind a linear layer over features": (
        "export",
        (5, 16),
        Step("{layer}({0})", (0,), "nn.Linear({n}, 5)"),
        Step("{layer}({0})", (1,), "nn.BatchNorm1d({c})"),
    ),
    "a pool whose values are nearer to zero than its input's": (
        "qat",
        (3, 9, 7),
        Step("F.avg_pool2d({0}, 2)", (0,)),
        Step("{layer}({0})", (1,), "nn.Conv2d({c}, 4, 3, padding=1)"),
    ),
    "an average of one value and the zeros around it": (
        "ptq",
        (4, 8, 8),
        Step("F.adaptive_max_pool2d({0}, 1)", (0,)),
        Step("F.avg_pool2d({0}, 3, 1, 1)", (1,)),
        Step("F.avg_pool2d({0}, 3, 1, 1)", (2,)),
    ),
    "a network that answers nothing but zeros": (
        "prune",
        (3, 9, 7),
        Step("{layer}({0})", (0,), CONVOLUTION),
        Step("F.relu(-F.relu({0}))", (1,)),
        Step("{layer}({0})", (2,), "nn.Conv2d({c}, 4, 3, bias=False)"),
    ),
    "a softmax over one value": (
        "onnx",
        (1, 7),
        Step("{layer}({0})", (0,), "nn.Linear({n}, 4)"),
        Step("{layer}({0})", (0,), "nn.Linear({n}, 4)"),
        Step("torch.softmax({0} @ {1}.transpose(1, 2) / 2.0, -1)", (1, 2)),
        Step("{0} @ {1}", (3, 0)),
    ),
    "a linear layer over one column of pixels": (
        "tflite",
        (3, 9, 7),
        Step("{layer}({0})", (0,), "nn.Conv2d({c}, 4, (3, 7))"),
        Step("{layer}({0}.permute(0, 2, 3, 1))", (1,), "nn.Linear(4, 5)"),
        Step("{layer}({0}.permute(0, 3, 1, 2))", (2,), "nn.Conv2d(5, 4, 3, padding=1)"),
    ),
    "a sum with a factor": (
        "tflite",
        (3, 9, 7),
        Step("{layer}({0})", (0,), CONVOLUTION),
        Step("torch.add({0}, {1}, alpha=0.5)", (1, 1)),
    ),
    "columns that are expanded beside an image": (
        "tflite",
        (3, 9, 7),
        Step("{layer}({0})", (0,), CONVOLUTION),
        Step("{0}.amax(3, True).expand_as({0})", (1,)),
        Step("torch.cat([{0}, {1}], 1)", (1, 2)),
    ),
    "averages of some windows joined with others": (
        "tflite",
        (3, 9, 7),
        Step("{layer}({0})", (0,), CONVOLUTION),
        Step("F.adaptive_avg_pool2d({0}, (3, 7)).flatten(1)", (1,)),
        Step("F.adaptive_avg_pool2d({0}, 2).flatten(1)", (1,)),
        Step("torch.cat([{0}, {1}], 1)", (2, 3)),
    ),
    "one channel that is overwritten": (
        "tflite",
        (3, 9, 7),
        Step("{layer}({0})", (0,), CONVOLUTION),
        Step("{0}.select_scatter({0}[:, 1] + 1.0, 1, -2)", (1,)),
    ),
    "parts that are stacked and flattened in a network that works in place": (
        "tflite",
        (3, 9, 7),
        Step("{layer}({0})", (0,), CONVOLUTION),
        Step("{0}.add_(0.25)", (1,)),
        Step("{0}.chunk(2, 1)", (2,)),
        Step("{0}[0]", (3,)),
        Step("{0}[1]", (3,)),
        Step("torch.stack([{0}, {1}], 2).flatten(1, 2)", (4, 5)),
    ),
    "every other column clamped in place": (
        "tflite",
        (3, 9, 7),
        Step("{0}[..., ::2]", (0,)),
        Step("{0}.clamp_(-1.0, 1.0)", (1,)),
        Step("F.interpolate({0}, scale_factor=2.0)[..., ::2]", (2,)),
    ),
    "as much padding as keeps the length": (
        "tflite",
        (12, 7),
        Step("{layer}({0})", (0,), "nn.Conv1d({c}, 8, 3, padding='same')"),
        Step("{layer}({0})", (1,), "nn.Conv1d({c}, 8, 4, padding='same', dilation=2)"),
    ),
    "a clamp behind a table": (
        "tflite",
        (10,),
        Step("F.elu({0})", (0,)),
        Step("F.relu6({0})", (1,)),
    ),
    "a clamp behind a product": (
        "tflite",
        (3, 9, 7),
        Step("{layer}({0})", (0,), CONVOLUTION),
        Step("F.hardtanh({0} * {1} * 8.0)", (1, 1)),
    ),
    "a clamp behind a pool that has other readers": (
        "tflite",
        (3, 9, 7),
        Step("F.max_pool2d(4.0 * {0}, 2)", (0,)),
        Step("{0}.clamp(-0.5, 0.25)", (1,)),
        Step("F.relu6({0})", (1,)),
        Step("{0} + {1}", (2, 3)),
    ),
    "two clamps and a join, each on a grid of its own": (
        "tflite",
        (1, 8, 8),
        Step("{0} + {0}", (0,)),
        Step("F.relu(F.relu6({0}))", (1,)),
        Step("torch.cat([{0}, torch.maximum({0}, {1}), {2}], 1)", (0, 1, 2)),
    ),
    "a choice between a value and a table of it": (
        "tflite",
        (8,),
        Step("{layer}({0})", (0,), "nn.Linear({n}, 16)"),
        Step("torch.where({0} > 0, {0}, torch.expm1({0}) * 0.5)", (1,)),
        Step("{layer}({0})", (2,), "nn.Linear({n}, 3)"),
    ),
    "averages of a norm's values": (
        "tflite",
        (5, 8, 8),
        Step("{layer}({0})", (0,), "nn.InstanceNorm2d({c}, affine=True)"),
        Step("F.avg_pool2d({0}, 3, 1, 1)", (1,)),
        Step("{layer}({0})", (2,), CONVOLUTION),
    ),
    "a choice of a norm's values by their sign": (
        "tflite",
        (5, 8, 8),
        Step("{layer}({0})", (0,), "nn.InstanceNorm2d({c}, affine=True)"),
        Step("torch.where({0} > 0, {0}, 0.1 * {0})", (1,)),
        Step("{layer}({0})", (2,), CONVOLUTION),
    ),
    "averages over large windows, far smaller than what they average": (
        "qat",
        (1, 8, 8),
        Step("F.interpolate({0}, scale_factor=2.0)", (0,)),
        Step("{layer}({0})", (1,), "nn.Conv2d({c}, 4, 3, padding=1)"),
        Step("F.adaptive_avg_pool2d({0}, 2)", (2,)),
        Step("{0}.clamp(min=0)", (3,)),
    ),
    "a clamp that is reshaped and joined with larger values": (
        "tflite",
        (2, 8),
        Step("4.0 * {0}", (0,)),
        Step("{0}[:, :1]", (1,)),
        Step("F.relu6({0}).unsqueeze(2)", (2,)),
        Step("{0}[:, 1:].unsqueeze(2)", (1,)),
        Step("torch.cat([{0}, {1}], 2).flatten(1, 2)", (3, 4)),
    ),
    "an average over a dimension that was added before a product": (
        "tflite",
        (12, 7),
        Step("F.hardtanh({0}.unsqueeze(1))", (0,)),
        Step("{0}.mean((2, 3))", (1,)),
    ),
    "the largest values of a sum with a dimension that was added": (
        "tflite",
        (12, 7),
        Step("{0}.unsqueeze(1)", (0,)),
        Step("F.relu({0} / 3.0 + {0})", (1,)),
        Step("{0}.amax(3)", (2,)),
    ),
    "a max pool that rounds up in one of two dimensions": (
        "tflite",
        (8, 5, 6),
        Step("F.max_pool2d({0}, 3, 2, ceil_mode=True)", (0,)),
    ),
    "a matrix that is transposed, flattened and written in place": (
        "tflite",
        (2, 12, 12),
        Step("{layer}({0})", (0,), "nn.Linear({n}, 8)"),
        Step("{0}.permute(0, 3, 1, 2)", (1,)),
        Step("{0}.flatten(1)", (2,)),
        Step("{0} + 0.5", (3,)),
        Step("{0}[:, 1:].mul_(0.5)", (4,)),
        Step("F.hardtanh({0})", (4,)),
    ),
    "an input that is flattened in another order and written in place": (
        "tflite",
        (6, 6, 6),
        Step("{0}.permute(0, 3, 1, 2)", (0,)),
        Step("{0}.flatten(1)", (1,)),
        Step("{0}[:, 1:].mul_(0.5)", (2,)),
    ),
    "an input of which a narrow part is read on another grid": (
        "tflite",
        (6, 6, 6),
        Step("{0}.narrow(1, 0, 2)", (0,)),
        Step("{0}.permute(0, 2, 3, 1)", (1,)),
        Step("{layer}({0})", (2,), "nn.Linear({n}, 8)"),
        Step("{0}.permute(0, 3, 1, 2)", (3,)),
        Step("torch.cat([{0}, {1}, {1}], 1)", (4, 0)),
    ),
    "an attention in operators by their other names": (
        "tflite",
        (4, 6, 6),
        Step("{layer}({0})", (0,), "nn.Conv2d({c}, 8, 3, padding=1)"),
        Step("torch.hstack([{0}, {0}.multiply(2.0)]).clip(-1.5, 1.0).mT", (1,)),
        Step("F.glu(torch.concat([{0}, {0}.negative()], 1), 1)", (2,)),
        Step("torch.einsum('bchw,bchv->bcwv', {0}, {1}).softmax(-1)", (2, 3)),
        Step("torch.einsum('bcwv,bchv->bchw', {0}, {1}).clamp_max(0.7)", (4, 3)),
    ),
    "max pools that round up with padding": (
        "tflite",
        (4, 11, 12),
        Step("F.max_pool2d({0}, (5, 3), (3, 2), (1, 0), ceil_mode=True)", (0,)),
        Step("F.max_pool2d({0}, 5, 3, ceil_mode=True)", (1,)),
    ),
}


def _marked(name: str) -> object:
    """TFLite's converter takes some seconds."""
    return pytest.param(name, marks=[pytest.mark.slow] if FOUND[name][0] == "tflite" else [])


@pytest.mark.parametrize("name", map(_marked, FOUND))
def test_a_found_network_is_right(name: str) -> None:
    check, shape, *steps = FOUND[name]
    kind, words = outcome(CHECKS[check], Case(Program(shape, tuple(steps), 5)))
    assert kind in ("right", "rounding"), words
