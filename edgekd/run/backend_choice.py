"""Selects the backends of each target that `--backend` names."""

# code-key: presents

from collections.abc import Sequence

from edgekd.errors import EdgekdError, InputError, nearest
from edgekd.values.backend_lookup import backend_info
from edgekd.values.target import Target


def with_backends(target: Target, names: Sequence[str]) -> Target:
    """The target with only the named backends and the backends whose files they start from."""
    wanted: set[str] = set()
    pending = [name for name in names if name in target.backends]
    while pending:
        name = pending.pop()
        wanted.add(name)
        follows = backend_info(name).follows
        pending += [follows] if follows else []
    tables = {name: table for name, table in target.backends.items() if name in wanted}
    return target.model_copy(update={"backends": tables})


def choice_faults(names: Sequence[str], targets: Sequence[Target]) -> list[EdgekdError]:
    """A fault for each name that no target has as a backend; without one, a fault for each
    target that has none of the named backends."""
    every = list(dict.fromkeys(name for target in targets for name in target.backends))
    faults: list[EdgekdError] = [
        InputError(
            f"'{name}' is not a backend of {', '.join(target.name for target in targets)}",
            where="--backend",
            allowed=", ".join(every),
            hint=nearest(name, every),
        )
        for name in names
        if targets and name not in every
    ]
    return faults or [
        InputError(
            f"{target.name} has none of these backends",
            where="--backend",
            allowed=", ".join(target.backends),
        )
        for target in targets
        if names and not set(names) & set(target.backends)
    ]
