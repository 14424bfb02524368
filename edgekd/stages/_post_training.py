"""The keys of `quantize` that say what happens before any training, and their faults."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from edgekd.errors import EdgekdError, InputError
from edgekd.quant.equalization import Equalize
from edgekd.quant.post_training import PostTraining
from edgekd.quant.ranges import FROM_HISTOGRAMS, PERCENTILE, RangeRule, Ranges, WeightRanges
from edgekd.quant.rounding import STEPS, Rounding
from edgekd.quant.wide_layers import EVERY_LAYER
from edgekd.stages import Context, TrainingStage
from edgekd.stages._auto_faults import CHOSEN, auto_faults

_INT8_KEYS = (
    "ranges",
    "percentile",
    "weight_ranges",
    "equalize",
    "absorb_biases",
    "smooth_quant",
)


class PostTrainingStage(TrainingStage):
    """A stage with a type, a method and the keys of `PostTraining`. Without `ranges`, calibration
    takes the extremes of all samples and training starts from their moving average, which it goes
    on with. `accuracy_drop` is what the method "auto" may lose, in points, and `last_resort` the
    method with which it trains where nothing else holds that.
    """

    chosen_by_auto: ClassVar[tuple[str, ...]] = CHOSEN

    dtype: Literal["int8", "fp16", "bf16", "int4", "ternary", "binary", "auto"] = "int8"
    method: Literal["calibrate", "auto", "qat", "lsq", "pact"] = "calibrate"
    accuracy_drop: float | None = Field(default=None, ge=0.0, lt=100.0)
    last_resort: Literal["qat", "lsq", "pact"] | None = None
    activations: Literal[8, 16] = 8
    int16_layers: tuple[str, ...] = ()
    strict: bool = False
    ranges: Ranges | None = None
    percentile: float | None = Field(default=None, gt=50.0, lt=100.0)
    weight_ranges: WeightRanges = "max"
    equalize: Equalize = False
    absorb_biases: bool = False
    smooth_quant: bool = False
    rounding: Rounding = "nearest"
    rounding_steps: int = Field(default=STEPS, ge=1)
    awq: bool = False
    bias_correction: bool = True

    def choices(self, trains: bool) -> PostTraining:
        """The keys as one value."""
        kind = self.ranges or ("moving-average" if trains else "minmax")
        return PostTraining(
            rule=RangeRule(kind, PERCENTILE if self.percentile is None else self.percentile),
            weight_ranges=self.weight_ranges,
            equalize=self.equalize,
            absorb_biases=self.absorb_biases,
            smooth_quant=self.smooth_quant,
            rounding=self.rounding,
            rounding_steps=self.rounding_steps,
            bias_correction=self.bias_correction,
            wide=self.int16,
        )

    @property
    def int16(self) -> tuple[str, ...]:
        """The layers with activations of 16 bits."""
        return EVERY_LAYER if self.activations == 16 else self.int16_layers

    def is_set(self, key: str) -> bool:
        """Whether a key has another value than by default, as a resolved recipe names them all."""
        return bool(getattr(self, key) != type(self).model_fields[key].default)

    def within(self, budgets: Mapping[str, float]) -> "PostTrainingStage":
        """With the target's budget as the drop that "auto" may lose, unless the recipe names it."""
        limit = budgets.get("accuracy_drop")
        if self.method != "auto" or self.accuracy_drop is not None or limit is None:
            return self
        return self.model_copy(update={"accuracy_drop": max(0.0, limit)})

    def key_faults(self, context: Context, where: str) -> list[EdgekdError]:
        """A fault for each key that has been set and that the type or the method can't use."""
        faults = self._range_faults(where) + self._rounding_faults(where)
        if self.method == "auto":
            given = [key for key in type(self).model_fields if self.is_set(key)]
            faults += auto_faults(given, self.accuracy_drop, context, where)
            return faults
        for key in ("accuracy_drop", "last_resort"):
            if self.is_set(key):
                text = f'{key} goes with method = "auto", found {self.method!r}'
                faults.append(InputError(text, where=f"{where}.{key}"))
        return faults

    def _range_faults(self, where: str) -> list[EdgekdError]:
        faults: list[EdgekdError] = []
        dtype = self.dtype
        for key in _INT8_KEYS:
            if dtype != "int8" and self.is_set(key):
                text = f"{key} belongs to int8; {dtype} leaves activations in float"
                faults.append(InputError(text, where=f"{where}.{key}", hint=f"remove '{key}'"))
        if self.percentile is not None and self.ranges != "percentile":
            text = f'percentile goes with ranges = "percentile", found {self.ranges or "minmax"!r}'
            faults.append(InputError(text, where=f"{where}.percentile"))
        if self.activations == 16 and self.ranges in FROM_HISTOGRAMS[1:]:
            text = f"'{self.ranges}' clips to make steps finer, and 65,535 levels are fine enough"
            allowed = "minmax, mean-minmax, moving-average, percentile"
            faults.append(InputError(text, where=f"{where}.ranges", allowed=allowed))
        if self.weight_ranges == "mse" and self.method in ("qat", "pact"):
            text = f'with method = "{self.method}" the ranges of weights follow the largest weight'
            allowed = 'method = "calibrate" or "lsq"'
            faults.append(InputError(text, where=f"{where}.weight_ranges", allowed=allowed))
        return faults

    def _rounding_faults(self, where: str) -> list[EdgekdError]:
        """Faults of `rounding`, which needs integers that aren't trained afterwards."""
        faults: list[EdgekdError] = []
        if self.awq and self.dtype != "int4":
            text = "awq is for int4 weights with float activations"
            hint = 'dtype = "int4"' + (", or smooth_quant" if self.dtype == "int8" else "")
            faults.append(InputError(text, where=f"{where}.awq", hint=hint))
        if self.rounding not in ("adaround", "blocks") and self.is_set("rounding_steps"):
            text = f'rounding_steps goes with "adaround" and "blocks", found {self.rounding!r}'
            faults.append(InputError(text, where=f"{where}.rounding_steps"))
        if self.rounding == "nearest":
            return faults
        if self.dtype not in ("int8", "int4"):
            text = f"{self.dtype} weights are not rounded to a grid of steps"
            faults.append(InputError(text, where=f"{where}.rounding", allowed="int8, int4"))
        if self.method not in ("calibrate", "auto"):
            text = (
                f'method = "{self.method}" trains the weights, which rounds them anew at every step'
            )
            hint = "method = \"calibrate\", or remove 'rounding'"
            faults.append(InputError(text, where=f"{where}.rounding", hint=hint))
        return faults
