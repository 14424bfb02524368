"""What the plan refuses of a quantization's activations of 16 bits."""

from edgekd.errors import EdgekdError, InputError
from edgekd.quant.mixed import Mixed
from edgekd.quant.wide_faults import wide_faults
from edgekd.quant.wide_layers import EVERY_LAYER
from edgekd.stages._post_training import PostTrainingStage
from edgekd.values.target import Target


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
