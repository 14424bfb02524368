"""Post-training quantization: NNCF calibrates ranges on real samples, then biases are corrected."""

import copy
import io
from collections.abc import Collection
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from edgekd.errors import MissingPackage
from edgekd.quant.bias_correction import correct_biases
from edgekd.quant.common_grids import grid_groups, share_calibrated
from edgekd.quant.constants import own_constants
from edgekd.quant.export import quiet
from edgekd.quant.fixed_grids import has_fixed_grids, set_fixed_grids
from edgekd.quant.layer_noise import check_layers
from edgekd.quant.own_noise import check_noises, own_noises
from edgekd.quant.preparing import NOTES, Prepared, prepare_graph
from edgekd.quant.qat import observed
from edgekd.quant.quantizer import TargetQuantizer
from edgekd.quant.ranges import Ranges
from edgekd.quant.rewrite import finish, fold_weights
from edgekd.quant.weight_grids import fit_weights
from edgekd.values.target import Scheme
from edgekd.values.tree import Tree, chunks, count


def calibrate(
    module: nn.Module,
    example: Tree,
    samples: Tree,
    scheme: Scheme,
    *,
    bias_correction: bool = True,
    smooth_quant: bool = False,
    ranges: Ranges = "minmax",
    floats: Collection[str] = (),
    strict: bool = False,
    where: str = "quantize",
) -> fx.GraphModule:
    """An int8 graph of a float module, calibrated on `samples` (N, ...); the layers in `floats`
    stay in float, and if `strict` nothing does. NNCF sets the ranges; `smooth_quant` first moves
    part of the activations' range into the weights (Xiao et al. 2023). The float module is not
    changed. Raises `ToolError` with the names of layers that add far more noise than their bits
    explain; coarse ones become notes.
    """
    nncf = import_nncf(where)
    start = prepare_graph(module, example, samples, scheme, where, strict)
    graph = start.graph
    prepared = copy.deepcopy(graph)
    own_constants(prepared)
    if scheme.activations == "int16-symmetric":
        calibrated = _wide(replace(start, graph=prepared), example, samples, scheme, floats)
    else:
        # Its progress bars go to stdout, where results belong.
        with redirect_stdout(io.StringIO()), quiet():
            quantizer = TargetQuantizer(scheme, (*floats, *start.apart))
            calibrated = _run(nncf, prepared, samples, quantizer, smooth_quant, ranges)
    fold_weights(calibrated)
    shifts = correct_biases(graph, calibrated, samples) if bias_correction else {}
    finished = finish(calibrated)
    if not smooth_quant:  # which moves ranges from the activations into the weights
        check_layers(graph, finished, samples, scheme, where)
    clips = ranges != "minmax"
    noises = own_noises(graph, finished, samples, scheme, clips=clips, shifts=shifts)
    coarse = check_noises(noises, scheme, where)
    finished.meta[NOTES] = (*start.notes, *coarse)
    return finished


def _wide(
    start: Prepared, example: Tree, samples: Tree, scheme: Scheme, floats: Collection[str]
) -> fx.GraphModule:
    """Activations of 16 bits, for which NNCF has no type: the ranges are those of training."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    graph = observed(start, samples, scheme, floats)
    with torch.no_grad(), quiet():
        graph(example)
        converted: fx.GraphModule = convert_pt2e(graph, fold_quantize=False)
    return converted


def import_nncf(where: str = "quantize") -> Any:
    """NNCF without its log lines. Raises `MissingPackage` where it is not installed."""
    try:
        import nncf
    except ImportError:
        raise MissingPackage("nncf", "nncf", where=where) from None
    from nncf.common.logging.logger import disable_logging

    disable_logging()
    return nncf


def _run(
    nncf: Any,
    graph: fx.GraphModule,
    samples: Tree,
    quantizer: TargetQuantizer,
    smooth_quant: bool,
    ranges: Ranges,
) -> fx.GraphModule:
    """As `nncf.experimental.torch.fx.quantize_pt2e`, with weight grids set afterwards."""
    from nncf.common.factory import build_graph
    from nncf.experimental.quantization.algorithms.post_training.algorithm import (
        ExperimentalPostTrainingQuantization,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    activations = (
        RangeEstimatorParametersSet.MINMAX
        if ranges == "minmax"
        else RangeEstimatorParametersSet.MEAN_MINMAX
    )
    groups = grid_groups(graph, quantizer.floats)
    algorithm = ExperimentalPostTrainingQuantization(
        quantizer=_adapter(quantizer),
        subset_size=count(samples),
        fast_bias_correction=None,
        smooth_quant=smooth_quant,
        activations_range_estimator_params=activations,
    )
    _leave_weights_whole(algorithm)
    # NNCF spreads a tuple over a model's arguments; this model has one.
    dataset = nncf.Dataset([(sample,) for sample in chunks(samples, 1)])
    quantized = algorithm.apply(graph, build_graph(graph), dataset=dataset)
    result = fx.GraphModule(quantized, quantized.graph)
    fit_weights(result, quantizer.scheme)
    share_calibrated(result, groups, quantizer.scheme)
    if has_fixed_grids(quantizer.scheme):
        set_fixed_grids(result)
    return result


def _adapter(quantizer: TargetQuantizer) -> Any:
    """NNCF's adapter for edgekd's quantizer, with two corrections: symmetric activations stay
    signed even after a ReLU, and weights are symmetric around 0.
    """
    from nncf.experimental.torch.fx.quantization.quantizer.torch_ao_adapter import (
        TorchAOQuantizerAdapter,
    )

    class Adapter(TorchAOQuantizerAdapter):  # type: ignore[misc]
        def get_quantization_setup(self, model: fx.GraphModule, nncf_graph: Any) -> Any:
            setup = super().get_quantization_setup(model, nncf_graph)
            for point in setup.quantization_points.values():
                point.qconfig.signedness_to_force = True
                if point.is_weight_quantization_point():
                    point.qconfig.narrow_range = True
            return setup

    return Adapter(quantizer)


def _leave_weights_whole(algorithm: Any) -> None:
    """Switch off NNCF's overflow fix for saturating multiply-adds. It halves the weight range of
    certain layer kinds (not depthwise convolutions), and by default that of the first layer even
    where eight bits are exact. `fit_weights` sets every layer's scale instead.
    """
    from nncf.quantization.advanced_parameters import OverflowFix

    for step in algorithm._pipeline.pipeline_steps:
        for part in step:
            estimator = getattr(part, "_min_max_algo", None)
            if estimator is not None:
                estimator._overflow_fix = OverflowFix.DISABLE
