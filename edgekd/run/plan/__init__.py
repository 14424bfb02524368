"""Everything that can be refused is refused here, before any training; then it says what will run.

`edgekd.run.plan.make` loads the data, the networks and the teachers, types every stage, and asks
stages, backends and budgets what is wrong. All faults come out together. It is not imported here,
because it knows the subjects, and those know plans.
"""

from edgekd.run.plan.checks import typed_stage
from edgekd.run.plan.keys import report_key, start_key
from edgekd.run.plan.planned import Plan, PlannedStage, PlannedTarget, Request
from edgekd.run.plan.targets import keep_plan

__all__ = [
    "Plan",
    "PlannedStage",
    "PlannedTarget",
    "Request",
    "keep_plan",
    "report_key",
    "start_key",
    "typed_stage",
]
