"""The stage that removes channels, heads, blocks or single weights, and recovers by teaching."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator
from torch import nn

from edgekd.errors import EdgekdError, InputError
from edgekd.network.cost import totals
from edgekd.registry import CRITERIA, STAGES
from edgekd.stages import Context
from edgekd.stages._replacing import (
    float_faults,
    ignore_faults,
    kept_structure,
    kept_weights,
    step_folder,
)
from edgekd.stages.prune.blocks import (
    branch_energy,
    cut_blocks,
    first_blocks,
    residual_blocks,
    wanted_blocks,
)
from edgekd.stages.prune.criteria import Criterion
from edgekd.stages.prune.faults import (
    block_faults,
    channel_faults,
    moving_faults,
    weight_faults,
)
from edgekd.stages.prune.granularity import PATTERN, pattern_of, removed
from edgekd.stages.prune.moving import scored_by_moving
from edgekd.stages.prune.recovery import Recovery
from edgekd.stages.prune.sparse import COOL_DOWN, Sparsity, moved, stepwise, zeros_line
from edgekd.stages.prune.steps import (
    shares,
    split_epochs,
)
from edgekd.stages.prune.structured import (
    Wish,
    channel_counts,
    cut,
    share_for,
    units_of,
    wanted_groups,
)
from edgekd.stages.prune.weights import Masks, kernels
from edgekd.training.distillation import Teaching, check_teaching
from edgekd.values.candidate import Candidate
from edgekd.values.tables import build


@STAGES.register(paper="https://arxiv.org/abs/2301.12900")
class Prune(Teaching):
    """Remove channels, heads, neurons, blocks or single weights, then recover with the teachers.

    `criterion` is a name, or a table with its name and parameters. Give `amount`, the share of
    units to remove, or `budget`, the share of the MACs to keep (not for zeros); N:M needs neither.
    `granularity` says what goes at once. Out of the network for good: "channels", attention
    "heads", feed-forward "neurons", whole residual "blocks". Set to zero: single "weights", a
    pattern such as "2:4", and blocks of weights such as "4x4" (outputs x inputs). `allocation`
    shares the amount out among layers ("uniform", "global" by score, "sensitivity" by measured
    accuracy), `ramp` and `steps` over time ("one-shot", "iterative", "cubic"), and layers named in
    `ignore` (or that stand in a module named there) are left alone. `samples` is how many training
    samples gradients are scored on, `score_epochs` how long a criterion that watches training
    trains before each cut. `movement` and `soft-movement` choose while the model trains, over
    seven tenths of `epochs` and by a cubic ramp, whatever `ramp` says (blocks excepted). `epochs`
    of recovery may be 0 for the others. Channels stay multiples of the target's.
    """

    target_facts: ClassVar[tuple[str, ...]] = ("channel_multiple",)

    kind: Literal["prune"] = "prune"
    criterion: str | dict[str, Any] = "magnitude-l2"
    amount: float | None = None
    budget: float | None = Field(default=None, gt=0.0, lt=1.0)
    granularity: str = Field(default="channels", pattern=PATTERN)
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
        elif self.budget is not None and self._zeroes:
            raise ValueError("zeros save no MACs: give 'amount' with single weights")
        return self

    def check(self, candidate: Candidate, context: Context, where: str) -> list[EdgekdError]:
        """Every reason why this pruning can't work on such a model."""
        module = candidate.module
        if candidate.form != "float" or not self._zeroes:
            faults = float_faults(module, candidate.form, "pruned", where)
            if faults:
                return faults
        faults = ignore_faults(module, self.ignore, where)
        try:
            criterion = self._criterion(where)
        except InputError as error:
            return [*faults, *getattr(error, "faults", (error,))]
        if criterion.moves and self.granularity != "blocks":
            faults += moving_faults(module, self._name, self.epochs, self.allocation, where)
        if not faults and self._zeroes:
            faults += self._weight_faults(module, criterion, context, where)
        elif not faults:
            find = block_faults if self.granularity == "blocks" else channel_faults
            facts = (candidate.example, self._wish(context), criterion, self.amount, self.budget)
            faults += find(module, *facts, where)
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
        criterion = self._criterion("prune")
        moves = criterion.moves and self.granularity != "blocks"
        steps = 1 if moves else steps
        if not moves and criterion.needs == "training":
            epochs += steps * self.score_epochs
        goal = self.granularity if pattern_of(self.granularity) else f"{self.amount or 0:.0%}"
        goal += f" of the {self.granularity}" if self.amount is not None else ""
        if self.budget is not None:
            goal = f"down to {self.budget:.0%} of the MACs"
        each = "" if steps == 1 else f" in {steps} steps"
        return (
            f"{goal} by {self._name}{each}, {epochs} epochs of {len(context.data.train):,} samples"
        )

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """The candidate with fewer channels, or with zeros among its weights."""
        if self._zeroes:
            module, masks = self._sparse(candidate, context)
            line = zeros_line(module, self.granularity, self._name, self.allocation, masks)
        else:
            module = self._structured(candidate, context)
            line = self._changes(candidate, module)
        return candidate.after(module, line)

    # Channels, heads, neurons and blocks.

    def _structured(self, candidate: Candidate, context: Context) -> nn.Module:
        start = candidate.module
        root = self._root(candidate, context)
        criterion = self._criterion("prune")
        if criterion.moves and self.granularity != "blocks":
            return self._moved_channels(candidate, context, criterion, root)
        recovery = self._recovery(context)
        whole = totals(start, candidate.example).macs
        first = self._units(candidate, context)
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
            again = partial(recovery.recovered, smaller, epochs, work, _nothing)
            module = kept_structure(work / "recovered", start, again)
        return module.eval()

    def _units(self, candidate: Candidate, context: Context) -> Any:
        wish = self._wish(context)
        if self.granularity == "blocks":
            return first_blocks(wanted_blocks(candidate.module, candidate.example, wish))
        return units_of(wanted_groups(candidate.module, candidate.example, wish))

    def _cut(
        self,
        module: nn.Module,
        candidate: Candidate,
        context: Context,
        work: Path,
        first: Any,
        amount: float | None,
        macs: float | None,
    ) -> nn.Module:
        criterion, wish = self._criterion("prune"), self._wish(context)
        if self.granularity == "blocks" and criterion.reads == "outputs":
            x = context.data.train.some(self.samples).x
            blocks = wanted_blocks(module, candidate.example, wish)
            scored, scores = module, branch_energy(module, blocks, x)
        else:
            scored, scores = self._recovery(context).scored(module, criterion, work)
        remove = cut_blocks if self.granularity == "blocks" else cut
        return remove(
            scored,
            candidate.example,
            wish,
            scores=scores,
            criterion=criterion,
            first=first,
            amount=amount,
            macs=macs,
            samples=context.data.validation,
            report=context.progress,
        )

    def _moved_channels(
        self, candidate: Candidate, context: Context, criterion: Criterion, root: Path
    ) -> nn.Module:
        """Masks move over most of the epochs; what they hide is cut, and the rest recovers."""
        start, example, wish = candidate.module, candidate.example, self._wish(context)
        recovery, groups = self._recovery(context), wanted_groups(start, example, wish)
        macs = None if self.budget is None else self.budget * totals(start, example).macs
        moving = max(1, round(self.epochs * (1 - COOL_DOWN)))

        def make() -> nn.Module:
            amount = self.amount
            if amount is None:
                assert macs is not None
                amount = share_for(start, example, groups, wish, macs)
            facts = (wish, criterion, amount, moving, recovery, root / "moving")
            module, scores = scored_by_moving(start, groups, *facts)
            return cut(
                module,
                example,
                wish,
                scores=scores,
                criterion=criterion,
                first=units_of(groups),
                amount=self.amount,
                macs=macs,
                samples=context.data.validation,
                report=context.progress,
            )

        smaller = kept_structure(root / "pruned", start, make)
        left = self.epochs - moving
        again = partial(recovery.recovered, smaller, left, root, _nothing)
        return kept_structure(root / "recovered", start, again).eval()

    def _changes(self, candidate: Candidate, module: nn.Module) -> str:
        before = totals(candidate.module, candidate.example)
        after = totals(module, candidate.example)
        counts = channel_counts(module)
        changed = [
            f"{name} {count}->{counts[name]}"
            for name, count in channel_counts(candidate.module).items()
            if name in counts and counts[name] != count
        ]
        if self.granularity == "blocks":
            modules = dict(module.named_modules())
            changed = [
                f"{block.name} gone"
                for block in residual_blocks(candidate.module, candidate.example)
                if isinstance(modules[block.name], nn.Identity)
            ]
        return (
            f"prune: {self.granularity} by {self._name}, {self.allocation}: "
            f"{before.parameters:,} -> {after.parameters:,} parameters, "
            f"{before.macs:,} -> {after.macs:,} MACs; {', '.join(changed) or 'no layer changed'}"
        )

    # Zeros: single weights, blocks of them and N:M.

    def _sparse(self, candidate: Candidate, context: Context) -> tuple[nn.Module, Masks]:
        root, recovery = self._root(candidate, context), self._recovery(context)
        parts = shares(self.ramp, self.steps)
        epochs = split_epochs(self.epochs, len(parts))
        make_criterion = partial(self._criterion, "prune")
        criterion = make_criterion()
        wish = replace(self._wish(context), comparable=criterion.comparable)
        wanted = Sparsity(self.granularity, self.amount, wish, parts, epochs)
        if not criterion.moves:
            return stepwise(candidate.module, wanted, make_criterion, recovery, root)
        make = partial(moved, candidate.module, wanted, criterion, recovery, root / "moving")
        module = kept_weights(root / "moved.safetensors", candidate.module, make)
        names = kernels(module, wanted.wish.ignores)
        return module, {name: module.get_parameter(name) != 0 for name in names}

    # What both need.

    def _recovery(self, context: Context) -> Recovery:
        fields = {name: getattr(self, name) for name in Teaching.model_fields}
        return Recovery(
            Teaching.model_validate(fields | {"epochs": max(1, self.epochs)}),
            context.data,
            context.teachers,
            context.seed,
            context.cache or context.work / "logits",
            context.progress,
            self.samples,
            self.score_epochs,
        )

    def _wish(self, context: Context) -> Wish:
        kind = removed(self.granularity) or "channels"
        return Wish(self.allocation, context.target.channel_multiple, self.ignore, kind)

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
        return faults + weight_faults(module, self._wish(context), self.granularity, where)


def _nothing(student: nn.Module) -> None:
    """What is cut out needs no mask."""
