"""Zeros among the weights: single ones, blocks or N:M, step by step or while the model trains."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.network.evaluation import evaluate
from edgekd.stages._replacing import kept_weights
from edgekd.stages.prune.criteria import Criterion
from edgekd.stages.prune.granularity import block_of, pattern_of
from edgekd.stages.prune.recovery import recovered, scored, train_to_the_end
from edgekd.stages.prune.scoring import Scores
from edgekd.stages.prune.spec import PruneSpec
from edgekd.stages.prune.structured import share_out
from edgekd.stages.prune.weights import (
    Masks,
    MovingMask,
    apply_masks,
    block_mask,
    block_scores,
    cubic_share,
    fits_pattern,
    kernels,
    masks_for,
    moving_masks,
    pattern_mask,
    pools_of,
    sparsity,
)
from edgekd.training.checkpoint import read_tensors, write_tensors
from edgekd.training.context import Context

COOL_DOWN = 0.3
"""The last share of movement pruning, in which the masks stay fixed."""

MOVE_EVERY = 4
"""Steps between two rankings of the scores, each of which takes as long as a training step."""

SHARES = (0.25, 0.5, 0.75, 0.9)
"""The shares at which sensitivity is measured."""


@dataclass(frozen=True)
class Sparsity:
    """What the recipe asks of the weights; `amount` is None for N:M, which implies it.

    `parts` are the shares of the amount that are pruned after each step, `epochs` how long each
    step recovers.
    """

    granularity: str
    amount: float | None
    spec: PruneSpec
    parts: Sequence[float]
    epochs: Sequence[int]

    def choose(self, scores: Scores, part: float, drops: "Drops") -> Masks:
        """The masks with `part` of the amount pruned."""
        pattern = pattern_of(self.granularity)
        if pattern:
            keep, among = pattern
            keep = among - round((among - keep) * part)
            return {name: pattern_mask(value, keep, among) for name, value in scores.items()}
        assert self.amount is not None
        units = {name: self.units(value) for name, value in scores.items()}
        finite = {name: torch.nan_to_num(value, neginf=0.0) for name, value in units.items()}
        kept = share_out(pools_of(finite), self.spec, self.amount * part, drops(units))
        return {name: self.whole(mask) for name, mask in masks_for(units, kept).items()}

    def units(self, score: Tensor) -> Tensor:
        """The competing units: each weight, or the sum over each block."""
        block = block_of(self.granularity)
        return block_scores(score, *block) if block else score

    def whole(self, mask: Tensor) -> Tensor:
        """The mask of the weights from that of the units."""
        block = block_of(self.granularity)
        return block_mask(mask, *block) if block else mask


Drops = Callable[[Scores], dict[str, list[tuple[float, float]]]]
"""Measures, given the units' scores, the accuracy that each layer loses at each share."""


def _unmeasured(scores: Scores) -> dict[str, list[tuple[float, float]]]:
    return {}


def stepwise(
    module: nn.Module,
    wanted: Sparsity,
    make_criterion: Callable[[], Criterion],
    context: Context,
) -> tuple[nn.Module, Masks]:
    """Score, zero and recover, once per part; zeros stay zeros."""
    start, names = module, list(kernels(module, wanted.spec.ignores, wanted.granularity))
    masks: Masks = {}
    for number, (part, epochs) in enumerate(zip(wanted.parts, wanted.epochs, strict=True), 1):
        context.progress("prune", number - 1, len(wanted.parts))
        step = context.phase(f"step-{number}")
        module, masks = _masked(module, wanted, part, names, make_criterion(), step)
        hold = partial(apply_masks, masks=masks)
        again = partial(recovered, module, step, epochs, hold)
        module = kept_weights(step.work / "recovered.safetensors", start, again)
    return module.eval(), masks


def _masked(
    module: nn.Module,
    wanted: Sparsity,
    part: float,
    names: Sequence[str],
    criterion: Criterion,
    context: Context,
) -> tuple[nn.Module, Masks]:
    """A copy with new masks applied, and the masks; both from disk if this was done before."""
    file = context.work / "masked.safetensors"
    stored = read_tensors(file)
    if stored is not None:
        masked = copy.deepcopy(module)
        masks = {name: stored[0][f"mask.{name}"] for name in names}
        masked.load_state_dict(
            {k.removeprefix("state."): v for k, v in stored[0].items() if k.startswith("state.")}
        )
        return masked, masks
    judged, scores = scored(module, criterion, wanted.spec, context)
    # What was pruned in an earlier step stays so.
    for name in names:
        gone = wanted.whole(wanted.units((module.get_parameter(name).detach() != 0).double()) == 0)
        scores[name] = scores[name].masked_fill(gone, float("-inf"))
    chosen = {name: scores[name] for name in names}
    sensitive = wanted.spec.allocation == "sensitivity"
    drops = partial(_drops, judged, wanted, context) if sensitive else _unmeasured
    masks = wanted.choose(chosen, part, drops)
    apply_masks(judged, masks)
    state = {f"state.{key}": value for key, value in judged.state_dict().items()}
    context.work.mkdir(parents=True, exist_ok=True)
    write_tensors(file, state | {f"mask.{key}": mask for key, mask in masks.items()}, {})
    return judged, masks


def _drops(
    module: nn.Module, wanted: Sparsity, context: Context, units: Scores
) -> dict[str, list[tuple[float, float]]]:
    """Accuracy lost by zeroing the worst units of one layer at a time, at each of `SHARES`."""
    samples = context.data.validation
    before, drops = evaluate(module, samples), {}
    for number, (name, scores) in enumerate(units.items()):
        context.progress("sensitivity", number, len(units))
        measured = []
        for share in SHARES:
            tried = copy.deepcopy(module)
            kept = masks_for({name: scores}, {name: round(scores.numel() * (1 - share))})
            apply_masks(tried, {name: wanted.whole(kept[name])})
            measured.append((share, before - evaluate(tried, samples)))
        drops[name] = measured
    return drops


def moved(module: nn.Module, wanted: Sparsity, criterion: Criterion, context: Context) -> nn.Module:
    """Train with masks that follow the scores, and with fixed masks in the last part of the steps.

    The amount rises by the cubic schedule (Sanh et al. 2020, section 4); N:M begins half-way.
    """
    module = copy.deepcopy(module)
    names = kernels(module, wanted.spec.ignores, wanted.granularity)
    with moving_masks(module, names, criterion) as masks:

        def on_step(step: int, total: int) -> None:
            rising = math.ceil(total * (1 - COOL_DOWN))
            if step <= rising and (step % MOVE_EVERY == 0 or step == rising):
                _move(masks, wanted, criterion, step / rising)

        train_to_the_end(module, context, sum(wanted.epochs), on_step=on_step)
    return module.eval()


def _move(
    masks: dict[str, MovingMask], wanted: Sparsity, criterion: Criterion, progress: float
) -> None:
    scores = {
        name: criterion.finish(each.scores, each.scores, each.scores, 1)
        for name, each in masks.items()
    }
    half = float(progress >= 0.5)
    part = half if pattern_of(wanted.granularity) else cubic_share(1.0, progress)
    for name, mask in wanted.choose(scores, part, _unmeasured).items():
        masks[name].mask.copy_(mask)


def zeros_line(
    module: nn.Module, granularity: str, name: str, allocation: str, masks: Masks
) -> str:
    """The lineage's line: how many zeros there are; N:M is verified and blocks are counted."""
    pattern, block = pattern_of(granularity), block_of(granularity)
    share, proof = sparsity(module, masks), ""
    if pattern:
        for layer in masks:
            if not fits_pattern(module.get_parameter(layer), *pattern):
                raise InputError(f"the result violates the pattern {granularity}", where=layer)
        proof = f", {granularity} verified in {len(masks)} layers"
    if block:
        counts = [block_scores((~mask).double(), *block) for mask in masks.values()]
        gone = sum(int((blocks == block[0] * block[1]).sum()) for blocks in counts)
        proof = (
            f", {gone:,} of {sum(blocks.numel() for blocks in counts):,} blocks of {granularity}"
        )
    nonzero = sum(int((value != 0).sum()) for value in module.parameters())
    parameters = sum(value.numel() for value in module.parameters())
    return (
        f"prune: {share:.1%} zeros in {len(masks)} kernels by {name}, "
        f"{allocation}{proof}; {nonzero:,} of {parameters:,} parameters are not zero"
    )
