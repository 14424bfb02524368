"""What quantization does before any training: ranges, weights moved between layers, biases."""

from dataclasses import dataclass

from edgekd.quant.equalization import Equalize
from edgekd.quant.ranges import EXTREMES, RangeRule, WeightRanges
from edgekd.quant.rounding import STEPS, Rounding


@dataclass(frozen=True)
class PostTraining:
    """The choices of calibration. `rule` sets the activations' ranges, `weight_ranges` those of
    weights. `equalize` gives the channels of successive layers similar ranges, `absorb_biases`
    moves high biases into the next layer, `bias_correction` undoes the shift of the layers' means
    (Nagel et al. 2019). `smooth_quant` moves part of the activations' range into the weights that
    follow (Xiao et al. 2023). `rounding` chooses the weights' integers by the layers' outputs. What
    the layers in `wide` read and write has 16 bits.
    """

    rule: RangeRule = EXTREMES
    weight_ranges: WeightRanges = "max"
    equalize: Equalize = False
    absorb_biases: bool = False
    smooth_quant: bool = False
    rounding: Rounding = "nearest"
    rounding_steps: int = STEPS
    bias_correction: bool = True
    wide: tuple[str, ...] = ()


DEFAULTS = PostTraining()
