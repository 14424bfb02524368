"""Computes a criterion's scores, from batches with gradients or during training."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.data.samples import Data
from edgekd.data.seeds import seeded_generator
from edgekd.errors import InputError
from edgekd.network.conv1d import is_linear_by_columns
from edgekd.stages.prune.criteria import Criterion
from edgekd.stages.prune.groups import Group, Member
from edgekd.stages.prune.kinds import (
    NORMS,
    RECURRENT,
    is_kernel,
    makes_in_columns,
    recurrent_weights,
)
from edgekd.values.tree import Tree

BATCH = 64

Train = Callable[[nn.Module, nn.Module], None]
"""train(module, companions): trains the module in place; companions' buffers are kept with it."""

Scores = dict[str, Tensor]
"""By parameter name, in its shape; by `LAYER.outputs`, (C,), for scores of layer outputs."""


def judged(module: nn.Module, criterion: Criterion) -> dict[str, nn.Parameter]:
    """The parameters that a criterion reads, by name.

    With signed scores also the norms' scales: a kernel before a batch norm can grow or shrink as a
    whole without any effect, so that the sum of w * dL/dw over a channel of it is zero.
    """
    if isinstance(module, fx.GraphModule):  # which has no layers left
        return {name: value for name, value in module.named_parameters() if value.dim() >= 2}
    return {
        f"{name}.{weight}".removeprefix("."): getattr(part, weight)
        for name, part in module.named_modules()
        for weight in _judged_of(part, criterion)
        if isinstance(getattr(part, weight), nn.Parameter)
    }


def _judged_of(layer: nn.Module, criterion: Criterion) -> list[str]:
    """The layer's own names of the parameters that a criterion reads."""
    norms = criterion.reads == "norms" or criterion.moves
    kernels = criterion.reads != "norms" or criterion.moves
    if kernels and isinstance(layer, RECURRENT):
        return recurrent_weights(layer)
    wanted = (norms and isinstance(layer, NORMS)) or (kernels and is_kernel(layer))
    return ["weight"] if wanted else []


def score(
    module: nn.Module,
    criterion: Criterion,
    *,
    data: Data,
    samples: int,
    seed: int,
    train: Train,
) -> Scores:
    """The scores of everything that the criterion reads. A criterion that needs training trains the
    module; otherwise the module is not changed.
    """
    if criterion.reads == "outputs":
        return _outputs_scored(module, criterion, data, samples, seed)
    parameters = judged(module, criterion)
    first = {name: value.detach().clone() for name, value in parameters.items()}
    tally = _Tally(first)
    if criterion.needs == "gradients":
        with _watching(parameters, criterion, tally):
            for x, y in _batches(data, samples, seed):
                module.zero_grad(set_to_none=True)
                data.task.label_loss(data.task.main(module(x)), y).backward()  # type: ignore[no-untyped-call]
        module.zero_grad(set_to_none=True)
    elif criterion.needs == "training":
        with _watching(parameters, criterion, tally):
            train(module, tally)
    steps = int(tally.steps) // max(1, len(first))
    scores = {
        name: criterion.finish(tally.of(name), first[name], value.detach(), steps)
        for name, value in parameters.items()
    }
    for name, values in scores.items():
        if not values.isfinite().all():
            raise InputError(
                "the scores are not finite",
                where=name,
                hint="check the weights and the data for NaN",
            )
    return scores


class _Tally(nn.Module):
    """The running scores as buffers, so that training checkpoints include them."""

    steps: Tensor

    def __init__(self, like: Scores) -> None:
        super().__init__()
        self.keys = {name: f"score_{number}" for number, name in enumerate(like)}
        for name, key in self.keys.items():
            self.register_buffer(key, torch.zeros_like(like[name]))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def of(self, name: str) -> Tensor:
        return self.get_buffer(self.keys[name])


@contextmanager
def _watching(
    parameters: dict[str, nn.Parameter], criterion: Criterion, tally: _Tally
) -> Iterator[None]:
    """Passes each parameter to the criterion after backward and before the optimizer's step."""

    def watch(name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            assert parameter.grad is not None
            running = tally.of(name)
            value, gradient = parameter.detach(), parameter.grad.detach()
            running.copy_(criterion.step(running, value, gradient))
            tally.steps.add_(1)

        return hook

    with ExitStack() as hooks:
        for name, parameter in parameters.items():
            hook = parameter.register_post_accumulate_grad_hook(watch(name))  # type: ignore[no-untyped-call]
            hooks.enter_context(hook)
        yield


def _batches(data: Data, samples: int, seed: int) -> Iterator[tuple[Tree, Tree]]:
    """Training samples in a seeded order, in batches."""
    generator = seeded_generator(seed, "scoring")
    chosen = torch.randperm(len(data.train), generator=generator)[:samples]
    for index in torch.split(chosen, BATCH):
        yield data.train.gather(index)


def _outputs_scored(
    module: nn.Module, criterion: Criterion, data: Data, samples: int, seed: int
) -> Scores:
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def keep(name: str, last: bool) -> Callable[..., None]:
        def hook(part: nn.Module, inputs: Any, output: Tensor) -> None:
            # Channels lie in dimension 1, but last for linear layers and layer norms.
            channels = output.detach().movedim(-1 if last else 1, -1).flatten(0, -2)
            zero = torch.zeros_like(channels)
            value = criterion.step(zero, channels, zero).sum(0)
            key = f"{name}.outputs"
            sums[key] = sums.get(key, torch.zeros_like(value)) + value
            counts[key] = counts.get(key, 0) + len(channels)

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for name, part in module.named_modules():
            if is_kernel(part) or isinstance(part, NORMS):
                last = isinstance(part, nn.Linear | nn.LayerNorm) or is_linear_by_columns(part)
                hook = keep(name, last)
                hooks.enter_context(part.register_forward_hook(hook))
        for x, _ in _batches(data, samples, seed):
            module(x)
    return {key: criterion.finish(value, value, value, counts[key]) for key, value in sums.items()}


def unit_scores(module: nn.Module, group: Group, scores: Scores, criterion: Criterion) -> Tensor:
    """(units,): the mean over the layers that a channel runs through, then over the unit.

    Of output scores only those of the last kind count: after the normalization, if there is one.
    """
    if criterion.reads == "order":
        return in_place(group)
    total = torch.zeros(group.channels, dtype=torch.float64)
    count = torch.zeros(group.channels, dtype=torch.float64)
    for member in scored_members(module, group, criterion):
        layer = module.get_submodule(member.layer)
        outputs = criterion.reads == "outputs"
        key = "outputs" if outputs else member.parameter
        found = scores.get(f"{member.layer}.{key}".removeprefix("."))
        if found is None:
            continue
        values = found if found.dim() == 1 else per_channel(layer, found, member.axis)
        values = criterion.channel(values.double())[list(member.indices)]
        roots = torch.tensor(member.roots)
        total.index_add_(0, roots, values)
        count.index_add_(0, roots, torch.ones_like(values))
    mean = total / count
    if criterion.reads == "weights" and criterion.needs == "nothing":
        mean[~alive_channels(module, group)] = 0  # whatever the weights of its readers are
    units = torch.stack([mean[list(unit)].nanmean() for unit in group.units])
    if units.isnan().any():
        raise InputError("the criterion has no score for its channels", where=group.name)
    return units


def in_place(group: Group) -> Tensor:
    """(units,): scores by which the first units stay."""
    return torch.arange(len(group.units), 0, -1, dtype=torch.float32)


def alive_channels(module: nn.Module, group: Group) -> Tensor:
    """(channels,) False where the layers that produce a channel output only zeros for it."""
    made = torch.zeros(group.channels, dtype=torch.bool)
    normed = torch.zeros(group.channels, dtype=torch.bool)
    shifted = torch.zeros(group.channels, dtype=torch.bool)
    known = False
    for member in group.members:
        layer: Any = module.get_submodule(member.layer)
        if member.axis != "out" or isinstance(layer, (nn.Embedding, *RECURRENT)):
            known = known or isinstance(layer, (nn.Embedding, *RECURRENT))
            continue
        roots, indices = torch.tensor(member.roots), list(member.indices)
        shift = _nonzero(layer.bias, indices)
        if isinstance(layer, NORMS):
            shift = shift | _nonzero(getattr(layer, "running_mean", None), indices)
            shifted[roots] |= shift
            normed[roots] |= _nonzero(layer.weight, indices)
        else:
            sums = per_channel(layer, layer.weight.detach().abs(), "out")
            made[roots] |= (sums[indices] != 0) | shift
    if known:
        return torch.ones_like(made)
    return shifted | (made if not normed.any() else made & normed)


def _nonzero(values: Tensor | None, indices: list[int]) -> Tensor:
    if values is None:
        return torch.zeros(len(indices), dtype=torch.bool)
    return values.detach()[indices] != 0


def scored_members(module: nn.Module, group: Group, criterion: Criterion) -> list[Member]:
    """The layers whose scores rank a group's channels; none if the criterion reads none of them."""
    layers = {member: module.get_submodule(member.layer) for member in group.members}
    if criterion.reads == "outputs":
        made = {each: part for each, part in layers.items() if each.axis == "out"}
        normed = [each for each, part in made.items() if isinstance(part, NORMS)]
        return normed or [each for each, part in made.items() if is_kernel(part)]
    return [each for each, part in layers.items() if each.parameter in _judged_of(part, criterion)]


def per_channel(layer: nn.Module, values: Tensor, axis: str) -> Tensor:
    """Sums of a kernel's values for each channel on one side: (out, in/groups, ...) -> (C,)."""
    groups = int(getattr(layer, "groups", 1))
    if makes_in_columns(layer):
        axis = "in" if axis == "out" else "out"
    if axis == "out":
        return values.flatten(1).sum(1)
    flat = values.flatten(2).sum(2) if values.dim() > 2 else values
    return flat.reshape(groups, -1, flat.shape[1]).sum(1).flatten()
