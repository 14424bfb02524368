"""Turns a request into a plan, or into all of its faults at once."""

from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from edgekd.data import load_data
from edgekd.data.calibration import calibration_samples, judged
from edgekd.data.judged_calibration import Judgement
from edgekd.data.samples import Data
from edgekd.errors import Collector, EdgekdError, InputError, raise_all
from edgekd.measure.budgets import check_budgets, check_hard_limits
from edgekd.measure.diagnostics import diagnostics_of
from edgekd.network.recurrent import unrolling_notes
from edgekd.run.log import append_errors, errors_logged
from edgekd.run.plan.checks import (
    check_delivery,
    check_device,
    check_labels,
    check_order,
    metric_faults,
    typed_stage,
)
from edgekd.run.plan.indices import within_tables
from edgekd.run.plan.keys import report_key
from edgekd.run.plan.planned import Plan, Request
from edgekd.run.plan.start import teacher_for, teacher_networks
from edgekd.run.plan.targets import budgets_of
from edgekd.run.subjects import subject_of
from edgekd.store import check_writable
from edgekd.training.teachers import Teacher
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import licence_text
from edgekd.values.target import hard_limits
from edgekd.values.tree import Tree


def make_plan(request: Request) -> Plan:
    """The plan of a request, or every fault in it at once. The full output of failed tools goes
    into log.txt in the output folder, including that of backends that the plan leaves out.
    """
    with errors_logged(request.out):
        plan = _make_plan(request)
    unusable = [error for planned in plan.targets for error in planned.unusable.values()]
    append_errors(request.out, unusable)
    return plan


def _make_plan(request: Request) -> Plan:
    recipe, collect = request.recipe, Collector(InputError)
    collect.attempt(check_writable, request.out)
    warnings = collect.attempt(check_device, request)
    data = collect.attempt(load_data, recipe.data, recipe.folder)
    stages = [
        collect.attempt(typed_stage, number, table) for number, table in enumerate(recipe.stages, 1)
    ]
    check_order([stage for stage in stages if stage], collect)
    collect.faults.extend(budget_faults(request))
    collect.attempt(licence_text, recipe)
    collect.attempt(report_key, recipe)
    if data:
        collect.attempt(check_labels, recipe, data)
        collect.faults.extend(metric_faults(request, data.task))
    collect.attempt(check_delivery, recipe, request.targets)
    subject = subject_of(recipe)
    original, *teachers = [
        collect.attempt(teacher_for, network, recipe, data, where) if data else None
        for network, where in teacher_networks(recipe)
    ]
    start = collect.attempt(subject.start, recipe, data, original) if data else None
    raise_all(collect.faults)
    assert data is not None
    assert original is not None
    assert start is not None
    data = collect.attempt(within_tables, data, _networks(start, (original, *teachers), data))
    raise_all(collect.faults)
    assert data is not None
    asked, faults = diagnostics_of(recipe.report.diagnostics, data, "report.diagnostics")
    collect.faults.extend(faults)
    collect.faults.extend(subject.diagnostic_faults(asked))
    calibration = collect.attempt(
        calibration_samples,
        recipe.calibration,
        data,
        recipe.folder,
        recipe.data.preprocess,
    )
    raise_all(collect.faults)
    assert calibration is not None
    judgement = _judgement(request, calibration, data)
    collect.faults.extend(judgement.faults)
    plan = Plan(
        request,
        subject,
        data,
        start,
        recipe.student or recipe.model,
        original,
        tuple(teacher for teacher in teachers if teacher) or (original,),
        calibration,
        (),
        (),
        asked,
    )
    planned = [
        subject.plan_target(plan, target, [stage for stage in stages if stage], collect)
        for target in request.targets
    ]
    raise_all(_once(collect.faults))
    notes = unrolling_notes(start.module, start.example)
    warned = (*_warnings(request), *judgement.warnings, *notes, *(warnings or ()))
    return replace(plan, targets=tuple(planned), warnings=warned)


def _networks(start: Candidate, teachers: Iterable[Teacher | None], data: Data) -> list[nn.Module]:
    """The networks that read the samples as students see them."""
    if data.train.paired is not None:
        return [start.module]
    modules = [teacher.module for teacher in teachers if teacher is not None]
    return [start.module, *(module for module in modules if module is not None)]


def budget_faults(request: Request) -> list[EdgekdError]:
    """Faults in each budget table by itself, since merging lets a later budget hide an earlier
    one, and in the merged budgets of each target."""
    faults = [
        *check_budgets(request.recipe.budgets, "budgets"),
        *check_budgets(request.budgets, "--budget"),
    ]
    for target in request.targets:
        faults += check_budgets(target.budgets, f"target {target.name}: budgets")
    if not faults:
        for target in request.targets:
            budgets = budgets_of(request, target)
            faults += check_hard_limits(budgets, hard_limits(target), target.name)
    return faults


def _judgement(request: Request, samples: Tree, data: Data) -> Judgement:
    """What is wrong with the calibration samples of a recipe that quantizes."""
    recipe = request.recipe
    if not any(stage.get("kind") == "quantize" for stage in recipe.stages):
        return Judgement()
    return judged(recipe.calibration, samples, data, recipe.folder)


def _warnings(request: Request) -> tuple[str, ...]:
    return ("--quick: short measurements, so latencies are less reliable",) if request.quick else ()


def _once(faults: list[EdgekdError]) -> list[EdgekdError]:
    """The faults without duplicates: several targets may find the same one in the same stage."""
    seen: dict[str, EdgekdError] = {}
    for fault in faults:
        seen.setdefault(str(fault), fault)
    return list(seen.values())
