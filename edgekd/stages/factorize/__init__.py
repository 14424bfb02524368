"""The stage that factorizes layers into smaller ones, then trains to recover."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator
from torch import nn

from edgekd.errors import EdgekdError, InputError
from edgekd.network.cost import layer_costs, totals
from edgekd.network.evaluation import evaluate
from edgekd.network.taps import is_within
from edgekd.registry import STAGES
from edgekd.stages import Context, TrainingStage
from edgekd.stages._coverage import Share, untouched
from edgekd.stages._replacing import float_faults, ignore_faults, kept_structure, plain, step_folder
from edgekd.stages.factorize.alternatives import Error, Split, split_network, splits_of
from edgekd.stages.factorize.covariance import Moments, input_moments
from edgekd.stages.factorize.ranks import Method, Option, cheapest_within
from edgekd.stages.factorize.sensitivity import by_sensitivity
from edgekd.stages.factorize.sites import (
    Site,
    Spectrum,
    all_ranks,
    at_energy,
    at_ranks,
    find_sites,
    replaced,
    spectrum_of,
)
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.teaching import Recovery
from edgekd.values.candidate import Candidate
from edgekd.values.tables import Value
from edgekd.values.tree import Tree

Spectra = dict[tuple[str, Method], Spectrum]

CALIBRATION = 256
"""Training samples that weight the error if the recipe names no calibration set."""


class Rank(Value):
    """How ranks are chosen: by `energy`, by a `budget`, by `sensitivity`, or as a fixed `rank`.

    `energy` is the share of the sum of squares that each mode keeps. `budget` is the share of the
    network's MACs to keep; the ranks are then chosen to lose least over all layers. `sensitivity`
    is the accuracy that each layer alone may cost, measured on the validation samples (0.01: one
    percentage point).
    """

    energy: float | None = Field(default=None, gt=0.0, lt=1.0)
    budget: float | None = Field(default=None, gt=0.0, lt=1.0)
    rank: PositiveInt | None = None
    sensitivity: float | None = Field(default=None, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _one(self) -> "Rank":
        given = [name for name in Rank.model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            found, names = " and ".join(given) or "none", ", ".join(Rank.model_fields)
            raise ValueError(f"give exactly one of {names}, found {found}")
        return self


@STAGES.register(paper="https://arxiv.org/abs/1505.06798")
class Factorize(TrainingStage):
    """Split linear layers and convolutions into smaller ones, then recover with the teachers.

    `linear` and `convolution` choose the method for each kind of layer; "auto" takes the best one
    for each convolution. `rank` is a table with `energy`, `budget`, `sensitivity` or `rank`. With
    `weighted` the error of a layer's output on the calibration samples counts instead of the error
    of its weights. Ranks are rounded up to the target's channel multiple, and a layer is split only
    if that saves MACs. `epochs` of recovery may be 0. `least` is the share of the MACs of layers
    with weights, without ignored ones, that could be split: the plan refuses less.
    """

    target_facts: ClassVar[tuple[str, ...]] = ("channel_multiple",)

    kind: Literal["factorize"] = "factorize"
    linear: Literal["svd", "none"] = "svd"
    convolution: Literal["auto", "spatial-svd", "channel-svd", "tucker2", "none"] = "auto"
    rank: Rank = Rank(energy=0.95)
    weighted: bool = True
    ignore: tuple[str, ...] = ()
    least: float = Field(default=0.0, ge=0.0, le=1.0)
    teaching: Recovery = Recovery()

    def check(self, candidate: Candidate, context: Context, where: str) -> list[EdgekdError]:
        """The reasons why this factorization can't work on a model."""
        candidate = plain(candidate)
        faults = float_faults(candidate.module, candidate.form, "factorized", where)
        if faults:
            return faults
        faults = ignore_faults(candidate.module, self.ignore, where)
        if not faults:
            faults += self._rank_faults(candidate, context, where)
            faults += self._share_faults(candidate, where)
        if self.teaching.epochs:
            faults += check_teaching(candidate.module, self.learning(context, where))
        return faults

    def _share_faults(self, candidate: Candidate, where: str) -> list[EdgekdError]:
        if not self.least:
            return []
        sites, left = self._sites(candidate)
        costs = layer_costs(candidate.module, candidate.example)
        reached = {site.name for site in sites}
        share = Share(tuple(costs), reached, left, tuple(self.ignore))
        return share.faults("factorize", self.least, where)

    def cost(self, context: Context) -> str:
        """How the ranks are chosen, and the recovery."""
        rule = self.rank.model_dump(exclude_none=True)
        name, value = next(iter(rule.items()))
        weighted = "weighted" if self.weighted else "plain"
        return f"ranks by {name} {value}, {weighted}; {self.learning(context, '').length}"

    def rehearse(self, candidate: Candidate, context: Context) -> Candidate:
        """The factorized candidate without recovery training."""
        return self.rehearsal().run(candidate, context)

    def rehearsal(self) -> "Factorize":
        """The stage without recovery training."""
        return self.model_copy(update=self.untrained())

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """The candidate, with each layer split if that makes it cheaper."""
        candidate = plain(candidate)
        facts = (self.model_dump_json(), context.seed, context.data.sha256)
        teachers = tuple((teacher.key, teacher.weight) for teacher in context.teachers)
        multiple = context.target.channel_multiple
        root = step_folder(context.work, candidate.module, *facts, teachers, multiple)
        sites, left = self._sites(candidate)
        chosen, spectra = self._choose(candidate, context, sites)
        make = partial(replaced, candidate.module, sites, chosen, spectra)
        split = kept_structure(root / "factorized", candidate.module, make)
        again = partial(self._recovered, split, context, root)
        module = kept_structure(root / "recovered", candidate.module, again)
        return candidate.after(module.eval(), self._line(candidate, module, sites, chosen, left))

    def alternatives(
        self, candidate: Candidate, context: Context, error: Error
    ) -> dict[str, tuple[Split, ...]]:
        """How each layer could be split, with the outputs' error of each split alone."""
        x, multiple = self._weighting(context), context.target.channel_multiple
        facts = (candidate.module, candidate.example, x, self._ignores, multiple)
        return splits_of(*facts, error, context.progress)

    def split(
        self, candidate: Candidate, context: Context, chosen: Mapping[str, Split]
    ) -> nn.Module:
        """A copy of a network, whose channels may have become fewer, with these layers split."""
        x, multiple = self._weighting(context), context.target.channel_multiple
        return split_network(candidate.module, candidate.example, x, chosen, multiple)

    def _weighting(self, context: Context) -> Tree:
        """The samples whose outputs' error counts."""
        x = context.calibration
        return context.data.train.first(CALIBRATION).x if x is None else x

    def _sites(self, candidate: Candidate) -> tuple[list[Site], dict[str, str]]:
        return find_sites(
            candidate.module, candidate.example, self.linear, self.convolution, self._ignores
        )

    def _ignores(self, layer: str) -> bool:
        return is_within(layer, self.ignore)

    def _choose(
        self, candidate: Candidate, context: Context, sites: list[Site]
    ) -> tuple[dict[str, Option], Spectra]:
        moments: Mapping[str, Moments] = {}
        if self.weighted:
            layers = {site.name: site.layer for site in sites}
            moments = input_moments(candidate.module, layers, self._weighting(context))
        spectra: Spectra = {}
        for number, site in enumerate(sites):
            context.progress("factorize", number, len(sites))
            for method in site.methods:
                spectra[site.name, method] = spectrum_of(site, method, moments.get(site.name))
        multiple = context.target.channel_multiple
        if self.rank.budget is not None:
            return self._within_budget(candidate, sites, spectra, multiple), spectra
        if self.rank.sensitivity is not None:
            score = partial(evaluate, samples=context.data.validation)
            facts = (multiple, score, self.rank.sensitivity, context.progress)
            return by_sensitivity(candidate.module, sites, spectra, *facts), spectra
        chosen = {}
        for site in sites:
            options = [self._option(site, method, spectra, multiple) for method in site.methods]
            cheaper = [option for option in options if option.macs < site.macs]
            if cheaper:
                chosen[site.name] = min(cheaper, key=lambda option: (option.macs, option.error))
        return chosen, spectra

    def _option(self, site: Site, method: Method, spectra: Spectra, multiple: int) -> Option:
        spectrum = spectra[site.name, method]
        if self.rank.energy is not None:
            return at_energy(site, method, spectrum, self.rank.energy, multiple)
        assert self.rank.rank is not None
        ranks = [self.rank.rank] * len(spectrum.values)
        return at_ranks(site, method, spectrum, ranks, multiple)

    def _within_budget(
        self, candidate: Candidate, sites: list[Site], spectra: Spectra, multiple: int
    ) -> dict[str, Option]:
        options = {
            site.name: [
                Option(
                    method,
                    ranks,
                    site.cost(method, ranks),
                    spectra[site.name, method].error(ranks) if spectra else 0.0,
                )
                for method in site.methods
                for ranks in all_ranks(site, method, multiple)
            ]
            for site in sites
        }
        assert self.rank.budget is not None
        whole = totals(candidate.module, candidate.example).macs
        other = whole - sum(site.macs for site in sites)
        costs = {site.name: site.macs for site in sites}
        return cheapest_within(costs, options, self.rank.budget * whole - other)

    def _rank_faults(self, candidate: Candidate, context: Context, where: str) -> list[EdgekdError]:
        sites, left = self._sites(candidate)
        multiple = context.target.channel_multiple
        if not sites:
            reasons = "; ".join(f"{name}: {why}" for name, why in left.items())
            return [InputError("no layer can be factorized", where=where, hint=reasons)]
        if self.rank.budget is not None:
            try:
                self._within_budget(candidate, sites, {}, multiple)
            except InputError as error:
                return [InputError(error.message, where=f"{where}.rank.budget", hint=error.hint)]
        if self.rank.sensitivity is not None and not len(context.data.validation):
            text = "sensitivity is measured on validation samples, but there are none"
            hint = "set data.validation = 0.1 to hold some back"
            return [InputError(text, where=f"{where}.rank.sensitivity", hint=hint)]
        if self.rank.rank is None:
            return []
        above = {
            site.name: most
            for site in sites
            if self.rank.rank > (most := max(max(site.full(each)) for each in site.methods))
        }
        return [
            InputError(
                f"a rank of {self.rank.rank} is above the full rank of '{name}'",
                where=f"{where}.rank.rank",
                allowed=f"1 to {most}",
                hint=f"lower it, or ignore = [{', '.join(map(repr, above))}]",
            )
            for name, most in above.items()
        ]

    def _recovered(self, module: nn.Module, context: Context, root: Path) -> nn.Module:
        if not self.teaching.epochs:
            return module
        learning = replace(context, work=root / "recovery", cache=context.logits_folder)
        return teach(copy.deepcopy(module), self.learning(learning, "factorize"))

    def _line(
        self,
        candidate: Candidate,
        module: nn.Module,
        sites: list[Site],
        chosen: dict[str, Option],
        left: dict[str, str],
    ) -> str:
        before = totals(candidate.module, candidate.example)
        after = totals(module, candidate.example)
        done = [
            f"{site.name} {option.method} rank {'x'.join(map(str, option.ranks))} of "
            f"{'x'.join(map(str, site.full(option.method)))}, {option.error:.1%} lost"
            for site in sites
            if (option := chosen.get(site.name)) is not None
        ]
        whole = [site.name for site in sites if site.name not in chosen]
        changes = "; ".join(done) or "no layer became cheaper"
        rest = untouched(candidate.module, candidate.example, list(chosen))
        kept = [f"{name} ({why})" for name, why in left.items()]
        kept += [f"{name} (not cheaper)" for name in whole]
        return (
            f"factorize: {before.parameters:,} -> {after.parameters:,} parameters, "
            f"{before.macs:,} -> {after.macs:,} MACs; {changes}"
            + (f"; unchanged: {', '.join(kept)}" if kept else "")
            + (f"; {rest}" if rest else "")
        )
