"""A PyTorch network: the stages shrink it, and the target's backends compile the result."""

from collections.abc import Mapping, Sequence

import torch

from edgekd.backends import Backend
from edgekd.data.samples import Data
from edgekd.errors import Collector, EdgekdError
from edgekd.measure.diagnostics import Diagnostic
from edgekd.network.calling import leave_open
from edgekd.network.cost import layer_costs, totals
from edgekd.report.values import ArtifactReport, LayerCost, Layers, StageReport
from edgekd.run.compiled import Compiled
from edgekd.run.compiling import compile_candidate, compiled
from edgekd.run.pipeline import run_stages
from edgekd.run.plan.keys import start_key
from edgekd.run.plan.planned import Plan, PlannedTarget, TargetFiles
from edgekd.run.plan.start import start_candidate
from edgekd.run.plan.targets import planned_target
from edgekd.stages import Progress, Stage
from edgekd.store import key_of
from edgekd.training.teachers import Teacher
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import Recipe
from edgekd.values.target import Target
from edgekd.values.tree import Tree


class NetworkSubject:
    """A network that stages can change."""

    def start(self, recipe: Recipe, data: Data, original: Teacher | None) -> Candidate | None:
        """The student, or the trained model itself if there is no student; None for a model that
        the plan has refused as its own teacher."""
        if recipe.student is None and original is None:
            return None
        return start_candidate(recipe.student or recipe.model, recipe, data)

    def summary(self, start: Candidate) -> str:
        """The network's parameters and MACs."""
        cost = totals(start.module, start.example)
        return f"{cost.parameters:,} parameters, {cost.macs:,} MACs"

    def diagnostic_faults(self, asked: Mapping[str, Diagnostic]) -> list[EdgekdError]:
        """No faults: a network supports every diagnostic."""
        return []

    def plan_target(
        self, plan: Plan, target: Target, stages: Sequence[Stage], collect: Collector
    ) -> PlannedTarget:
        """The target's stages with their keys, backends and budgets, all checked."""
        return planned_target(plan, target, stages, collect)

    def make(self, plan: Plan, planned: PlannedTarget, progress: Progress) -> TargetFiles:
        """Run the stages, then every backend; the first that works also compiles the trained
        model."""
        staged = run_stages(plan, planned, progress, start_key(plan))
        made = compile_candidate(plan, planned, staged, progress)
        baseline = _baseline(plan, planned, made.failures)
        return TargetFiles(
            tuple(made.files), baseline, staged.floating, staged.reports, made.failures
        )

    def stage_reports(
        self, made: TargetFiles, reports: Sequence[ArtifactReport], seconds: float
    ) -> tuple[StageReport, ...]:
        """The stages, as the pipeline reported them."""
        return made.stages

    def layers(self, plan: Plan, made: TargetFiles) -> Layers:
        """The cost of the trained model's layers and of the last float candidate's."""
        original = plan.original.module
        start = plan.start
        assert made.network is not None
        return Layers(
            before=cost_rows(start.module, start.example)
            if original is None
            else cost_rows(original, plan.data.shown),
            after=cost_rows(made.network.module, start.example),
        )


def _baseline(
    plan: Plan, planned: PlannedTarget, failures: Mapping[str, EdgekdError]
) -> Compiled | None:
    """The trained model, compiled by the target's first backend that succeeds; None for a black
    box."""
    module = plan.original.module
    if module is None or plan.data.train.paired is not None or not plan.request.baseline:
        return None
    leave_open(module, plan.start.open)
    candidate = Candidate(module, plan.start.example, open=plan.start.open)
    key = key_of("baseline", plan.original.key, start_key(plan))
    for name, backend in planned.backends.items():
        if isinstance(backend, Backend) and name not in failures:
            return compiled(plan, planned.target, name, backend, candidate, key)[0]
    return None


def cost_rows(module: torch.nn.Module, example: Tree) -> tuple[LayerCost, ...]:
    """The report's row for each layer with weights or MACs."""
    return tuple(
        LayerCost(name=layer.name, kind=layer.kind, parameters=layer.parameters, macs=layer.macs)
        for layer in layer_costs(module, example)
        if layer.parameters or layer.macs
    )
