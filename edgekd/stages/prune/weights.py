"""Single weights to zero: masks, the N:M pattern, and masks that move while the model trains."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgekd.stages.prune.allocation import Pool
from edgekd.stages.prune.criteria import Criterion
from edgekd.stages.prune.granularity import block_of, pattern_of
from edgekd.stages.prune.kinds import KERNELS, is_kernel
from edgekd.stages.prune.scoring import Scores

Masks = dict[str, Tensor]
"""By parameter name, in its shape: True where the weight is kept."""


def kernels(
    module: nn.Module, ignored: Callable[[str], bool], granularity: str = "weights"
) -> dict[str, Tensor]:
    """The weights of convolutions and linear layers by parameter name, without the ignored ones and
    those that the granularity does not fit.

    In an exported graph, which has no layers left, every parameter of two dimensions or more.
    """
    found = _all_kernels(module, ignored)
    unfit = unfit_kernels(module, ignored, granularity)
    return {name: value for name, value in found.items() if layer_of(name) not in unfit}


def unfit_kernels(
    module: nn.Module, ignored: Callable[[str], bool], granularity: str
) -> dict[str, str]:
    """The layers that a pattern or blocks don't fit, with the reason, the ignored left out."""
    if granularity == "weights":
        return {}
    reasons = {
        layer_of(name): _misfit(module, name, value, granularity)
        for name, value in _all_kernels(module, ignored).items()
    }
    return {name: reason for name, reason in reasons.items() if reason}


def layer_of(parameter: str) -> str:
    """The layer of a parameter by its name; the name itself in an exported graph."""
    return parameter.rpartition(".")[0] or parameter


def _all_kernels(module: nn.Module, ignored: Callable[[str], bool]) -> dict[str, Tensor]:
    if isinstance(module, torch.fx.GraphModule):
        return {
            name: value
            for name, value in module.named_parameters()
            if value.dim() >= 2 and not ignored(name.rpartition(".")[0])
        }
    return {
        f"{name}.weight" if name else "weight": part.weight
        for name, part in module.named_modules()
        if is_kernel(part) and not ignored(name)
    }


def _misfit(module: nn.Module, name: str, value: Tensor, granularity: str) -> str:
    """Why a pattern or blocks don't fit a weight: both count along dimension 1."""
    if not isinstance(module, torch.fx.GraphModule):
        layer = module.get_submodule(name.rpartition(".")[0])
        if not isinstance(layer, KERNELS):
            return "its weight is stored as inputs x outputs"
    pattern, block = pattern_of(granularity), block_of(granularity)
    outputs, inputs = value.shape[:2]
    if pattern and inputs % pattern[1]:
        return f"it has {inputs} input channels per filter, which is not divisible by {pattern[1]}"
    if block and (outputs % block[0] or inputs % block[1]):
        blocks = f"blocks of {granularity} don't divide"
        return f"it has {outputs} outputs and {inputs} inputs, which {blocks}"
    return ""


def masks_for(scores: Scores, kept: Mapping[str, int]) -> Masks:
    """The best `kept[name]` weights of each tensor; of equal scores the earlier ones."""
    masks = {}
    for name, count in kept.items():
        flat = scores[name].flatten()
        mask = torch.zeros(len(flat), dtype=torch.bool)
        mask[flat.argsort(descending=True, stable=True)[:count]] = True
        masks[name] = mask.view_as(scores[name])
    return masks


def pattern_mask(score: Tensor, keep: int, among: int) -> Tensor:
    """The best `keep` of every `among` neighbours along the input channels (dimension 1).

    That is the direction in which Ampere's sparse tensor cores want 2 of 4 (Mishra et al. 2021,
    arXiv:2104.08378). Dimension 1 must be a multiple of `among`.
    """
    last = score.movedim(1, -1)
    blocks = last.reshape(-1, among)
    best = blocks.argsort(dim=1, descending=True, stable=True)[:, :keep]
    mask = torch.zeros_like(blocks, dtype=torch.bool).scatter_(1, best, True)
    return mask.view(last.shape).movedim(-1, 1)


def block_scores(score: Tensor, rows: int, columns: int) -> Tensor:
    """(o / rows, i / columns, ...): the sum over each block, at every kernel position apart."""
    outputs, inputs, *rest = score.shape
    blocks = score.reshape(outputs // rows, rows, inputs // columns, columns, *rest)
    return blocks.sum((1, 3))


def block_mask(mask: Tensor, rows: int, columns: int) -> Tensor:
    """A mask of blocks as one of weights."""
    return mask.repeat_interleave(rows, 0).repeat_interleave(columns, 1)


def fits_pattern(weight: Tensor, keep: int, among: int) -> bool:
    """Whether no block of `among` neighbours has more than `keep` weights that aren't zero."""
    if weight.shape[1] % among:
        return False
    blocks = weight.movedim(1, -1).reshape(-1, among)
    return bool(((blocks != 0).sum(1) <= keep).all())


def apply_masks(module: nn.Module, masks: Masks) -> None:
    """Set the masked weights to zero, in place."""
    with torch.no_grad():
        for name, mask in masks.items():
            weight = module.get_parameter(name)
            weight.mul_(mask.to(weight.device))


def sparsity(module: nn.Module, names: Masks | Mapping[str, Any]) -> float:
    """The share of zeros among the named weights."""
    zeros = sum(int((module.get_parameter(name) == 0).sum()) for name in names)
    return zeros / sum(module.get_parameter(name).numel() for name in names)


def pools_of(scores: Scores) -> list[Pool]:
    """Each tensor's elements as a pool of single units."""
    return [Pool(name, value.flatten(), value.numel()) for name, value in scores.items()]


def cubic_share(amount: float, progress: float) -> float:
    """amount * (1 - (1 - t)^3) for t in [0, 1]; Zhu & Gupta 2017, eq. 1."""
    return amount * (1 - (1 - min(1.0, max(0.0, progress))) ** 3)


class MovingMask(nn.Module):
    """The weight as the layer sees it, w * mask, with scores that learn behind the mask.

    The gradient of w is masked; the criterion sees the one that is not (Sanh et al. 2020, eq. 3-4).
    """

    mask: Tensor
    scores: Tensor

    def __init__(self, weight: Tensor, criterion: Criterion) -> None:
        super().__init__()
        self.criterion = criterion
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))
        self.register_buffer("scores", torch.zeros_like(weight))

    def forward(self, weight: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            masked: Tensor = _StraightThrough.apply(weight, self)  # type: ignore[no-untyped-call]
            return masked
        return weight * self.mask


class _StraightThrough(torch.autograd.Function):
    """w -> w * mask; on the way back the scores learn from the gradient that the mask hides."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, moving: MovingMask) -> Tensor:
        ctx.moving = moving
        ctx.save_for_backward(weight)
        return weight * moving.mask

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weight,), moving = ctx.saved_tensors, ctx.moving
        with torch.no_grad():
            learned = moving.criterion.step(moving.scores, weight.detach(), gradients[0])
            moving.scores.copy_(learned)
        return gradients[0] * moving.mask, None


@contextmanager
def moving_masks(
    module: nn.Module, names: Mapping[str, Any], criterion: Criterion
) -> Iterator[dict[str, MovingMask]]:
    """Puts a `MovingMask` on each named weight; afterwards the weights have real zeros."""
    masks = {}
    for name in names:
        layer = module.get_submodule(name.rpartition(".")[0])
        masks[name] = MovingMask(module.get_parameter(name).detach(), criterion)
        parametrize.register_parametrization(layer, "weight", masks[name])
    try:
        yield masks
    finally:
        module.eval()
        for name in names:
            layer = module.get_submodule(name.rpartition(".")[0])
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
