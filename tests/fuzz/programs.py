"""A random network as data: steps that can be dropped, and the source of the module they make.

The network that is tested is the one whose source is printed, so a failure can be copied.
"""

import linecache
import re
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LARGEST = 6_000
"""Numbers in one sample of any value."""

_NAMES = {"torch": torch, "nn": nn, "F": F}


class Source(Protocol):
    """Makes the same network and the same samples each time."""

    def network(self) -> nn.Module: ...

    def samples(self, count: int) -> Tensor: ...


@dataclass(frozen=True)
class Step:
    """One value of a forward pass.

    `expression` names values `{0}`, `{1}` by their place in `inputs`, and its layer `{layer}`.
    `layer` makes the layer, with `{c}` and `{n}` for the second and the last size of the first
    input. A layer of an earlier step is used again with `shared`, or its weight with `tied`; both
    are numbers of steps.
    """

    expression: str
    inputs: tuple[int, ...]
    layer: str = ""
    shared: int | None = None
    tied: int | None = None

    @property
    def mutates(self) -> bool:
        """Whether the step changes a value that exists."""
        return bool(re.search(r"\w_\(|inplace=True", self.expression + self.layer))


@dataclass(frozen=True)
class Program:
    """Steps on values: 0 is the input (batch, *shape), step k makes value k + 1, the last one is
    the output."""

    shape: tuple[int, ...]
    steps: tuple[Step, ...]
    seed: int

    def source(self) -> str:
        """The network as a module. Raises what its layers raise if shapes don't fit."""
        trace = Trace(self.shape)
        for step in self.steps:
            trace.add(step)
        return trace.source()

    def network(self) -> nn.Module:
        """The module in eval mode, its weights drawn from the seed and its norms settled."""
        source, name = self.source(), f"<network {self.seed}>"
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        names: dict[str, Any] = dict(_NAMES)
        exec(compile(source, name, "exec"), names)
        torch.manual_seed(self.seed)
        module: nn.Module = names["Network"]()
        _draw_weights(module)
        _settle(module, self.samples(32))
        return module.eval()

    def samples(self, count: int) -> Tensor:
        """(count, *shape) from the seed."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(count, *self.shape, generator=generator)

    def without(self, number: int) -> "Program":
        """The program with a step left out: who read its value reads that step's first input."""
        gone = self.steps[number].inputs[0]

        def moved(value: int) -> int:
            value = gone if value == number + 1 else value
            return value - 1 if value > number + 1 else value

        def owner(step: int | None) -> int | None:
            return step - 1 if step is not None and step > number else step

        steps = [
            replace(
                step,
                inputs=tuple(map(moved, step.inputs)),
                shared=owner(step.shared),
                tied=owner(step.tied),
            )
            for place, step in enumerate(self.steps)
            if place != number
        ]
        return replace(self, steps=tuple(steps))

    def read_only(self) -> "Program":
        """The program without steps that nothing reads, unless they change what others read."""
        program = self
        for number in reversed(range(len(self.steps) - 1)):
            later = program.steps[number + 1 :]
            read = any(
                number + 1 in step.inputs or number in (step.shared, step.tied) for step in later
            )
            if not read and not program.steps[number].mutates:
                program = program.without(number)
        return program


@dataclass
class Trace:
    """A program while it is made: every step runs at once, so shapes are known."""

    shape: tuple[int, ...]
    steps: list[Step] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    layers: dict[int, Any] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = [torch.randn(3, *self.shape)]

    def add(self, step: Step) -> int:
        """The number of the value that the step makes. Raises if it does not run."""
        number = len(self.steps)
        layer = self._layer(step, number)
        names = [_name(each) for each in step.inputs]
        owner = number if step.shared is None else step.shared
        self.lines.append(f"{_name(number + 1)} = {_filled(step, names, f'self.l{owner}')}")
        known = {_name(each): self.values[each] for each in step.inputs}
        with torch.no_grad():
            value = eval(_filled(step, names, "layer"), {**_NAMES, **known, "layer": layer})
        for part in value if isinstance(value, tuple) else (value,):
            if not 0 < part[:1].numel() <= LARGEST or len(part) != 3 or part.dim() > 4:
                raise ValueError(f"shape {tuple(part.shape)}")
        self.steps.append(step)
        self.values.append(value)
        return number + 1

    def _layer(self, step: Step, number: int) -> Any:
        if step.shared is not None:
            return self.layers[step.shared]
        if not step.layer:
            return None
        first = self.values[step.inputs[0]]
        text = step.layer.replace("{c}", str(first.shape[1])).replace("{n}", str(first.shape[-1]))
        layer = eval(text, dict(_NAMES))
        self.layers[number] = layer.eval() if isinstance(layer, nn.Module) else layer
        self.made.append(f"self.l{number} = {text}")
        if step.tied is not None:
            if layer.weight.shape != self.layers[step.tied].weight.shape:
                raise ValueError("weights of other shapes can't be tied")
            self.made.append(f"self.l{number}.weight = self.l{step.tied}.weight")
        return layer

    def undo(self, count: int) -> None:
        """Back to the first `count` steps."""
        self.layers = {number: each for number, each in self.layers.items() if number < count}
        self.made = [
            line
            for line in self.made
            if int(re.match(r"self\.l(\d+)", line)[1]) < count  # type: ignore[index]
        ]
        del self.steps[count:], self.values[count + 1 :], self.lines[count:]

    def source(self) -> str:
        """The text of a module, with the imports that it needs left to the reader."""
        made = "".join(f"        {line}\n" for line in self.made)
        lines = "".join(f"        {line}\n" for line in self.lines)
        return (
            "class Network(nn.Module):  # input (batch, "
            f"{', '.join(map(str, self.shape))})\n"
            f"    def __init__(self):\n        super().__init__()\n{made}\n"
            f"    def forward(self, x):\n{lines}        return {_name(len(self.steps))}\n"
        )


def _name(value: int) -> str:
    return "x" if value == 0 else f"v{value}"


def _filled(step: Step, names: list[str], layer: str) -> str:
    text = step.expression.replace("{layer}", layer)
    for place, name in enumerate(names):
        text = text.replace(f"{{{place}}}", name)
    return text


def _draw_weights(module: nn.Module) -> None:
    """Weights that keep values near one, biases and norms of every channel their own."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            if value.dim() > 1 and name.endswith("weight"):
                value.normal_(0, (1.5 / value[0].numel()) ** 0.5)
            elif name.endswith("weight"):
                value.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                value.normal_(0, 0.2)


def _settle(module: nn.Module, samples: Tensor) -> None:
    """Batch norms with the statistics of samples."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for part in norms:
        part.momentum = 0.9
    with torch.no_grad():
        module.train()(samples.clone())
