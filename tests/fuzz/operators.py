"""The operators that random networks are made of. Each adds its steps behind one value."""

from collections.abc import Callable
from random import Random

from programs import Step, Trace
from torch import nn

Operator = Callable[[Random, Trace, int], int]
"""(what to draw from, the network until now, the value to go on from) -> the new value."""

CLAMPS = (
    "F.relu({0})",
    "F.relu6({0})",
    "{0}.clamp(-1.0, 1.5)",
    "F.hardtanh({0})",
    "{0}.clamp(min=0)",
)
SMOOTH = (
    "torch.sigmoid({0})",
    "torch.tanh({0})",
    "F.hardswish({0})",
    "F.hardsigmoid({0})",
    "F.leaky_relu({0}, 0.1)",
    "F.silu({0})",
    "F.gelu({0})",
    "F.elu({0})",
)
IN_PLACE = (
    "F.relu_({0})",
    "F.relu({0}, inplace=True)",
    "F.hardswish({0}, inplace=True)",
    "F.leaky_relu({0}, 0.2, inplace=True)",
    "{0}.clamp_(-1.0, 1.0)",
    "{0}.add_(0.25)",
    "{0}.mul_(0.75)",
    "{0}[:, 1:].mul_(0.5)",
    "{0}[..., :1].zero_()",
)
NUMBERS = ("{0} + 0.5", "{0} * 1.5", "1.0 - {0}", "{0} / 3.0", "-{0}", "{0} - 0.25")
MOVED = (
    "{0}[:, ::2]",
    "{0}[:, 1:]",
    "{0}[..., 1:]",
    "{0}[..., ::2]",
    "{0}.roll(1, 1)",
    "{0}.flip(1)",
    "{0}.transpose(1, -1)",
    "{0}.narrow(1, 0, 2)",
    "{0}.contiguous().clone()",
)


def one_of(expressions: tuple[str, ...]) -> Operator:
    """An operator that is one expression of a value."""

    def add(rng: Random, net: Trace, value: int) -> int:
        return net.add(Step(rng.choice(expressions), (value,)))

    return add


def layer(*texts: str) -> Operator:
    """An operator that is one of these layers, in words of `Step.layer`."""

    def add(rng: Random, net: Trace, value: int) -> int:
        return net.add(Step("{layer}({0})", (value,), rng.choice(texts)))

    return add


def convolution(rng: Random, net: Trace, value: int) -> int:
    outputs, kernel = (
        rng.choice([4, 5, 6, 8, 12, 16]),
        rng.choice(["1", "3", "3", "3", "5", "(1, 3)"]),
    )
    words = [f"nn.Conv2d({{c}}, {outputs}, {kernel}"]
    if rng.random() < 0.15:
        words.append("padding='same'")
    else:
        pads = {"1": "0", "3": "1", "5": "2", "(1, 3)": "(0, 1)"}
        words.append(f"padding={rng.choice([pads[kernel], pads[kernel], '0'])}")
        words += rng.choice([[], [], [], ["stride=2"], ["stride=(2, 1)"], ["dilation=2"]])
    if rng.random() < 0.06:
        words.append(f"padding_mode='{rng.choice(['reflect', 'replicate', 'circular'])}'")
    words += rng.choice([[], [], ["bias=False"]])
    return net.add(Step("{layer}({0})", (value,), ", ".join(words) + ")"))


def grouped(rng: Random, net: Trace, value: int) -> int:
    channels = net.values[value].shape[1]
    stride, groups = rng.choice([1, 1, 2]), rng.choice([channels, channels, 2])
    outputs = channels * rng.choice([1, 1, 2])
    text = f"nn.Conv2d({channels}, {outputs}, 3, padding=1, stride={stride}, groups={groups})"
    return net.add(Step("{layer}({0})", (value,), text))


def block(rng: Random, net: Trace, value: int) -> int:
    """Convolution, batch norm, activation: what most networks are made of."""
    value = rng.choice([convolution, convolution, grouped])(rng, net, value)
    value = net.add(Step("{layer}({0})", (value,), "nn.BatchNorm2d({c})"))
    return rng.choice(
        [one_of(CLAMPS), one_of(SMOOTH), layer("nn.ReLU(inplace=True)", "nn.ReLU6(inplace=True)")]
    )(rng, net, value)


def convolution_1d(rng: Random, net: Trace, value: int) -> int:
    outputs, rest = (
        rng.choice([4, 6, 8, 12]),
        rng.choice(["padding=1", "stride=2", "padding='same'"]),
    )
    text = f"nn.Conv1d({{c}}, {outputs}, 3, {rest})"
    return net.add(Step("{layer}({0})", (value,), text))


def linear(rng: Random, net: Trace, value: int) -> int:
    bias = rng.choice(["", "", ", bias=False"])
    text = f"nn.Linear({{n}}, {rng.choice([4, 6, 8, 12, 16])}{bias})"
    return net.add(Step("{layer}({0})", (value,), text))


def parameter(rng: Random, net: Trace, value: int) -> int:
    """A learned constant for each channel, added or multiplied."""
    ones = [1] * (net.values[value].dim() - 2)
    sizes = ", ".join(["1", "{c}", *map(str, ones)])
    expression = rng.choice(["{0} + {layer}", "{0} * {layer}", "{layer} - {0}"])
    return net.add(Step(expression, (value,), f"nn.Parameter(0.5 + torch.rand({sizes}))"))


def _others(net: Trace, value: int, same: tuple[int, ...]) -> list[int]:
    """Other values with the same number of dimensions, and the same sizes in some."""
    shape = net.values[value].shape
    return [
        number
        for number, other in enumerate(net.values)
        if number != value and not isinstance(other, tuple) and len(other.shape) == len(shape)
        if all(other.shape[dim] == shape[dim] for dim in same)
    ]


def _branch(rng: Random, net: Trace, value: int) -> int:
    """Another value of the same sizes: one that exists, or a layer's."""
    dims = net.values[value].dim()
    found = _others(net, value, tuple(range(1, dims)))
    if found and rng.random() < 0.7:
        return rng.choice(found)
    channels = net.values[value].shape[1]
    if dims == 2:
        return net.add(Step("{layer}({0})", (value,), "nn.Linear({n}, {n})"))
    return net.add(
        Step("{layer}({0})", (value,), f"nn.Conv{dims - 2}d({{c}}, {channels}, 3, padding=1)")
    )


def merge(rng: Random, net: Trace, value: int) -> int:
    other = _branch(rng, net, value)
    expressions = ["{0} + {1}"] * 4 + [
        "{0} - {1}",
        "{0} * torch.sigmoid({1})",
        "F.relu({0} + {1})",
        "torch.maximum({0}, {1})",
        "{0}.add_({1})",
        "torch.add({0}, {1}, alpha=0.5)",
    ]
    return net.add(Step(rng.choice(expressions), (value, other)))


def concatenation(rng: Random, net: Trace, value: int) -> int:
    dims = net.values[value].dim()
    dim = rng.choice([1, 1, 1, dims - 1])
    found = _others(net, value, tuple(each for each in range(1, dims) if each != dim))
    others = [rng.choice(found or [value]) for _ in range(rng.choice([1, 1, 2]))]
    if not found:
        others[0] = _branch(rng, net, value)
    if rng.random() < 0.1:
        others[-1] = value
    places = [value, *others]
    rng.shuffle(places)
    names = ", ".join(f"{{{place}}}" for place in range(len(places)))
    return net.add(Step(f"torch.cat([{names}], {dim})", tuple(places)))


def split(rng: Random, net: Trace, value: int) -> int:
    """Parts of the channels, one of them changed, joined in any order or added."""
    channels = net.values[value].shape[1]
    first = rng.randint(1, max(1, channels - 1))
    even = channels % 2 == 0
    how = (
        "{0}.chunk(2, 1)"
        if even and rng.random() < 0.6
        else f"{{0}}.split([{first}, {channels - first}], 1)"
    )
    parts = net.add(Step(how, (value,)))
    a, b = (net.add(Step(f"{{0}}[{place}]", (parts,))) for place in (0, 1))
    ways = [one_of(CLAMPS), one_of(SMOOTH), one_of(NUMBERS)]
    a = rng.choice(ways)(rng, net, a)
    joins = ["torch.cat([{1}, {0}], 1)", "torch.cat([{0}, {1}], 1)"]
    if "chunk" in how or first * 2 == channels:
        joins += [
            "{0} + {1}",
            "{0} * torch.sigmoid({1})",
            "torch.stack([{0}, {1}], 2).flatten(1, 2)",
        ]
    return net.add(Step(rng.choice(joins), (a, b)))


def squeeze_and_excite(rng: Random, net: Trace, value: int) -> int:
    channels = net.values[value].shape[1]
    pooled = net.add(
        Step(
            rng.choice(["F.adaptive_avg_pool2d({0}, 1)", "{0}.mean((2, 3), keepdim=True)"]),
            (value,),
        )
    )
    inner = net.add(Step("F.relu({layer}({0}))", (pooled,), "nn.Conv2d({c}, 4, 1)"))
    gate = rng.choice(["torch.sigmoid", "F.hardsigmoid"])
    outer = net.add(Step(f"{gate}({{layer}}({{0}}))", (inner,), f"nn.Conv2d({{c}}, {channels}, 1)"))
    return net.add(Step("{0} * {1}", (value, outer)))


def last_layers(rng: Random, net: Trace, value: int) -> int:
    """A linear layer over the channels of an image, moved to the end and back."""
    moved = net.add(Step("{0}.permute(0, 2, 3, 1)", (value,)))
    moved = linear(rng, net, moved)
    if rng.random() < 0.3:
        moved = net.add(Step("{layer}({0})", (moved,), "nn.LayerNorm({n})"))
    return net.add(Step("{0}.permute(0, 3, 1, 2)", (moved,)))


def attention(rng: Random, net: Trace, value: int) -> int:
    """Weights from products of all positions of (B, T, C)."""
    query, key = linear_to_4(net, value), linear_to_4(net, value)
    weights = net.add(Step("torch.softmax({0} @ {1}.transpose(1, 2) / 2.0, -1)", (query, key)))
    return net.add(Step("{0} @ {1}", (weights, value)))


def linear_to_4(net: Trace, value: int) -> int:
    return net.add(Step("{layer}({0})", (value,), "nn.Linear({n}, 4)"))


def again(rng: Random, net: Trace, value: int) -> int:
    """A layer of an earlier step once more: itself, or another with its weight."""
    fitting = [
        number
        for number, made in net.layers.items()
        if isinstance(made, nn.Conv1d | nn.Conv2d | nn.Linear | nn.BatchNorm2d)
        and net.steps[number].expression == "{layer}({0})"
        and net.steps[number].shared is None
    ]
    rng.shuffle(fitting)
    for number in fitting:
        step = net.steps[number]
        candidates = [value, *_others(net, value, ())]
        wanted = net.values[step.inputs[0]]
        dim = -1 if isinstance(net.layers[number], nn.Linear) else 1
        for other in candidates:
            have = net.values[other]
            if have.dim() == wanted.dim() and have.shape[dim] == wanted.shape[dim]:
                if rng.random() < 0.5 or step.tied is not None or "Norm" in step.layer:
                    return net.add(Step("{layer}({0})", (other,), shared=number))
                return net.add(Step("{layer}({0})", (other,), step.layer, tied=number))
    raise ValueError("no layer fits")


IMAGE: dict[Operator, float] = {
    block: 5,
    convolution: 3,
    grouped: 2,
    layer("nn.BatchNorm2d({c})"): 1,
    one_of(CLAMPS): 2,
    one_of(SMOOTH): 2,
    one_of(IN_PLACE): 2,
    one_of(NUMBERS): 1,
    one_of(MOVED): 1.5,
    parameter: 0.7,
    merge: 4,
    concatenation: 3,
    split: 2,
    squeeze_and_excite: 1,
    last_layers: 1,
    again: 2,
    one_of(
        (
            "F.max_pool2d({0}, 2)",
            "F.max_pool2d({0}, 3, 2, 1)",
            "F.avg_pool2d({0}, 2)",
            "F.avg_pool2d({0}, 3, 1, 1)",
            "F.avg_pool2d({0}, 3, 1, 1, count_include_pad=False)",
            "F.max_pool2d({0}, 3, 2, ceil_mode=True)",
            "F.adaptive_avg_pool2d({0}, 2)",
            "F.adaptive_max_pool2d({0}, 1)",
        )
    ): 2,
    one_of(
        (
            "F.pad({0}, (1, 0, 0, 1))",
            "F.pad({0}, (1, 1, 1, 1), value=0.5)",
            "F.pad({0}, (0, 0, 0, 0, 1, 2))",
            "F.pad({0}, (1, 1, 1, 1), mode='reflect')",
        )
    ): 1,
    one_of(
        (
            "F.interpolate({0}, scale_factor=2.0)",
            "F.interpolate({0}, scale_factor=2.0, mode='bilinear')",
            "F.channel_shuffle({0}, 2)",
            "F.pixel_shuffle({0}, 2)",
            "F.pixel_unshuffle({0}, 2)",
        )
    ): 1.5,
    layer("nn.GroupNorm(1, {c})", "nn.InstanceNorm2d({c}, affine=True)", "nn.Softmax(1)"): 0.5,
    layer("nn.ConvTranspose2d({c}, 6, 2, stride=2)"): 0.5,
    one_of(
        (
            "{0}.flatten(2)",
            "{0}.flatten(2).transpose(1, 2)",
            "{0}.permute(0, 2, 3, 1).flatten(1, 2)",
            "{0}.mean(2)",
            "{0}.amax(3)",
        )
    ): 0.6,
    one_of(
        (
            "{0}.flatten(1)",
            "{0}.mean((2, 3))",
            "{0}.permute(0, 2, 3, 1).flatten(1)",
            "{0}.reshape({0}.size(0), -1)",
        )
    ): 0.3,
}

SEQUENCE: dict[Operator, float] = {
    convolution_1d: 3,
    linear: 3,
    layer("nn.BatchNorm1d({c})"): 1,
    layer("nn.LayerNorm({n})"): 1,
    layer("nn.MaxPool1d(2)", "nn.AvgPool1d(3, 1, 1)", "nn.AdaptiveAvgPool1d(4)"): 1,
    one_of(CLAMPS): 2,
    one_of(SMOOTH): 1,
    one_of(IN_PLACE): 1,
    one_of(NUMBERS): 1,
    one_of(MOVED): 2,
    parameter: 0.5,
    merge: 2,
    concatenation: 2,
    split: 1,
    attention: 1,
    again: 2,
    one_of(("{0}.unsqueeze(-1)", "{0}.unflatten(-1, (2, -1))", "{0}.unsqueeze(1)")): 0.5,
    one_of(("{0}.flatten(1)", "{0}.mean(1)", "{0}[:, -1]", "{0}.transpose(1, 2).flatten(1)")): 0.4,
}

VECTOR: dict[Operator, float] = {
    linear: 4,
    layer("nn.BatchNorm1d({c})"): 1,
    layer("nn.LayerNorm({n})", "nn.Softmax(-1)"): 0.3,
    one_of(CLAMPS): 2,
    one_of(SMOOTH): 1,
    one_of(IN_PLACE): 1,
    one_of(NUMBERS): 1,
    one_of(MOVED): 0.5,
    parameter: 0.5,
    merge: 2,
    concatenation: 2,
    split: 1,
    again: 1,
    one_of(("{0}.unflatten(1, (2, -1))", "{0}.unsqueeze(-1).unsqueeze(-1)")): 0.3,
}

BY_RANK = {4: IMAGE, 3: SEQUENCE, 2: VECTOR}
