"""The widths that layers of a quantization may have, and what the plan refuses of 16 bits."""

from dataclasses import replace
from functools import partial

from edgekd.errors import EdgekdError, InputError
from edgekd.quant.faults import backends_of
from edgekd.quant.mixed import Mixed, Wide
from edgekd.quant.post_training import DEFAULTS
from edgekd.quant.wide_faults import wide_faults
from edgekd.quant.wide_layers import EVERY_LAYER
from edgekd.stages._calibration_set import calibration_of
from edgekd.stages._mixed import Variants
from edgekd.stages._post_training import PostTrainingStage
from edgekd.training.context import Context
from edgekd.values.candidate import Candidate
from edgekd.values.target import Scheme, Target


def stage_faults(
    stage: PostTrainingStage, mixed: Mixed | None, target: Target, where: str
) -> list[EdgekdError]:
    """Faults of the key that asks for 16 bits: `activations`, `int16_layers` or `mixed.wide`."""
    key, layers = "int16_layers", stage.int16
    if stage.activations == 16:
        key = "activations"
        if stage.int16_layers:
            text = "'activations = 16' gives every layer 16 bits"
            hint = "remove 'activations' or 'int16_layers'"
            return [InputError(text, where=f"{where}.int16_layers", hint=hint)]
    elif mixed is not None and mixed.wide == "int16" and not layers:
        key, layers = "mixed.wide", EVERY_LAYER
    if not layers:
        return []
    return wide_faults(stage.dtype, stage.method, stage.strict, target, f"{where}.{key}", layers)


def mixed_kinds(
    stage: PostTrainingStage, mixed: Mixed, wide: Wide, context: Context
) -> tuple[Wide, ...]:
    """The types that layers of `mixed` may have, the default first: also int16, where the recipe
    names none and every backend of the target has it. It comes first where all compute it in
    integers, as TFLite alone does; ONNX Runtime computes it in float."""
    free = mixed.wide is None and mixed.accuracy_drop is not None and stage.dtype == "int8"
    int16 = Mixed(wide="int16", layers=1)
    if free and not stage_faults(stage, int16, context.target, "quantize"):
        return (wide, "int16") if "onnx" in backends_of(context.target) else ("int16", wide)
    return (wide,)


def variants(candidate: Candidate, context: Context, scheme: Scheme) -> Variants:
    """The network with one type throughout, to time its layers in each."""

    def made(wide: tuple[str, ...]) -> Candidate:
        # torchao takes seconds to import: not before it is used.
        from edgekd.quant.calibration import calibrate

        samples, choices = calibration_of(context), replace(DEFAULTS, wide=wide)
        graph = calibrate(candidate.module, candidate.example, samples, scheme, choices)
        return candidate.after(graph, "quantize: to time its layers", "int8")

    return {
        "int8": partial(made, ()),
        "int16": partial(made, EVERY_LAYER),
        "float": lambda: candidate,
    }
