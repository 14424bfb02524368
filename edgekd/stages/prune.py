"""The stage that removes channels, attention heads or single weights, and recovers by teaching."""

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import nn

from edgekd.candidate import Candidate
from edgekd.checkpoint import read_tensors, write_tensors
from edgekd.config import build
from edgekd.cost import totals
from edgekd.criteria import Criterion
from edgekd.distillation import Teaching, check_teaching, teach
from edgekd.errors import EdgekdError, InputError
from edgekd.pruning.allocation import Pool
from edgekd.pruning.faults import channel_faults, float_faults, ignore_faults, weight_faults
from edgekd.pruning.scoring import Scores, score
from edgekd.pruning.steps import kept_structure, kept_weights, shares, split_epochs, step_folder
from edgekd.pruning.structured import (
    Wish,
    channel_counts,
    cut,
    share_out,
    units_of,
    wanted_groups,
)
from edgekd.pruning.weights import (
    Masks,
    MovingMask,
    apply_masks,
    cubic_share,
    fits_pattern,
    kernels,
    masks_for,
    moving_masks,
    pattern_mask,
    pattern_of,
    sparsity,
)
from edgekd.registry import CRITERIA, STAGES
from edgekd.stages import Context
from edgekd.training import evaluate

COOL_DOWN = 0.3
"""The share of a movement pruning in which the amount is reached and the masks stay."""

MOVE_EVERY = 4
"""Steps between two looks at the scores: ranking them costs as much as a training step."""


@STAGES.register(paper="https://arxiv.org/abs/2301.12900")
class Prune(Teaching):
    """Remove channels, attention heads or single weights, then recover with the teachers.

    `criterion` is a name, or a table with its name and parameters. Give `amount`, the share of
    units to remove, or `budget`, the share of the MACs to keep (channels only); N:M needs neither.
    `granularity` is "channels", "heads", "weights" or a pattern such as "2:4". `allocation` shares
    the amount out among layers, `ramp` and `steps` over time, and layers named in `ignore`
    (or that stand in a module named there) are left alone. `samples` is how many training samples
    gradients are scored on, `score_epochs` how long a criterion that needs training trains before
    each cut. `epochs` of recovery may be 0. Channels stay multiples of the target's.
    """

    target_facts: ClassVar[tuple[str, ...]] = ("channel_multiple",)

    kind: Literal["prune"] = "prune"
    criterion: str | dict[str, Any] = "magnitude-l2"
    amount: float | None = None
    budget: float | None = Field(default=None, gt=0.0, lt=1.0)
    granularity: str = Field(default="channels", pattern=r"^(channels|heads|weights|\d+:\d+)$")
    allocation: Literal["uniform", "global", "sensitivity"] = "uniform"
    ramp: Literal["one-shot", "iterative", "cubic"] = "one-shot"
    steps: PositiveInt = 3
    ignore: tuple[str, ...] = ()
    samples: PositiveInt = 512
    score_epochs: PositiveInt = 1
    epochs: int = Field(default=10, ge=0)

    @model_validator(mode="after")
    def _one_goal(self) -> "Prune":
        if self.amount is not None and not 0 < self.amount < 1:
            left = "leaves no channel" if self.amount >= 1 else "removes nothing"
            raise ValueError(f"an amount of {self.amount} {left}; give a share between 0 and 1")
        goals = [name for name in ("amount", "budget") if getattr(self, name) is not None]
        if pattern_of(self.granularity):
            if goals:
                raise ValueError(f"the pattern {self.granularity} is the amount; drop {goals[0]}")
        elif len(goals) != 1:
            raise ValueError("give either 'amount' or 'budget'")
        elif self.budget is not None and self.granularity == "weights":
            raise ValueError("zeros save no MACs: give 'amount' with single weights")
        return self

    def check(self, candidate: Candidate, context: Context, where: str) -> list[EdgekdError]:
        """Every reason why this pruning can't work on such a model."""
        module = candidate.module
        structured = self.granularity in ("channels", "heads")
        graph = structured or self._moving_by_name
        if candidate.form == "int8" or graph:
            faults = float_faults(module, candidate.form, "pruned", where)
            if faults:
                return faults
        faults = ignore_faults(module, self.ignore, where)
        try:
            criterion = self._criterion(where)
        except InputError as error:
            return [*faults, *getattr(error, "faults", (error,))]
        if not faults and structured:
            facts = (candidate.example, self._wish(context), criterion, self.amount, self.budget)
            faults += channel_faults(module, *facts, where)
        elif not faults:
            faults += self._weight_faults(module, criterion, context, where)
        if self.epochs or criterion.needs == "training":
            teachers = context.teachers
            faults += check_teaching(
                self, module, data=context.data, teachers=teachers, where=where
            )
        return faults

    def cost(self, context: Context) -> str:
        """Steps, recovery epochs and samples."""
        steps = len(shares(self.ramp, self.steps))
        epochs = self.epochs
        if not self._moving_by_name and self._criterion("prune").needs == "training":
            epochs += steps * self.score_epochs
        goal = self.granularity if pattern_of(self.granularity) else f"{self.amount or 0:.0%}"
        if self.budget is not None:
            goal = f"down to {self.budget:.0%} of the MACs"
        each = "" if steps == 1 else f" in {steps} steps"
        return (
            f"{goal} by {self._name}{each}, {epochs} epochs of {len(context.data.train):,} samples"
        )

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """The candidate with fewer channels, or with zeros among its weights."""
        if self.granularity in ("channels", "heads"):
            module = self._structured(candidate, context)
            line = self._changes(candidate, module)
        else:
            module, masks = self._sparse(candidate, context)
            line = self._zeros(module, masks)
        return candidate.after(module, line)

    # Channels and heads.

    def _structured(self, candidate: Candidate, context: Context) -> nn.Module:
        start, example = candidate.module, candidate.example
        root = self._root(candidate, context)
        first = units_of(wanted_groups(start, example, self._wish(context)))
        whole = totals(start, example).macs
        parts = shares(self.ramp, self.steps)
        module = start
        for number, (part, epochs) in enumerate(
            zip(parts, split_epochs(self.epochs, len(parts)), strict=True), 1
        ):
            context.progress("prune", number - 1, len(parts))
            work = root / f"step-{number}"
            macs = None if self.budget is None else whole * (1 - (1 - self.budget) * part)
            amount = None if self.amount is None else self.amount * part
            make = partial(self._cut, module, candidate, context, work, first, amount, macs)
            smaller = kept_structure(work / "pruned", start, make)
            again = partial(self._recovered, smaller, context, work, epochs)
            module = kept_structure(work / "recovered", start, again)
        return module.eval()

    def _cut(
        self,
        module: nn.Module,
        candidate: Candidate,
        context: Context,
        work: Path,
        first: dict[str, int],
        amount: float | None,
        macs: float | None,
    ) -> nn.Module:
        criterion = self._criterion("prune")
        scored, scores = self._scored(module, criterion, context, work)
        return cut(
            scored,
            candidate.example,
            self._wish(context),
            scores=scores,
            criterion=criterion,
            first=first,
            amount=amount,
            macs=macs,
            samples=context.data.validation,
            report=context.progress,
        )

    def _changes(self, candidate: Candidate, module: nn.Module) -> str:
        before = totals(candidate.module, candidate.example)
        after = totals(module, candidate.example)
        counts = channel_counts(module)
        changed = [
            f"{name} {count}->{counts[name]}"
            for name, count in channel_counts(candidate.module).items()
            if counts[name] != count
        ]
        return (
            f"prune: {self.granularity} by {self._name}, {self.allocation}: "
            f"{before.parameters:,} -> {after.parameters:,} parameters, "
            f"{before.macs:,} -> {after.macs:,} MACs; {', '.join(changed) or 'no layer changed'}"
        )

    # Single weights and N:M.

    def _sparse(self, candidate: Candidate, context: Context) -> tuple[nn.Module, Masks]:
        criterion = self._criterion("prune")
        names = kernels(candidate.module, self._wish(context).ignores)
        root = self._root(candidate, context)
        if criterion.moves:
            make = partial(self._moved, candidate, context, root / "moving", criterion)
            module = kept_weights(root / "moved.safetensors", candidate.module, make)
            return module, {name: module.get_parameter(name) != 0 for name in names}
        module = candidate.module
        masks: Masks = {}
        parts = shares(self.ramp, self.steps)
        for number, (part, epochs) in enumerate(
            zip(parts, split_epochs(self.epochs, len(parts)), strict=True), 1
        ):
            context.progress("prune", number - 1, len(parts))
            work = root / f"step-{number}"
            module, masks = self._masked(module, context, work, part, list(names))
            again = partial(self._recovered, module, context, work, epochs, masks)
            module = kept_weights(work / "recovered.safetensors", candidate.module, again)
        return module.eval(), masks

    def _masked(
        self, module: nn.Module, context: Context, work: Path, part: float, names: list[str]
    ) -> tuple[nn.Module, Masks]:
        """A copy behind new masks, and the masks; both from disk if this was done before."""
        file = work / "masked.safetensors"
        found = read_tensors(file)
        scored = copy.deepcopy(module)
        if found is None:
            criterion = self._criterion("prune")
            scored, scores = self._scored(module, criterion, context, work)
            # What was pruned in an earlier step stays so.
            for name in names:
                gone = module.get_parameter(name).detach() == 0
                scores[name] = scores[name].masked_fill(gone, float("-inf"))
            masks = self._choose(scored, scores, part, names, context)
            apply_masks(scored, masks)
            state = {f"state.{key}": value for key, value in scored.state_dict().items()}
            work.mkdir(parents=True, exist_ok=True)
            write_tensors(file, state | {f"mask.{key}": mask for key, mask in masks.items()}, {})
            return scored, masks
        masks = {name: found[0][f"mask.{name}"] for name in names}
        scored.load_state_dict(
            {k.removeprefix("state."): v for k, v in found[0].items() if k.startswith("state.")}
        )
        return scored, masks

    def _choose(
        self, module: nn.Module, scores: Scores, part: float, names: list[str], context: Context
    ) -> Masks:
        pattern = pattern_of(self.granularity)
        if pattern:
            keep, among = pattern
            keep = among - round((among - keep) * part)
            return {name: pattern_mask(scores[name], keep, among) for name in names}
        assert self.amount is not None
        finite = {name: torch.nan_to_num(scores[name], neginf=0.0) for name in names}
        pools = [Pool(name, finite[name].flatten(), scores[name].numel()) for name in names]
        amount = self.amount * part
        drops = {}
        if self.allocation == "sensitivity":
            drops = {name: self._drops(module, name, scores, context) for name in names}
        wish = Wish(self.allocation)
        return masks_for(scores, share_out(pools, wish, amount, drops))

    def _drops(
        self, module: nn.Module, name: str, scores: Scores, context: Context
    ) -> list[tuple[float, float]]:
        """Accuracy lost by zeroing one layer's worst quarter, half and three quarters."""
        samples = context.data.validation
        before, count = evaluate(module, samples), scores[name].numel()
        drops = []
        for share in (0.25, 0.5, 0.75, 0.9):
            tried = copy.deepcopy(module)
            apply_masks(tried, masks_for(scores, {name: round(count * (1 - share))}))
            drops.append((share, before - evaluate(tried, samples)))
        return drops

    def _moved(
        self, candidate: Candidate, context: Context, work: Path, criterion: Criterion
    ) -> nn.Module:
        """Train behind masks that follow the scores; the last part of the steps behind fixed ones.

        The amount rises by the cubic schedule (Sanh et al. 2020, section 4); N:M begins half-way.
        """
        module = copy.deepcopy(candidate.module)
        names = kernels(module, self._wish(context).ignores)
        with moving_masks(module, names, criterion) as masks:

            def on_step(step: int, total: int) -> None:
                rising = math.ceil(total * (1 - COOL_DOWN))
                if step <= rising and (step % MOVE_EVERY == 0 or step == rising):
                    self._move(masks, criterion, step / rising)

            lesson = self._lesson(self.epochs).model_copy(update={"keep": "last", "patience": None})
            self._teach(module, lesson, context, work, on_step=on_step)
        return module.eval()

    def _move(self, masks: dict[str, MovingMask], criterion: Criterion, progress: float) -> None:
        scores = {
            name: criterion.finish(each.scores, each.scores, each.scores, 1)
            for name, each in masks.items()
        }
        pattern = pattern_of(self.granularity)
        if pattern:
            if progress >= 0.5:
                for name, each in masks.items():
                    each.mask.copy_(pattern_mask(scores[name], *pattern))
            return
        assert self.amount is not None
        pools = [Pool(name, value.flatten(), value.numel()) for name, value in scores.items()]
        kept = share_out(pools, Wish(self.allocation), cubic_share(self.amount, progress), {})
        for name, mask in masks_for(scores, kept).items():
            masks[name].mask.copy_(mask)

    def _zeros(self, module: nn.Module, masks: Masks) -> str:
        pattern = pattern_of(self.granularity)
        share = sparsity(module, masks)
        proof = ""
        if pattern:
            for name in masks:
                if not fits_pattern(module.get_parameter(name), *pattern):
                    raise InputError(f"the result breaks {self.granularity}", where=name)
            proof = f", {self.granularity} verified in {len(masks)} layers"
        nonzero = sum(int((value != 0).sum()) for value in module.parameters())
        every = sum(value.numel() for value in module.parameters())
        return (
            f"prune: {share:.1%} zeros in {len(masks)} kernels by {self._name}, "
            f"{self.allocation}{proof}; {nonzero:,} of {every:,} parameters are not zero"
        )

    # What both need.

    def _scored(
        self, module: nn.Module, criterion: Criterion, context: Context, work: Path
    ) -> tuple[nn.Module, Scores]:
        """A copy (trained, if the criterion needs it) and the scores of its tensors."""
        scored = copy.deepcopy(module)
        for parameter in scored.parameters():
            parameter.requires_grad_(True)

        def train(student: nn.Module, companions: nn.Module) -> None:
            lesson = self._lesson(self.score_epochs).model_copy(
                update={"keep": "last", "patience": None}
            )
            self._teach(student, lesson, context, work / "scoring", companions=companions)

        scores = score(
            scored,
            criterion,
            data=context.data,
            samples=self.samples,
            seed=context.seed,
            train=train,
        )
        return scored, scores

    def _recovered(
        self,
        module: nn.Module,
        context: Context,
        work: Path,
        epochs: int,
        masks: Masks | None = None,
    ) -> nn.Module:
        if not epochs:
            return module
        student = copy.deepcopy(module)

        def on_step(step: int, total: int) -> None:
            apply_masks(student, masks or {})

        return self._teach(
            student, self._lesson(epochs), context, work / "recovery", on_step=on_step
        )

    def _teach(
        self,
        student: nn.Module,
        lesson: Teaching,
        context: Context,
        work: Path,
        *,
        on_step: Callable[[int, int], None] | None = None,
        companions: nn.Module | None = None,
    ) -> nn.Module:
        return teach(
            student,
            lesson,
            data=context.data,
            teachers=context.teachers,
            work=work,
            seed=context.seed,
            progress=context.progress,
            on_step=on_step,
            cache=context.cache or context.work / "logits",
            companions=companions,
            where="prune",
        )

    def _lesson(self, epochs: int) -> Teaching:
        """The training part of the recipe, for so many epochs."""
        fields = {name: getattr(self, name) for name in Teaching.model_fields}
        return Teaching.model_validate(fields | {"epochs": epochs})

    def _wish(self, context: Context) -> Wish:
        heads = self.granularity == "heads"
        return Wish(self.allocation, context.target.channel_multiple, self.ignore, heads)

    def _root(self, candidate: Candidate, context: Context) -> Path:
        facts = (self.model_dump_json(), context.seed, context.data.sha256)
        teachers = tuple((teacher.key, teacher.weight) for teacher in context.teachers)
        multiple = context.target.channel_multiple
        return step_folder(context.work, candidate.module, *facts, teachers, multiple)

    @property
    def _name(self) -> str:
        return self.criterion if isinstance(self.criterion, str) else str(self.criterion["name"])

    @property
    def _moving_by_name(self) -> bool:
        sparse = self.granularity not in ("channels", "heads")
        return sparse and self._name in ("movement", "soft-movement")

    def _criterion(self, where: str) -> Criterion:
        table = {} if isinstance(self.criterion, str) else dict(self.criterion)
        if "name" not in table and not isinstance(self.criterion, str):
            raise InputError("a criterion without 'name'", where=f"{where}.criterion")
        table.pop("name", None)
        entry = CRITERIA.get(self._name, f"{where}.criterion")
        made: Criterion = build(entry, table, f"{where}.criterion")
        return made

    def _weight_faults(
        self, module: nn.Module, criterion: Criterion, context: Context, where: str
    ) -> list[EdgekdError]:
        faults: list[EdgekdError] = []
        if criterion.reads != "weights":
            faults.append(
                InputError(
                    f"'{self._name}' judges channels, not single weights",
                    where=f"{where}.criterion",
                    hint="granularity = 'channels', or a criterion such as magnitude-l1",
                )
            )
        if criterion.moves and not self.epochs:
            hint = "set epochs, or take a criterion such as taylor"
            found = f"'{self._name}' prunes single weights while the model trains, for 0 epochs"
            faults.append(InputError(found, where=f"{where}.epochs", hint=hint))
        if criterion.moves and self.allocation == "sensitivity":
            faults.append(
                InputError(
                    f"'{self._name}' moves its masks in every step, which sensitivity can't follow",
                    where=f"{where}.allocation",
                    allowed="uniform, global",
                )
            )
        pattern = pattern_of(self.granularity)
        return faults + weight_faults(module, self._wish(context), pattern, where)
