"""The stage that removes channels, heads, blocks or single weights, then trains to recover."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import nn

from edgekd.errors import EdgekdError, InputError
from edgekd.network.cost import layer_costs
from edgekd.network.taps import is_within
from edgekd.registry import CRITERIA, STAGES
from edgekd.stages import Context, TrainingStage
from edgekd.stages._coverage import Share, untouched
from edgekd.stages._replacing import (
    GIVE_FACTORY,
    float_faults,
    ignore_faults,
    kept_structure,
    kept_weights,
    opened,
    plain,
    step_folder,
)
from edgekd.stages.prune.alternatives import Channels, channels_of
from edgekd.stages.prune.blocks import (
    branch_energy,
    cut_blocks,
    first_blocks,
    selected_blocks,
)
from edgekd.stages.prune.by_cost import Measure, unit_of
from edgekd.stages.prune.changes import changes_line
from edgekd.stages.prune.criteria import Criterion
from edgekd.stages.prune.faults import (
    allocation_faults,
    block_faults,
    channel_faults,
    moving_faults,
    order_faults,
    weight_faults,
)
from edgekd.stages.prune.granularity import PATTERN, pattern_of, removed
from edgekd.stages.prune.groups import Group
from edgekd.stages.prune.moving import scored_by_moving
from edgekd.stages.prune.nested import Kept, nested, ordered, recalibrated, without_last
from edgekd.stages.prune.recovery import recovered, scored
from edgekd.stages.prune.scoring import unit_scores
from edgekd.stages.prune.selection import Selection, left_note
from edgekd.stages.prune.sparse import COOL_DOWN, Sparsity, moved, stepwise, zeros_line
from edgekd.stages.prune.spec import Goal, PruneSpec
from edgekd.stages.prune.steps import shares, split_epochs
from edgekd.stages.prune.structured import (
    cost_of,
    cut,
    selected_groups,
    share_for,
    units_of,
)
from edgekd.stages.prune.weights import Masks, kernels, layer_of, unfit_kernels
from edgekd.training.distillation import check_teaching
from edgekd.training.teaching import Recovery
from edgekd.values.candidate import Candidate
from edgekd.values.tables import build


@STAGES.register(paper="https://arxiv.org/abs/2301.12900")
class Prune(TrainingStage):
    """Remove channels, heads, neurons, blocks or single weights, then recover with the teachers.

    `criterion` is a name, or a table with its name and parameters. Give `amount`, the share of
    units to remove, or `budget`, the share of the MACs to keep, or of the parameters with `of =
    "parameters"` (not for zeros); N:M needs neither.
    `granularity` is the unit of pruning. Removed from the network: "channels", attention "heads",
    feed-forward "neurons", whole residual "blocks". Set to zero: single "weights", a pattern such
    as "2:4", and blocks of weights such as "4x4" (outputs x inputs). `allocation` distributes the
    amount over layers ("uniform", "global" by score, "sensitivity" by measured accuracy, "cost" by
    an integer program: the least error of the outputs for the amount or budget), `ramp` and `steps`
    over time ("one-shot", "iterative", "cubic"). Layers in `ignore`, and layers inside
    modules named there, are left alone, as are layers that can't be pruned; the plan names those
    with the reasons. `least` is the share of the MACs of layers with weights, without ignored ones,
    that pruning must reach; otherwise the plan refuses it. `samples` is the number of training
    samples on which gradients are scored, `score_epochs` how long a criterion that watches training
    trains before each cut. `movement` and `soft-movement` choose during training, over seven tenths
    of `epochs` and on a cubic ramp whatever `ramp` says (except for blocks); with the other
    criteria `epochs` of recovery may be 0. Channel counts stay multiples of the target's.
    """

    target_facts: ClassVar[tuple[str, ...]] = ("channel_multiple",)

    kind: Literal["prune"] = "prune"
    criterion: str | dict[str, Any] = "magnitude-l2"
    amount: float | None = None
    budget: float | None = Field(default=None, gt=0.0, lt=1.0)
    granularity: str = Field(default="channels", pattern=PATTERN)
    allocation: Literal["uniform", "global", "sensitivity", "cost"] = "uniform"
    of: Measure = "macs"
    ramp: Literal["one-shot", "iterative", "cubic"] = "one-shot"
    steps: PositiveInt = 3
    ignore: tuple[str, ...] = ()
    least: float = Field(default=0.0, ge=0.0, le=1.0)
    samples: PositiveInt = 512
    score_epochs: PositiveInt = 1
    teaching: Recovery = Recovery()

    @model_validator(mode="after")
    def _one_goal(self) -> "Prune":
        if self.amount is not None and not 0 < self.amount < 1:
            left = "leaves no channel" if self.amount >= 1 else "removes nothing"
            raise ValueError(f"an amount of {self.amount} {left}; give a share between 0 and 1")
        goals = [name for name in ("amount", "budget") if getattr(self, name) is not None]
        if pattern_of(self.granularity):
            if goals:
                raise ValueError(
                    f"the pattern {self.granularity} already sets the amount; remove '{goals[0]}'"
                )
        elif len(goals) != 1:
            raise ValueError("give either 'amount' or 'budget'")
        elif self.budget is not None and self._zeroes:
            raise ValueError("zeros save no MACs: give 'amount' when pruning single weights")
        return self

    def check(self, candidate: Candidate, context: Context, where: str) -> list[EdgekdError]:
        """The reasons why pruning can't work on a model."""
        candidate = self._prepared(candidate)
        module = candidate.module
        if candidate.form != "float" or not self._zeroes:
            faults = float_faults(module, candidate.form, "pruned", where)
            if faults:
                return faults
        faults = ignore_faults(module, self.ignore, where)
        faults += allocation_faults(self.allocation, self.granularity, where)
        try:
            criterion = self._criterion(where)
        except InputError as error:
            return [*faults, *getattr(error, "faults", (error,))]
        faults += order_faults(self._name, criterion.reads, self.granularity, where)
        if criterion.moves and self.granularity != "blocks":
            faults += moving_faults(
                module, self._name, self.teaching.epochs, self.allocation, where
            )
        if not faults and self._zeroes:
            facts = (self._name, criterion.reads, self._spec(context), self.granularity)
            faults += weight_faults(module, *facts, where)
        elif not faults:
            find = block_faults if self.granularity == "blocks" else channel_faults
            goals = (candidate.example, self._spec(context), criterion, self.amount, self.budget)
            faults += find(module, *goals, where)
        if not faults and self.least:
            faults += self._share_faults(candidate, context, where)
        if self.teaching.epochs or criterion.needs == "training":
            faults += check_teaching(module, self.learning(context, where))
        return faults

    def cost(self, context: Context) -> str:
        """Steps, recovery epochs and samples."""
        steps = len(shares(self.ramp, self.steps))
        epochs = self.teaching.epochs
        criterion = self._criterion("prune")
        moves = criterion.moves and self.granularity != "blocks"
        steps = 1 if moves else steps
        if not moves and criterion.needs == "training":
            epochs += steps * self.score_epochs
        goal = self.granularity if pattern_of(self.granularity) else f"{self.amount or 0:.0%}"
        goal += f" of the {self.granularity}" if self.amount is not None else ""
        if self.budget is not None:
            goal = f"down to {self.budget:.0%} of the {unit_of(self.of)}"
        in_steps = "" if steps == 1 else f" in {steps} steps"
        length = context.with_teaching(epochs=epochs).length
        return f"{goal} by {self._name}{in_steps}, {length}"

    def _prepared(self, candidate: Candidate) -> Candidate:
        """The candidate with weights and projections that can be cut."""
        heads = self.granularity in ("channels", "heads")
        return opened(plain(candidate)) if heads else plain(candidate)

    def rehearse(self, candidate: Candidate, context: Context) -> Candidate:
        """One cut without recovery training."""
        return self.rehearsal().run(candidate, context)

    def rehearsal(self) -> "Prune":
        """The stage as one cut without recovery training, by magnitude if the criterion scores
        weights, which results in the same structure."""
        keys = self.untrained(allocation="uniform", ramp="one-shot")
        if self._criterion("prune").reads == "weights":
            keys["criterion"] = "magnitude-l2"
        return self.model_copy(update=keys)

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """The candidate with fewer channels, or with zeros among its weights."""
        candidate = self._prepared(candidate)
        left: Mapping[str, str]
        learning = self.learning(context, "prune")
        learning = replace(learning, work=self._root(candidate, context))
        context = replace(learning, cache=context.logits_folder)
        if self._zeroes:
            module, masks = self._sparse(candidate, context)
            line = zeros_line(module, self.granularity, self._name, self.allocation, masks)
            if not isinstance(candidate.module, torch.fx.GraphModule):
                layers = [name.rpartition(".")[0] for name in masks]
                rest = untouched(candidate.module, candidate.example, layers)
                line += f"; {rest}" if rest else ""
            left = unfit_kernels(candidate.module, self._spec(context).ignores, self.granularity)
        else:
            selection = self._selection(candidate.module, candidate, context)
            module, left = self._structured(candidate, context, selection), selection.left
            facts = (candidate.module, module, candidate.example, self.granularity)
            line = f"prune: {self.granularity} by {self._name}, {self.allocation}: "
            line += changes_line(*facts)
        note = left_note(candidate.module, left, self.granularity)
        return candidate.after(module, line, notes=(note,) if note else ())

    # Channels, heads, neurons and blocks.

    def _structured(
        self, candidate: Candidate, context: Context, selection: Selection[Any]
    ) -> nn.Module:
        start = candidate.module
        criterion = self._criterion("prune")
        if criterion.moves and self.granularity != "blocks":
            return self._moved_channels(candidate, context, criterion, selection.chosen)
        whole = cost_of(start, candidate.example, self.of)
        counted: Any = first_blocks if self.granularity == "blocks" else units_of
        first = counted(selection.chosen)
        parts = shares(self.ramp, self.steps)
        module = start
        for number, (part, epochs) in enumerate(
            zip(parts, split_epochs(self.teaching.epochs, len(parts)), strict=True), 1
        ):
            context.progress("prune", number - 1, len(parts))
            step = context.phase(f"step-{number}")
            limit = None if self.budget is None else whole * (1 - (1 - self.budget) * part)
            amount = None if self.amount is None else self.amount * part
            goal = Goal(first, amount, limit, self.of)
            make = partial(self._cut, module, candidate, step, goal)
            smaller = kept_structure(step.work / "pruned", start, make)
            again = partial(recovered, smaller, step, epochs)
            module = kept_structure(step.work / "recovered", start, again)
        return module.eval()

    def _selection(
        self, module: nn.Module, candidate: Candidate, context: Context
    ) -> Selection[Any]:
        """The groups or blocks that are cut, and what is left alone."""
        select: Any = selected_blocks if self.granularity == "blocks" else selected_groups
        selection: Selection[Any] = select(
            module, candidate.example, self._spec(context), self._criterion("prune")
        )
        return selection

    def _cut(
        self, module: nn.Module, candidate: Candidate, context: Context, goal: Goal
    ) -> nn.Module:
        criterion, spec = self._criterion("prune"), self._spec(context)
        if self.granularity == "blocks" and criterion.reads == "outputs":
            x = context.data.train.some(self.samples).x
            blocks = self._selection(module, candidate, context).chosen
            judged, scores = module, branch_energy(module, blocks, x)
        else:
            judged, scores = scored(module, criterion, spec, context)
        if self.granularity == "blocks":
            smaller = cut_blocks(judged, candidate.example, spec, scores, criterion, goal, context)
        else:
            groups = self._selection(module, candidate, context).chosen
            units = {each.name: unit_scores(judged, each, scores, criterion) for each in groups}
            smaller = cut(judged, candidate.example, groups, units, spec, goal, context)
        if criterion.reads == "order":
            recalibrated(smaller, context.data.train.some(self.samples))
        return smaller

    def alternatives(self, candidate: Candidate, context: Context) -> Channels:
        """What could go of each group of channels, with the outputs' error of each count alone."""
        candidate = self._prepared(candidate)
        criterion, spec = self._criterion("prune"), self._spec(context)
        judged, scores = scored(candidate.module, criterion, spec, context)
        groups = self._selection(judged, candidate, context).chosen
        units = {each.name: unit_scores(judged, each, scores, criterion) for each in groups}
        return channels_of(judged, candidate.example, groups, units, spec, context)

    def ordered(self, candidate: Candidate, context: Context) -> nn.Module:
        """A copy that computes the same, each layer's channels in the order of their L2 norms."""
        candidate = self._prepared(candidate)
        groups = self._selection(candidate.module, candidate, context).chosen
        return ordered(candidate.module, candidate.example, groups, self._spec(context), context)

    def nested(self, candidate: Candidate, context: Context) -> tuple[nn.Module, Kept]:
        """The network that `amount` leaves of an ordered one, and what stays of each parameter."""
        chosen = self._selection(candidate.module, candidate, context).chosen
        facts = (candidate.module, candidate.example, chosen, self.amount or 0.0)
        if self.granularity == "blocks":
            rest = (self._spec(context), self._criterion("prune"), context)
            return without_last(*facts, *rest), {}
        return nested(*facts, self._spec(context))

    def _moved_channels(
        self,
        candidate: Candidate,
        context: Context,
        criterion: Criterion,
        groups: Sequence[Group],
    ) -> nn.Module:
        """Masks move for most of the epochs; then the masked channels are removed and the rest
        recovers."""
        start, example, spec = candidate.module, candidate.example, self._spec(context)
        limit = None if self.budget is None else self.budget * cost_of(start, example, self.of)
        goal = Goal(units_of(groups), self.amount, limit, self.of)
        moving = max(1, round(self.teaching.epochs * (1 - COOL_DOWN)))

        def make() -> nn.Module:
            amount = self.amount
            if amount is None:
                amount = share_for(start, example, groups, spec, goal)
            phase = context.phase("moving")
            facts = (criterion, amount, phase, moving)
            module, scores = scored_by_moving(start, groups, spec, *facts)
            units = {each.name: unit_scores(module, each, scores, criterion) for each in groups}
            return cut(module, example, groups, units, spec, goal, context)

        smaller = kept_structure(context.work / "pruned", start, make)
        again = partial(recovered, smaller, context, self.teaching.epochs - moving)
        return kept_structure(context.work / "recovered", start, again).eval()

    # Zeros: single weights, blocks of them and N:M.

    def _sparse(self, candidate: Candidate, context: Context) -> tuple[nn.Module, Masks]:
        parts = shares(self.ramp, self.steps)
        epochs = split_epochs(self.teaching.epochs, len(parts))
        make_criterion = partial(self._criterion, "prune")
        criterion = make_criterion()
        spec = replace(self._spec(context), comparable=criterion.comparable)
        wanted = Sparsity(self.granularity, self.amount, spec, parts, epochs)
        if not criterion.moves:
            return stepwise(candidate.module, wanted, make_criterion, context)
        make = partial(moved, candidate.module, wanted, criterion, context.phase("moving"))
        module = kept_weights(context.work / "moved.safetensors", candidate.module, make)
        names = kernels(module, wanted.spec.ignores, wanted.granularity)
        return module, {name: module.get_parameter(name) != 0 for name in names}

    # What both need.

    def _share_faults(
        self, candidate: Candidate, context: Context, where: str
    ) -> list[EdgekdError]:
        """A fault if pruning reaches less than the share `least` of the MACs."""
        if isinstance(candidate.module, torch.fx.GraphModule):
            text = "the share that pruning reaches is not known of an exported program"
            return [InputError(text, where=f"{where}.least", hint=GIVE_FACTORY)]
        reached, left = self._reached(candidate, context)
        costs = layer_costs(candidate.module, candidate.example)
        names = {cost.name for cost in costs if is_within(cost.name, reached)}
        return Share(tuple(costs), names, left, self.ignore).faults("prune", self.least, where)

    def _reached(
        self, candidate: Candidate, context: Context
    ) -> tuple[set[str], Mapping[str, str]]:
        """The layers (or blocks) of which something can be removed or zeroed, and the others."""
        if self._zeroes:
            facts = (candidate.module, self._spec(context).ignores, self.granularity)
            return {layer_of(name) for name in kernels(*facts)}, unfit_kernels(*facts)
        selection = self._selection(candidate.module, candidate, context)
        if self.granularity == "blocks":
            return {block.name for block in selection.chosen}, selection.left
        members = (member for group in selection.chosen for member in group.members)
        return {member.layer for member in members}, selection.left

    def _spec(self, context: Context) -> PruneSpec:
        return PruneSpec(
            allocation=self.allocation,
            multiple=context.target.channel_multiple,
            ignore=self.ignore,
            kind=removed(self.granularity) or "channels",
            samples=self.samples,
            score_epochs=self.score_epochs,
            measure=self.of,
        )

    def _root(self, candidate: Candidate, context: Context) -> Path:
        facts = (self.model_dump_json(), context.seed, context.data.sha256)
        teachers = tuple((teacher.key, teacher.weight) for teacher in context.teachers)
        multiple = context.target.channel_multiple
        return step_folder(context.work, candidate.module, *facts, teachers, multiple)

    @property
    def _name(self) -> str:
        return self.criterion if isinstance(self.criterion, str) else str(self.criterion["name"])

    @property
    def _zeroes(self) -> bool:
        """Whether the network keeps its shape and gets zeros."""
        return self.granularity != "blocks" and removed(self.granularity) is None

    def _criterion(self, where: str) -> Criterion:
        table = {} if isinstance(self.criterion, str) else dict(self.criterion)
        if "name" not in table and not isinstance(self.criterion, str):
            raise InputError("the criterion has no 'name'", where=f"{where}.criterion")
        table.pop("name", None)
        entry = CRITERIA.get(self._name, f"{where}.criterion")
        made: Criterion = build(entry, table, f"{where}.criterion")
        return made
