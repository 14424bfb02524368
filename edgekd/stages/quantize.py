"""Quantization: int8 in the target's scheme, half precision, or only the weights."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch.fx import GraphModule

from edgekd.errors import EdgekdError, InputError
from edgekd.network.taps import is_within
from edgekd.quant import ops
from edgekd.quant.awq import scale_salient
from edgekd.quant.bias_correction import correct_biases
from edgekd.quant.compared import auto_faults, with_wider
from edgekd.quant.export import export_graph
from edgekd.quant.faults import (
    WEIGHTS_ALONE,
    ignored_faults,
    method_faults,
    mixed_faults,
    number_faults,
    storing,
    target_faults,
)
from edgekd.quant.inspection import counted, float_islands
from edgekd.quant.mixed import Mixed, Wide
from edgekd.quant.narrow import LIMIT, Narrow
from edgekd.quant.preparing import NOTES
from edgekd.quant.reach import (
    Reach,
    float_fault,
    reach_faults,
    reach_of_int8,
    reach_of_weights,
)
from edgekd.quant.rounding import reround
from edgekd.quant.support import graph_operators, unsupported
from edgekd.quant.weight_only import (
    as_bfloat16,
    finish_narrow,
    narrowed,
    stored_bytes,
    weighted_layers,
)
from edgekd.quant.weight_options import weight_options
from edgekd.quant.wide_faults import layer_faults
from edgekd.quant.wide_share import wide_note
from edgekd.registry import STAGES
from edgekd.stages import Context
from edgekd.stages._automatic import automatic
from edgekd.stages._bits import Types, choose_bits
from edgekd.stages._calibration_set import calibration_of, unseen_of
from edgekd.stages._float_graph import float_graph
from edgekd.stages._mixed import keep_wide
from edgekd.stages._naming import narrow_name, scheme_name
from edgekd.stages._post_training import PostTrainingStage
from edgekd.stages._reached import all_in_integers, left_by
from edgekd.stages._sensitive import keep_sensitive
from edgekd.stages._widths import mixed_kinds, stage_faults, variants
from edgekd.training.context import OnStep
from edgekd.training.distillation import check_teaching, teach
from edgekd.values.candidate import Candidate
from edgekd.values.target import Scheme
from edgekd.values.tree import count

WEIGHTED = {str(op.overloadpacket) for op in ops.WEIGHTED}


@STAGES.register(paper="Jacob 2018; Nagel 2019; Esser 2020; Choi 2018; Rastegari 2016; Li 2016")
class Quantize(PostTrainingStage):
    """Store and compute in int8, in the target's scheme, or store weights in fewer bits.

    `dtype`: "int8" quantizes weights and activations, "fp16" is half precision. "bf16", "int4" (one
    scale per `group` of weights of a channel), "ternary" and "binary" quantize only the weights and
    leave activations in float; the onnx backend stores them, other backends get the float model.
    "auto" compiles int8, fp16 and fp32 with each backend, and the run chooses the fastest file that
    holds the budgets.

    `method`: "calibrate" uses the calibration samples without training. "auto" starts there and
    adds ranges, equalization, SmoothQuant, rounding, wide layers and, as the `last_resort`,
    training, until at most `accuracy_drop` points are lost on the validation samples (by default
    the target's budget). The other methods train the fake-quantized network with the losses of
    distillation: "qat" with the straight-through estimator, ranges frozen in the last `frozen`
    share of the steps; "lsq" with learned steps (int8, int4); "pact" with learned clipping (int8).

    Before training: `ranges` and `weight_ranges` are the rules for int8's grids; `equalize` (with
    `absorb_biases`) and `smooth_quant` move range between layers; `rounding` (AdaRound by layers or
    `blocks`, or GPTQ) and `awq` choose integers by what the outputs lose; `bias_correction` takes
    out the mean error.

    `ignore` names layers that stay in float. `mixed` keeps the most sensitive ones in the type
    `wide`: { accuracy_drop = 0.5 } or { layers = 2 }; { weights_kb = 60 } gives the weights of each
    layer a type, from `dtype` up, that loses least within that size. `least` is the share of the
    multiply-accumulates of layers with weights, without ignored ones, that must be quantized: the
    plan refuses less. With `strict`, int8 leaves no operator in float. `activations = 16` keeps
    int8 weights and rounds activations to 16 bits: TFLite computes that in integers, ONNX Runtime
    in float. `int16_layers` names layers, or modules, whose inputs and outputs have 16 bits.
    """

    kind: Literal["quantize"] = "quantize"
    group: int = Field(default=32, ge=0)
    mixed: Mixed | None = None
    ignore: tuple[str, ...] = ()
    frozen: float = Field(default=0.3, ge=0.0, le=1.0)
    least: float = Field(default=0.9, ge=0.0, le=1.0)

    target_facts: ClassVar[tuple[str, ...]] = ("quantization", "unsupported_ops")

    def check(self, candidate: Candidate, context: Context, where: str) -> list[EdgekdError]:
        """Reject models that are already quantized, have no layer to quantize, or can't run."""
        if candidate.form != "float":
            return [InputError(f"the model is already quantized ({candidate.form})", where=where)]
        if self.dtype == "auto":
            return [
                *auto_faults(self.strict, where),
                *self._narrow.check(candidate, context, where),
            ]
        faults = number_faults(candidate, self.dtype, where)
        faults += method_faults(self.dtype, self.method, where)
        faults += self.key_faults(context, where)
        narrows = self.mixed is not None or bool(self.ignore)
        faults += target_faults(self.dtype, narrows, context.target, where)
        faults += stage_faults(self, self.mixed, context.target, where)
        if self.dtype == "fp16":
            return faults + mixed_faults(self.dtype, self.mixed, 0, 1, where)
        faults += self._layer_faults(candidate, context, where)
        if self.last_resort is not None:
            faults += method_faults(self.dtype, self.last_resort, where)
        if self.last_resort is not None or self.method not in ("calibrate", "auto"):
            faults += check_teaching(candidate.module, self.learning(context, where))
        return faults

    def _layer_faults(
        self, candidate: Candidate, context: Context, where: str
    ) -> list[EdgekdError]:
        """What the exported network's layers and operators speak against."""
        graph = export_graph(candidate.module, candidate.example, where)
        layer_operators = graph_operators(graph)
        faults = unsupported(layer_operators, context.target.unsupported_ops, where)
        reach = self._reach(graph, candidate)
        layer_operators += graph_operators(graph)  # which may be rewritten now
        layers = list(dict.fromkeys(layer for layer, op in layer_operators if op in WEIGHTED))
        if not layers:
            kinds = ", ".join(sorted(WEIGHTED))
            return [*faults, InputError("no layer can be quantized", where=where, allowed=kinds)]
        others = [cost.name for cost in reach.left() if cost.name not in layers]
        faults += ignored_faults(self.ignore, [*layers, *others], where)
        faults += reach_faults(reach, self.least, self.ignore, self.dtype, where)
        if self.dtype == "int8":
            key = f"{where}.{'activations' if self.activations == 16 else 'int16_layers'}"
            faults += layer_faults(graph, self.int16, self.ignore, self.strict, key)
        if self.strict:
            faults += all_in_integers(reach, self.dtype, self.mixed, self.ignore, where)
        count, validation = len(self._kept(layers)), len(context.data.validation)
        return faults + mixed_faults(self.dtype, self.mixed, count, validation, where)

    def _reach(self, graph: GraphModule, candidate: Candidate) -> Reach:
        if self.dtype == "int8":
            return reach_of_int8(graph, candidate.example, self.strict)
        return reach_of_weights(graph, candidate.example)

    def cost(self, context: Context) -> str:
        """The plan's description of the stage."""
        if self.dtype == "auto":
            return f"{self._narrow.cost(context)}; beside it fp16 and fp32, to choose by measuring"
        if self.dtype == "fp16":
            return "fp16, without training"
        start = self._name(context)
        if self.dtype == "int8":
            samples = count(calibration_of(context))
            scheme = scheme_name(self._scheme(context), self.activations)
            start = f"int8 ({scheme}), ranges calibrated on {samples} samples"
        if self.mixed is not None:
            limit = self.mixed.weights_kb
            start += (
                f", with the most sensitive layers in {self._wide}"
                if limit is None
                else f", a type for each layer so that the weights take at most {limit:g} kB"
            )
        if self.method == "auto":
            start += f", then more until at most {self.accuracy_drop or 0:g} points are lost"
            if self.last_resort is not None:
                start += f", at last {self.learning(context, '').length}"
        elif self.method != "calibrate":
            start += f", then {self.learning(context, '').length}"
        others = [name for name in context.target.backends if name not in storing(context.target)]
        if self.dtype in WEIGHTS_ALONE and others:
            start += f" (the float model for {', '.join(others)})"
        return start

    def rehearse(self, candidate: Candidate, context: Context) -> Candidate:
        """The same types, calibrated on a few samples, with every layer narrow."""
        return self.rehearsal().run(candidate, context)

    def rehearsal(self) -> "Quantize":
        """The stage with the same types, calibrated, with every layer narrow."""
        keys = self.untrained(
            method="calibrate", mixed=None, rounding="nearest", accuracy_drop=None
        )
        return self.model_copy(update=keys)

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """The int8 graph, a graph of narrow weights, or the same module marked fp16."""
        if self.dtype == "auto":
            return with_wider(self._narrow.run(candidate, context), candidate)
        if self.dtype == "fp16":
            return candidate.after(candidate.module, "quantize: fp16", "fp16")
        if self.method == "auto":
            return self._automatic(candidate, context)
        return self._made(candidate, context, {})

    def _made(self, candidate: Candidate, context: Context, kept: dict[Any, Any]) -> Candidate:
        if self.dtype == "int8":
            return self._int8(candidate, context, kept)
        return self._weights(candidate, context, kept)

    def _automatic(self, candidate: Candidate, context: Context) -> Candidate:
        kept: dict[Any, Any] = {}
        graph = float_graph(candidate, context, kept)

        def make(stage: PostTrainingStage) -> Candidate:
            assert isinstance(stage, Quantize)
            return stage._made(candidate, context, kept)

        return automatic(self, graph, make, candidate, context)

    # Full int8. torchao takes seconds to import: not before it is used.

    def _int8(self, candidate: Candidate, context: Context, kept: dict[Any, Any]) -> Candidate:
        from edgekd.quant.calibration import calibrate
        from edgekd.quant.qat import prepare_qat
        from edgekd.quant.saturation import saturation_note
        from edgekd.quant.trials import Int8Trial

        samples, scheme = calibration_of(context), self._scheme(context)
        module, example = candidate.module, candidate.example
        context.progress("calibrating", 0, 1)
        whole = float_graph(candidate, context, kept)
        floats, int16, note = self._ignored(whole), self.int16, ""
        if self.mixed is not None:
            choices = self.choices(trains=True)
            prepared = prepare_qat(module, example, samples, scheme, floats=floats, choices=choices)
            kept_wide = keep_wide(
                self.mixed,
                {
                    kind: Int8Trial(prepared, kind)
                    for kind in mixed_kinds(self, self.mixed, self._wide, context)
                },
                candidate,
                context,
                variants(candidate, context, scheme),
            )
            note = kept_wide.note
            if kept_wide.kind == "int16":
                int16 = (*int16, *kept_wide.layers)
            else:
                floats = (*floats, *kept_wide.layers)
        if self.method == "calibrate":
            options: Any = {"floats": floats, "strict": self.strict, "kept": kept}
            choices = replace(self.choices(trains=False), wide=int16)
            graph = calibrate(module, example, samples, scheme, choices, **options)
        else:
            graph = self._trained_int8(candidate, context, floats, int16)
        context.progress("calibrating", 1, 1)
        line = f"quantize: {self._name(context)} by {self.method} on {count(samples)} samples{note}"
        islands = float_islands(graph)
        if islands and self.strict:
            raise float_fault(islands, "quantize")
        if islands:
            line += f", {counted(islands)} in float"
        notes = (*graph.meta.get(NOTES, ()), saturation_note(graph, unseen_of(context)))
        line += "".join(f"; {each}" for each in notes if each)
        reach = reach_of_int8(whole, example, self.strict)
        line += wide_note(graph, reach.costs) + left_by(reach, floats)
        return replace(candidate.after(graph, line, "int8"), integers_only=self.strict)

    def _trained_int8(
        self,
        candidate: Candidate,
        context: Context,
        floats: Sequence[str],
        int16: tuple[str, ...],
    ) -> GraphModule:
        from edgekd.quant.learned_grids import learn_grids, settle_grids
        from edgekd.quant.own_noise import check_noises, own_noises
        from edgekd.quant.qat import finish_qat, freeze_ranges, prepare_qat

        samples, scheme = calibration_of(context), self._scheme(context)
        graph = prepare_qat(
            candidate.module,
            candidate.example,
            samples,
            scheme,
            floats=floats,
            strict=self.strict,
            choices=replace(self.choices(trains=True), wide=int16),
        )
        if self.method in ("lsq", "pact"):
            learn_grids(graph, "lsq" if self.method == "lsq" else "pact")

        def on_step(done: int, total: int) -> None:
            if done >= total * (1.0 - self.frozen):
                freeze_ranges(graph)

        self._teach(graph, context, on_step)
        settle_grids(graph)
        trained = copy.deepcopy(graph.eval())
        finished = finish_qat(graph, candidate.example)
        check_noises(own_noises(trained, finished, samples, scheme), scheme)
        return finished

    # Narrow weights, activations in float.

    def _weights(self, candidate: Candidate, context: Context, kept: dict[Any, Any]) -> Candidate:
        whole = float_graph(candidate, context, kept)
        reach = reach_of_weights(whole, candidate.example)
        note = ""
        if self.dtype == "bf16":
            graph = as_bfloat16(whole)
        else:
            if self.awq:
                whole = copy.deepcopy(whole)
                scaled = scale_salient(whole, calibration_of(context), self.group, LIMIT["int4"])
            types = self._types(whole, candidate, context)
            graph, note = self._narrow_graph(whole, types, context), types.note
            note = f"; {scaled}{note}" if self.awq else note
        line = f"quantize: {self._name(context)}"
        if self.dtype != "bf16":
            line += f" by {self.method}"
        size = f"{stored_bytes(graph):,} bytes of weights"
        line += f"{note}, {size}, activations stay in float"
        line += "".join(f"; {each}" for each in graph.meta.get(NOTES, ()))
        line += left_by(reach, self.ignore)
        return candidate.after(graph, line, "weights")

    def _types(self, whole: GraphModule, candidate: Candidate, context: Context) -> Types:
        narrow: Narrow = self.dtype  # type: ignore[assignment]
        start = Types(dict.fromkeys(self._kept(weighted_layers(whole)), narrow), self.group)
        if self.mixed is None:
            return start
        if self.mixed.weights_kb is None:
            return keep_sensitive(self.mixed, self._wide, start, whole, candidate, context)
        options = weight_options(narrow, self.mixed.wide or "float", self.group)
        return choose_bits(self.mixed, options, whole, tuple(start.dtypes), candidate, context)

    def _narrow_graph(self, whole: GraphModule, types: Types, context: Context) -> GraphModule:
        if self.method == "calibrate":
            graph = finish_narrow(narrowed(whole, types.dtypes, types.groups, search=True))
            if self.rounding != "nearest":
                samples = calibration_of(context)
                line = reround(whole, graph, samples, self.rounding, self.rounding_steps)
                graph.meta[NOTES] = (line,)
            if self.bias_correction:
                correct_biases(whole, graph, calibration_of(context))
            return graph
        graph = narrowed(whole, types.dtypes, types.groups, learned=self.method == "lsq")
        self._teach(graph, context, None)
        return finish_narrow(graph)

    # What both need.

    def _teach(self, graph: GraphModule, context: Context, on_step: OnStep | None) -> None:
        teach(graph, replace(self.learning(context, "quantize"), on_step=on_step))

    @property
    def _narrow(self) -> "Quantize":
        """The stage that makes the narrowest of the precisions that "auto" compares."""
        return self.model_copy(update={"dtype": "int8"})

    @property
    def _wide(self) -> Wide:
        if self.mixed is not None and self.mixed.wide is not None:
            return self.mixed.wide
        return "float" if self.dtype == "int8" else "int8"

    def _scheme(self, context: Context) -> Scheme:
        """The target's scheme; that of TFLite for int16 activations, whose weights have 8 bits."""
        scheme = context.target.quantization
        if self.activations == 8:
            return scheme
        return scheme.model_copy(update={"activations": "int8-affine", "weight_bits": 8})

    def _kept(self, layers: Iterable[str]) -> list[str]:
        return [layer for layer in layers if not is_within(layer, self.ignore)]

    def _ignored(self, graph: GraphModule) -> tuple[str, ...]:
        layers = list(weighted_layers(graph))
        return tuple(layer for layer in layers if layer not in self._kept(layers))

    def _name(self, context: Context) -> str:
        if self.dtype == "int8":
            return f"int8 {scheme_name(self._scheme(context), self.activations)}"
        return narrow_name(self.dtype, self.group)
