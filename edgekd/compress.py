"""`edgekd compress`: from the command line's words to a request, a plan, a run and its report."""

import json
import os
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgekd.budgets import check_accept, merge_budgets, parse_budget
from edgekd.errors import EdgekdError, Faults, InputError, raise_all
from edgekd.plan import Plan, Request, make_plan
from edgekd.recipe import default_recipe, load_recipe
from edgekd.report.values import Report
from edgekd.stages import Progress
from edgekd.target import Target, load_target

Say = Callable[[str], None]


def cache_folder() -> Path:
    """What runs share: $EDGEKD_CACHE, or edgekd's folder in the user's cache."""
    named = os.environ.get("EDGEKD_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekd"


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
    faults: list[EdgekdError] = list(check_accept(accept))

    def attempt(check: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return check(*arguments)
        except Faults as error:
            faults.extend(error.faults)
        except EdgekdError as error:
            faults.append(error)
        return None

    if not targets:
        faults.append(
            InputError(
                "no target",
                where="--target",
                hint="run 'edgekd targets' for the list, then name one",
            )
        )
    profiles = [attempt(load_target, name) for name in dict.fromkeys(targets)]
    limits = [attempt(parse_budget, text) for text in budgets]
    overrides = [attempt(_setting, text) for text in settings]
    path = recipe or default_recipe()
    loaded = attempt(load_recipe, path, dict(each for each in overrides if each))
    raise_all(faults)
    return Request(
        recipe=loaded,
        targets=tuple(_unlike(profiles)),
        out=out.resolve(),
        device=device,
        accept=tuple(accept),
        budgets=dict(limits),
        seed=loaded.seed if seed is None else seed,
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


def _unlike(targets: Sequence[Target]) -> list[Target]:
    """Each target once, also where one was named by two of its names."""
    return list({target.name: target for target in targets}.values())
