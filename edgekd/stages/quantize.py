"""Quantization to the target's scheme: calibrated on real samples, or trained with distillation."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.fx import GraphModule

from edgekd.candidate import Candidate
from edgekd.distillation import Teaching, check_teaching, teach
from edgekd.errors import EdgekdError, InputError, MissingPackage
from edgekd.quant import ops
from edgekd.quant.calibration import Ranges, calibrate
from edgekd.quant.inspection import float_islands
from edgekd.quant.qat import finish_qat, freeze_ranges, prepare_qat
from edgekd.quant.support import operators, unsupported
from edgekd.registry import STAGES
from edgekd.stages import Context

FP16_LARGEST = 65_504.0
SAMPLES = 256
WEIGHTED = {str(op.overloadpacket) for op in ops.WEIGHTED}


@STAGES.register(paper="Jacob 2018; Nagel 2019; Mishra & Marr 2018")
class Quantize(Teaching):
    """Store and compute in int8, in the scheme of the target, or in fp16.

    `calibrate` sets ranges from the calibration samples without training, corrects biases, and can
    share ranges between activations and weights first (SmoothQuant). `qat` starts from the
    calibrated ranges and trains the rounded network with the same losses as distillation; ranges
    stand still in the last `frozen` share of its steps. `ranges` is how extremes are merged.
    """

    kind: Literal["quantize"] = "quantize"
    dtype: Literal["int8", "fp16"] = "int8"
    method: Literal["calibrate", "qat"] = "calibrate"
    bias_correction: bool = True
    smooth_quant: bool = False
    ranges: Ranges = "minmax"
    frozen: float = Field(default=0.3, ge=0.0, le=1.0)

    target_facts: ClassVar[tuple[str, ...]] = ("quantization", "unsupported_ops")

    def check(self, candidate: Candidate, context: Context, where: str) -> list[EdgekdError]:
        """Refuse what is quantized already, what has no layer to quantize, and what can't run."""
        if candidate.form != "float":
            return [InputError(f"the model is {candidate.form} already", where=where)]
        faults = _weight_faults(candidate, self.dtype, where)
        if self.dtype == "fp16":
            return faults
        found = operators(candidate, where)
        faults += unsupported(found, context.target.unsupported_ops, where)
        if not any(op in WEIGHTED for _, op in found):
            kinds = ", ".join(sorted(WEIGHTED))
            faults.append(InputError("no layer can be quantized", where=where, allowed=kinds))
        if self.method == "qat":
            teachers = context.teachers
            faults += check_teaching(
                self, candidate.module, data=context.data, teachers=teachers, where=where
            )
        return faults + _missing(self.method, where)

    def cost(self, context: Context) -> str:
        """What the plan prints."""
        if self.dtype == "fp16":
            return "to fp16, no training"
        count = len(calibration_of(context))
        start = f"to int8 ({_scheme_name(context)}), ranges from {count} samples"
        if self.method == "calibrate":
            return start
        return f"{start}, then {self.epochs} epochs of {len(context.data.train):,} samples"

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """The int8 graph, or the same module marked fp16."""
        if self.dtype == "fp16":
            return candidate.after(candidate.module, "quantize: fp16", "fp16")
        samples, scheme = calibration_of(context), context.target.quantization
        context.progress("calibrating", 0, 1)
        if self.method == "qat":
            graph = self._train(candidate, context, samples)
        else:
            graph = calibrate(
                candidate.module,
                candidate.example,
                samples,
                scheme,
                bias_correction=self.bias_correction,
                smooth_quant=self.smooth_quant,
                ranges=self.ranges,
            )
        context.progress("calibrating", 1, 1)
        line = f"quantize: int8 {_scheme_name(context)} by {self.method} on {len(samples)} samples"
        islands = float_islands(graph)
        if islands:
            line += f", {len(islands)} operators stay in float"
        return candidate.after(graph, line, "int8")

    def _train(self, candidate: Candidate, context: Context, samples: Tensor) -> GraphModule:
        scheme = context.target.quantization
        graph = prepare_qat(candidate.module, candidate.example, samples, scheme)

        def on_step(done: int, total: int) -> None:
            if done >= total * (1.0 - self.frozen):
                freeze_ranges(graph)

        teach(
            graph,
            self,
            data=context.data,
            teachers=context.teachers,
            work=context.work,
            seed=context.seed,
            progress=context.progress,
            on_step=on_step,
            cache=context.cache,
            where="quantize",
        )
        return finish_qat(graph, candidate.example)


def calibration_of(context: Context) -> Tensor:
    """The recipe's calibration samples, or the first of the training set."""
    if context.calibration is not None:
        return context.calibration
    return context.data.train.x[:SAMPLES]


def _scheme_name(context: Context) -> str:
    scheme = context.target.quantization
    channels = "per channel" if scheme.per_channel else "per tensor"
    return f"{scheme.activations}, {scheme.weight_bits}-bit weights {channels}"


def _missing(method: str, where: str) -> list[EdgekdError]:
    from importlib.util import find_spec

    if method == "calibrate" and find_spec("nncf") is None:
        return [MissingPackage("nncf", "nncf", where=where)]
    return []


def _weight_faults(candidate: Candidate, dtype: str, where: str) -> list[EdgekdError]:
    faults: list[EdgekdError] = []
    for name, value in candidate.module.named_parameters():
        if not bool(value.isfinite().all()):
            faults.append(InputError(f"'{name}' has NaN or infinite values", where=where))
        elif dtype == "fp16" and float(value.abs().max()) > FP16_LARGEST:
            faults.append(
                InputError(
                    f"'{name}' has values beyond {FP16_LARGEST:g}, which fp16 can't hold",
                    where=where,
                )
            )
    return faults
