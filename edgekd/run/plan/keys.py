"""Cache keys: hashes of everything that a stage's result depends on, and of nothing else."""

import torch

from edgekd.data.inputs import sha256_of_tensors
from edgekd.network.identity import module_key
from edgekd.network.load import content_hash, network_key
from edgekd.run.plan.planned import Plan
from edgekd.stages import Stage
from edgekd.store import code_key, key_of
from edgekd.values.recipe import Recipe, named_files
from edgekd.values.target import Target


def start_key(plan: Plan) -> str:
    """The key of the first stage's inputs: model, teachers, data, calibration, code and seed."""
    recipe = plan.request.recipe
    start = plan.start_network
    return key_of(
        code_key(),
        torch.__version__,
        recipe.seed,
        network_key(start, recipe.folder),
        module_key(plan.start.module),  # its source may read files by itself, or draw weights
        [(teacher.key, teacher.weight) for teacher in plan.teachers],
        plan.data.sha256,
        [size.model_dump(mode="json") for size in plan.start.open],
        sha256_of_tensors(plan.calibration),
    )


def stage_key(previous: str, stage: Stage, target: Target, content: str = "") -> str:
    """The key of a stage: the previous key, the stage's table with the content of its files, and
    the target facts that it reads."""
    facts = target.model_dump(mode="json", include=set(stage.target_facts))
    table = stage.model_dump(mode="json")
    return key_of(previous, table, facts, *([content] if content else []))


def report_key(recipe: Recipe) -> str:
    """The key of a recipe's diagnostics and the content of the files they name. Raises
    `InputError` for a missing file."""
    files = [
        content_hash(recipe.folder / file.path)
        for file in named_files(recipe.model_dump(mode="json"))
        if file.place.startswith("report.")
    ]
    return key_of(recipe.report.model_dump(mode="json"), files)
