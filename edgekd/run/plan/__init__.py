"""The plan of a run: every error that can be found before training is found here.
`edgekd.run.plan.make` loads the data, the networks and the teachers, validates every stage, and has
stages, backends and budgets check themselves. All faults are reported together. It is not imported
here, because it imports the subjects, which import plans.
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
