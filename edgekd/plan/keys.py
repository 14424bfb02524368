"""Names of results by content: all that a stage's outcome depends on, and nothing else."""

import torch

from edgekd.networks import network_key
from edgekd.plan.planned import Plan
from edgekd.stages import Stage
from edgekd.store import code_key, key_of
from edgekd.target import Target


def start_key(plan: Plan) -> str:
    """Of all that the first stage starts from: model, teachers, data, calibration, code, seed."""
    recipe = plan.request.recipe
    return key_of(
        code_key(),
        torch.__version__,
        plan.request.seed,
        network_key(plan.start_network, recipe.folder),
        [(teacher.key, teacher.weight) for teacher in plan.teachers],
        plan.data.sha256,
        recipe.calibration.model_dump(),
    )


def stage_key(previous: str, stage: Stage, target: Target, content: str = "") -> str:
    """Of what came before, the stage's own table with what the files in it hold, and the target's
    facts that it reads."""
    facts = target.model_dump(mode="json", include=set(stage.target_facts))
    table = stage.model_dump(mode="json")  # type: ignore[attr-defined]
    return key_of(previous, table, facts, *([content] if content else []))
