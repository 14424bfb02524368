"""Runs a recipe's diagnostics: on the deployed file, on the networks and on the measured costs."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.measure.diagnostics import (
    Costs,
    Finding,
    Line,
    Networks,
    OfCosts,
    OfNetworks,
    OfOutputs,
    Outputs,
    Plot,
    summary_of,
)
from edgekd.report.values import StageReport, TargetReport
from edgekd.run.plan import Plan
from edgekd.values.candidate import Candidate
from edgekd.values.measurement import Kind


def file_findings(
    plan: Plan,
    name: str,
    kind: Kind,
    student: np.ndarray,
    teacher: np.ndarray,
    run: Callable[[Tensor], Tensor],
) -> tuple[Finding, ...]:
    """Diagnostics of a deployed file's outputs (N, ...), compared with the trained model's."""
    wanted = {k: v for k, v in plan.diagnostics.items() if isinstance(v, OfOutputs)}
    if not wanted:
        return ()
    mine, theirs = (torch.from_numpy(np.ascontiguousarray(each)) for each in (student, teacher))
    folder = plan.request.recipe.folder
    outputs = Outputs(plan.data, mine, theirs, run, plan.original.logits, folder)
    return tuple(
        _finding(key, f"the deployed file {name}", kind, diagnostic.look(outputs))
        for key, diagnostic in wanted.items()
    )


def network_findings(plan: Plan, candidate: Candidate) -> tuple[Finding, ...]:
    """Diagnostics of the last float candidate's gradients and layers, against the trained
    model's."""
    wanted = {k: v for k, v in plan.diagnostics.items() if isinstance(v, OfNetworks)}
    if not wanted:
        return ()
    networks = Networks(plan.data, candidate.module, _teacher(plan), plan.request.recipe.seed)
    place = "the last float candidate in PyTorch"
    return tuple(
        _finding(name, place, "measured", diagnostic.look(networks))
        for name, diagnostic in wanted.items()
    )


def cost_findings(
    plan: Plan, target: TargetReport, stages: Sequence[StageReport]
) -> tuple[Finding, ...]:
    """Diagnostics of the measured costs."""
    costs = Costs(
        target.baseline.measurements if target.baseline else (),
        {each.path: each.measurements for each in target.artifacts},
        sum(stage.seconds for stage in stages),
    )
    return tuple(
        _finding(name, "the measured costs", diagnostic.kind(costs), diagnostic.look(costs))
        for name, diagnostic in plan.diagnostics.items()
        if isinstance(diagnostic, OfCosts)
    )


def _teacher(plan: Plan) -> nn.Module | None:
    return plan.original.module


def _finding(name: str, of: str, kind: Kind, found: tuple[list[Line], Plot | None]) -> Finding:
    lines, plot = found
    return Finding(
        name=name, summary=summary_of(name), of=of, kind=kind, lines=tuple(lines), plot=plot
    )
