"""Everything that can be refused is refused here, before any training; then it says what will run.

`make_plan` loads the data, the networks and the teachers, types every stage, and asks stages,
backends and budgets what is wrong. All faults come out together.
"""

from edgekd.plan.checks import typed_stage
from edgekd.plan.keys import report_key, start_key
from edgekd.plan.make import make_plan
from edgekd.plan.planned import Plan, PlannedStage, PlannedTarget, Request
from edgekd.plan.targets import keep_plan

__all__ = [
    "Plan",
    "PlannedStage",
    "PlannedTarget",
    "Request",
    "keep_plan",
    "make_plan",
    "report_key",
    "start_key",
    "typed_stage",
]
