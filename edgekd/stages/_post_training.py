"""The keys of `quantize` that say what happens before any training, and their faults."""

from typing import Literal

from pydantic import Field

from edgekd.errors import EdgekdError, InputError
from edgekd.quant.equalization import Equalize
from edgekd.quant.post_training import PostTraining
from edgekd.quant.ranges import FROM_HISTOGRAMS, PERCENTILE, RangeRule, Ranges, WeightRanges
from edgekd.quant.rounding import STEPS, Rounding
from edgekd.stages import TrainingStage

_INT8_KEYS = (
    "ranges",
    "percentile",
    "weight_ranges",
    "equalize",
    "absorb_biases",
    "smooth_quant",
)


class PostTrainingStage(TrainingStage):
    """A stage with the keys of `PostTraining`. Without `ranges`, calibration takes the extremes of
    all samples and training starts from their moving average, which it goes on with.
    """

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
        )

    def key_faults(
        self, dtype: str, method: str, activations: Literal[8, 16], where: str
    ) -> list[EdgekdError]:
        """A fault for each key that has been set and that the type or the method can't use."""
        faults: list[EdgekdError] = []
        given = self.model_fields_set
        for key in _INT8_KEYS:
            if dtype != "int8" and key in given and getattr(self, key):
                text = f"{key} belongs to int8; {dtype} leaves activations in float"
                faults.append(InputError(text, where=f"{where}.{key}", hint=f"remove '{key}'"))
        if self.percentile is not None and self.ranges != "percentile":
            text = f'percentile goes with ranges = "percentile", found {self.ranges or "minmax"!r}'
            faults.append(InputError(text, where=f"{where}.percentile"))
        if activations == 16 and self.ranges in FROM_HISTOGRAMS[1:]:
            text = f"'{self.ranges}' clips to make steps finer, and 65,535 levels are fine enough"
            allowed = "minmax, mean-minmax, moving-average, percentile"
            faults.append(InputError(text, where=f"{where}.ranges", allowed=allowed))
        if self.weight_ranges == "mse" and method in ("qat", "pact"):
            text = f'with method = "{method}" the ranges of weights follow the largest weight'
            allowed = 'method = "calibrate" or "lsq"'
            faults.append(InputError(text, where=f"{where}.weight_ranges", allowed=allowed))
        if self.awq and dtype != "int4":
            text = "awq is for int4 weights with float activations"
            hint = 'dtype = "int4"' + (", or smooth_quant" if dtype == "int8" else "")
            faults.append(InputError(text, where=f"{where}.awq", hint=hint))
        return faults + self._rounding_faults(dtype, method, where)

    def _rounding_faults(self, dtype: str, method: str, where: str) -> list[EdgekdError]:
        """Faults of `rounding`, which needs integers that aren't trained afterwards."""
        faults: list[EdgekdError] = []
        given = "rounding_steps" in self.model_fields_set
        if self.rounding != "adaround" and given:
            text = f'rounding_steps goes with rounding = "adaround", found {self.rounding!r}'
            faults.append(InputError(text, where=f"{where}.rounding_steps"))
        if self.rounding == "nearest":
            return faults
        if dtype not in ("int8", "int4"):
            text = f"{dtype} weights are not rounded to a grid of steps"
            faults.append(InputError(text, where=f"{where}.rounding", allowed="int8, int4"))
        if method not in ("calibrate", "auto"):
            text = f'method = "{method}" trains the weights, which rounds them anew at every step'
            hint = "method = \"calibrate\", or remove 'rounding'"
            faults.append(InputError(text, where=f"{where}.rounding", hint=hint))
        return faults
