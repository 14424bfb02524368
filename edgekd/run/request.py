"""From the command line's words to a request, every fault in them at once."""

# code-key: presents

from collections.abc import Sequence
from pathlib import Path

from edgekd.errors import Collector, EdgekdError, InputError, raise_all
from edgekd.measure.budgets import check_accept, parse_budget
from edgekd.run.plan.planned import Request
from edgekd.store import cache_folder
from edgekd.values.recipe import LARGEST_SEED, default_recipe, load_recipe
from edgekd.values.target import Target, load_target, target_files


def prepare(
    *,
    recipe: Path | None,
    targets: Sequence[str],
    out: Path,
    budgets: Sequence[str] = (),
    device: str | None = None,
    accept: Sequence[str] = (),
    settings: Sequence[str] = (),
    resume: bool = True,
    seed: int | None = None,
    quick: bool = False,
) -> Request:
    """What the command line asked for, checked word by word; all faults come out together."""
    collect = Collector()
    collect.faults.extend(check_accept(accept))
    if not targets:
        collect.faults.append(
            InputError(
                "no target",
                where="--target",
                hint="run 'edgekd targets' for the list, then name one",
            )
        )
    found = [collect.attempt(load_target, name) for name in dict.fromkeys(targets)]
    profiles = [each for each in found if each]
    collect.faults.extend(_namesakes(profiles))
    limits = [collect.attempt(parse_budget, text) for text in budgets]
    overrides = [collect.attempt(_setting, text) for text in settings]
    if seed is not None and not 0 <= seed <= LARGEST_SEED:
        allowed = f"0 to {LARGEST_SEED}"
        collect.faults.append(InputError(f"no seed: {seed}", where="--seed", allowed=allowed))
    path = recipe or default_recipe()
    loaded = collect.attempt(load_recipe, path, dict(each for each in overrides if each))
    raise_all(collect.faults)
    assert loaded is not None
    return Request(
        recipe=loaded if seed is None else loaded.model_copy(update={"seed": seed}),
        targets=tuple({each.name: each for each in profiles}.values()),
        out=out.resolve(),
        device=device,
        accept=tuple(accept),
        budgets=dict(limit for limit in limits if limit),
        quick=quick,
        resume=resume,
        cache=cache_folder(),
    )


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise InputError(
            f"'{text}' sets nothing", where="--set", allowed="KEY=VALUE: stage.distill.epochs=3"
        )
    return key.strip(), value.strip()


def _namesakes(targets: Sequence[Target]) -> list[EdgekdError]:
    """A fault for each that has the name of another one: reports and locks go by names."""
    files = target_files()
    known = {each.name: load_target(each.name) for each in targets if each.name in files}
    return [
        InputError(
            f"another target has the name '{target.name}', too",
            where="--target",
            hint="give the file and the 'name' in it a name of their own",
        )
        for target in targets
        if known.setdefault(target.name, target) != target
    ]
