"""Checks of a quantization against model and target, made before any training."""

from collections.abc import Collection, Sequence

from edgekd.errors import EdgekdError, InputError, nearest
from edgekd.network.taps import is_within
from edgekd.quant.mixed import Mixed
from edgekd.quant.narrow import WIDTH
from edgekd.values.backend import BackendInfo
from edgekd.values.backend_lookup import backend_info, known_backends
from edgekd.values.candidate import Candidate
from edgekd.values.target import Target

METHODS = {
    "int8": ("calibrate", "auto", "qat", "lsq", "pact"),
    "fp16": ("calibrate",),
    "bf16": ("calibrate",),
    "int4": ("calibrate", "auto", "qat", "lsq"),
    "ternary": ("calibrate", "qat"),
    "binary": ("calibrate", "qat"),
}
"""The methods that each type supports; weight-only types have no activation range to learn."""

WEIGHTS_ALONE = ("bf16", "int4", "ternary", "binary")
FP16_LARGEST = 65_504.0


def method_faults(dtype: str, method: str, where: str) -> list[EdgekdError]:
    """A fault if the type does not support the method."""
    if method in METHODS[dtype]:
        return []
    return [
        InputError(
            f"{dtype} doesn't support the method '{method}'",
            where=f"{where}.method",
            allowed=", ".join(METHODS[dtype]),
        )
    ]


def storing(target: Target) -> list[str]:
    """The target's backends that store weights in fewer bits than activations."""
    infos = backends_of(target)
    return [name for name, info in infos.items() if "weights" in info.forms and not info.follows]


def backends_of(target: Target) -> dict[str, BackendInfo]:
    """The description of each of the target's backends."""
    return {
        name: backend_info(name, f"target {target.name}: backends.{name}")
        for name in target.backends
    }


def target_faults(dtype: str, narrows: bool, target: Target, where: str) -> list[EdgekdError]:
    """Faults for types that the target's backends can't store; `narrows` is set if layers differ
    in type."""
    infos = backends_of(target)
    if dtype in WEIGHTS_ALONE and not storing(target):
        able = [name for name, info in known_backends().items() if "weights" in info.forms]
        return [
            InputError(
                f"no backend of {target.name} stores {dtype} weights "
                f"({', '.join(target.backends)}): it would only be a simulation",
                where=f"{where}.dtype",
                allowed=f"a target with one of the backends {', '.join(able)}",
                hint='dtype = "int8" or "fp16"',
            )
        ]
    unreadable = [
        InputError(
            f"{info.title} can't read {dtype} weights",
            where=f"{where}.dtype",
            allowed=", ".join(each for each in METHODS if each in info.precisions),
        )
        for info in infos.values()
        if info.follows and not info.int8_only and dtype not in info.precisions
    ]
    cut_off = [
        InputError(
            f"{info.title} runs int8 only: no layer after one left in float would run on it",
            where=where,
            hint="remove 'mixed' and 'ignore'",
        )
        for info in infos.values()
        if narrows and info.stops_at_float
    ]
    return [*unreadable, *cut_off]


def mixed_faults(
    dtype: str, mixed: Mixed | None, layers: int, validation: int, where: str
) -> list[EdgekdError]:
    """Faults in `mixed`; `layers` is the number of layers that could be quantized."""
    if mixed is None:
        return []
    where = f"{where}.mixed"
    if dtype not in WIDTH:
        hint = "its error is too small for layers to differ"
        return [InputError(f"{dtype} doesn't support mixed precision", where=where, hint=hint)]
    faults: list[EdgekdError] = []
    wider = [each for each in WIDTH[WIDTH.index(dtype) + 1 :] if each in ("int4", "int8", "float")]
    if dtype == "int8":
        wider = ["int16", "float"]
    if mixed.wide is not None and mixed.wide not in wider:
        text = f"'{mixed.wide}' is not wider than {dtype}"
        faults.append(InputError(text, where=f"{where}.wide", allowed=", ".join(wider)))
    if mixed.weights_kb is not None and dtype not in WEIGHTS_ALONE:
        text = f"weights_kb chooses among types of weights; {dtype} has 8 bits everywhere"
        hint = 'dtype = "int4", "ternary" or "binary": the narrowest type that layers may have'
        faults.append(InputError(text, where=f"{where}.weights_kb", hint=hint))
    if mixed.layers is not None and mixed.layers >= layers:
        text = f"{mixed.layers} wide layers of {layers} leave none for {dtype}"
        faults.append(InputError(text, where=f"{where}.layers", allowed=f"1 to {layers - 1}"))
    if mixed.accuracy_drop is not None and not validation:
        text = "the drop is measured on validation samples, but there are none"
        hint = "set data.validation = 0.1 to hold some back"
        faults.append(InputError(text, where=f"{where}.accuracy_drop", hint=hint))
    return faults


def ignored_faults(ignore: Sequence[str], layers: Collection[str], where: str) -> list[EdgekdError]:
    """Faults for names that match no layer with weights, or if every layer is ignored."""
    faults: list[EdgekdError] = [
        InputError(
            f"there is no layer '{name}' with weights",
            where=f"{where}.ignore",
            allowed=", ".join(layers),
            hint=nearest(name, layers),
        )
        for name in ignore
        if not any(is_within(layer, [name]) for layer in layers)
    ]
    if layers and all(is_within(layer, ignore) for layer in layers):
        faults.append(InputError("every layer is ignored", where=f"{where}.ignore"))
    return faults


def number_faults(candidate: Candidate, dtype: str, where: str) -> list[EdgekdError]:
    """Faults for weights that are not finite, or out of range for fp16."""
    faults: list[EdgekdError] = []
    for name, value in candidate.module.named_parameters():
        if not bool(value.isfinite().all()):
            faults.append(InputError(f"'{name}' has NaN or infinite values", where=where))
        elif dtype == "fp16" and float(value.detach().abs().max()) > FP16_LARGEST:
            faults.append(
                InputError(
                    f"'{name}' has values beyond {FP16_LARGEST:g}, which fp16 can't hold",
                    where=where,
                )
            )
    return faults
