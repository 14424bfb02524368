"""What the plan refuses of `method = "auto"`."""

from collections.abc import Iterable

from edgekd.errors import EdgekdError, InputError
from edgekd.training.context import Context

CHOSEN = (
    "ranges",
    "percentile",
    "weight_ranges",
    "equalize",
    "absorb_biases",
    "smooth_quant",
    "rounding",
    "rounding_steps",
    "awq",
    "mixed",
)
"""The keys that the method chooses itself."""


def auto_faults(
    set_keys: Iterable[str], accuracy_drop: float | None, context: Context, where: str
) -> list[EdgekdError]:
    """Faults of a stage whose method is "auto"; `set_keys` are those that are not as by default."""
    faults: list[EdgekdError] = []
    for key in set_keys:
        if key in CHOSEN:
            text = f'method = "auto" chooses {key} itself'
            hint = f"remove '{key}', or method = \"calibrate\""
            faults.append(InputError(text, where=f"{where}.{key}", hint=hint))
    if accuracy_drop is None:
        text = 'method = "auto" stops when a budget holds, and there is none'
        hint = "accuracy_drop = 0.5 here, or budgets.accuracy_drop"
        faults.append(InputError(text, where=f"{where}.accuracy_drop", hint=hint))
    if not len(context.data.validation):
        text = "the drop is measured on validation samples, but there are none"
        hint = "set data.validation = 0.1 to hold some back"
        faults.append(InputError(text, where=f"{where}.method", hint=hint))
    return faults
