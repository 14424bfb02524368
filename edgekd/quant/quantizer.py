"""The quantizer: it annotates every node of an exported graph with the target's scheme.

The graph is quantized to int8, but for operators that are marked to compute in 16 bits (see
`wide_layers`). Eight bits from -128 with zero point z and eight bits from 0 with zero point z + 128
are the same grid, so `uint8-affine` is a rendering of the same graph (`rewrite.as_uint8`), and
TFLite and ONNX Runtime carry the same scales.
"""

from collections import Counter
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx
from torchao.quantization.pt2e.fake_quantize import FakeQuantize
from torchao.quantization.pt2e.observer import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

from edgekd.quant import ops
from edgekd.quant.chains import Chain, chains_of
from edgekd.quant.fixed_grids import WIDE_GRID, FixedGrid, fixed_grid, has_fixed_grids
from edgekd.quant.regions import integer_nodes, is_float
from edgekd.quant.widths import bits_read, bits_written, fused_clamp, is_float_layer
from edgekd.values.target import Scheme

ANNOTATION = "quantization_annotation"


class RangeObserver(MovingAverageMinMaxObserver):  # type: ignore[misc]
    """Follows the extremes of all values that are put on one grid. In one step it sees `uses`
    values, such as the input and the output of a pooling, and the range is that of all of them.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.uses, self.seen = 1, 0
        self.before = self.step = (self.min_val, self.max_val)

    def forward(self, x_orig: Tensor) -> Tensor:
        """Update the range with one value of the step."""
        low, high = torch.aminmax(x_orig.detach())
        if self.seen % self.uses == 0:
            self.before = self.min_val.clone(), self.max_val.clone()
        else:
            low, high = torch.minimum(low, self.step[0]), torch.maximum(high, self.step[1])
        self.step = low, high
        self.seen += 1
        ends = zip((self.min_val, self.max_val), self.before, self.step, strict=True)
        for end, before, now in ends:
            first = before.numel() == 0 or not bool(before.isfinite())
            end.resize_(now.shape)
            end.copy_(now if first else before + self.averaging_constant * (now - before))
        return x_orig


class FixedObserver(MovingAverageMinMaxObserver):  # type: ignore[misc]
    """Reports one grid, whatever values it sees."""

    def __init__(self, *, grid: FixedGrid, **options: Any) -> None:
        super().__init__(**options)
        self.grid = grid

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """The grid's scale and zero point."""
        return torch.tensor([self.grid.scale]), torch.tensor([self.grid.zero_point])


class ExtremesObserver(MinMaxObserver):  # type: ignore[misc]
    """Reports the range of all values it has seen; those that share it come one after another."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.averaging_constant = 1.0


class ActivationFakeQuantize(FakeQuantize):  # type: ignore[misc]
    """Fake quantization whose range follows the data in train mode and is fixed in eval mode.
    PyTorch's fused kernel is not used: it computes its own scale, which differs from the observer's
    and so from the finished graph's.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training or not bool(self.fake_quant_enabled[0]):
            output: Tensor = super().forward(x)
            return output
        observer = self.activation_post_process
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero_point, observer.quant_min, observer.quant_max
        )


def count_uses(graph: fx.GraphModule) -> None:
    """Tell each observer of a prepared graph how many values it sees in a step."""
    calls = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    fakes = [graph.get_submodule(str(target)) for target in calls]
    uses = Counter(id(fake) for fake in fakes)
    for fake in fakes:
        observer = getattr(fake, "activation_post_process", None)
        if isinstance(observer, RangeObserver):
            observer.uses = uses[id(fake)]


def weight_limit(scheme: Scheme) -> int:
    """The largest quantized weight: 127, or 63 if only seven bits are exact."""
    return int(2 ** (scheme.weight_bits - 1)) - 1


def activation_spec(scheme: Scheme, grid: FixedGrid | None, bits: int) -> QuantizationSpec:
    """Per tensor, with all 256 values; symmetric ones have the zero point 0, as have those of 16
    bits, which have no -32768. `grid` is a fixed one."""
    wide = bits == 16
    symmetric = wide or scheme.activations == "int8-symmetric"
    observer = RangeObserver if grid is None else FixedObserver.with_args(grid=grid)
    fake_quantize = ActivationFakeQuantize.with_args(observer=observer, averaging_constant=0.01)
    return QuantizationSpec(
        dtype=torch.int16 if wide else torch.int8,
        observer_or_fake_quant_ctr=fake_quantize,
        quant_min=-32767 if wide else -128,
        quant_max=32767 if wide else 127,
        qscheme=torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine,
    )


def weight_spec(scheme: Scheme) -> QuantizationSpec:
    """Symmetric, without -128; observed anew at every step, as weights change in training."""
    limit = weight_limit(scheme)
    per_channel = scheme.per_channel
    observer = MovingAveragePerChannelMinMaxObserver if per_channel else MovingAverageMinMaxObserver
    fake_quantize = FakeQuantize.with_args(observer=observer, averaging_constant=1.0)
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=fake_quantize,
        quant_min=-limit,
        quant_max=limit,
        qscheme=torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
        ch_axis=0 if per_channel else None,
    )


class _GlobalConfig:
    """The interface that litert_torch requires of a quantizer."""

    is_dynamic = False


class TargetQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates a graph in the scheme of a target; the layers named in `floats` stay in float."""

    def __init__(self, scheme: Scheme, floats: Collection[str] = ()) -> None:
        super().__init__()
        self.scheme, self.floats = scheme, frozenset(floats)
        self.global_config = _GlobalConfig()
        self._weight = weight_spec(scheme)

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Write a `QuantizationAnnotation` on every node that computes in int8."""
        integer = integer_nodes(model, self.floats)
        chains = chains_of(model)
        for node in model.graph.nodes:
            if node not in integer or ANNOTATION in node.meta or is_float_layer(node, self.floats):
                continue
            if node in chains:
                self._annotate_chain(chains[node])
            elif node.target in ops.WEIGHTED:
                self._annotate_weighted(node)
            elif node.target in ops.REGRIDDED or node.target in ops.FUSED:
                self._annotate_regridded(node)
            elif node.target in ops.SHARED or node.target in ops.LOOKUPS:
                self._annotate_shared(node, [node.args[0]])
            elif node.target in ops.JOINED:
                self._annotate_shared(node, ops.joined_by(node))
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Nothing to check: nodes without an annotation stay in float and are reported later."""

    def _read(self, value: Any, reader: fx.Node) -> QuantizationSpec:
        """The grid of a value as `reader` reads it."""
        return self._activation(value, bits_read(reader))

    def _written(self, value: fx.Node) -> QuantizationSpec:
        """The grid of a value as it is written."""
        return self._activation(value, bits_written(value))

    def _activation(self, value: Any, bits: int) -> QuantizationSpec:
        """The grid of a value, the same for all that write or read it in as many bits."""
        grid = fixed_grid(value) if has_fixed_grids(self.scheme) else None
        if grid is not None and bits == 16:
            grid = WIDE_GRID
        return activation_spec(self.scheme, grid, bits)

    def _annotate_weighted(self, node: fx.Node) -> None:
        inputs = {node.args[0]: self._read(node.args[0], node), node.args[1]: self._weight}
        self._annotate_output(node, inputs)

    def _annotate_regridded(self, node: fx.Node) -> None:
        inputs = {value: self._read(value, node) for value in node.args if is_float(value)}
        self._annotate_output(node, inputs)

    def _annotate_chain(self, chain: Chain) -> None:
        """The source and the last value are on grids, and what is between them is not."""
        for node in chain.nodes:
            inputs = {
                value: self._read(value, node) for value in node.args if value is chain.source
            }
            output = self._written(node) if node is chain.tail else None
            if inputs or output is not None:
                node.meta[ANNOTATION] = QuantizationAnnotation(
                    input_qspec_map=inputs, output_qspec=output, _annotated=True
                )

    def _annotate_output(self, node: fx.Node, inputs: dict[Any, Any]) -> None:
        """The output is quantized after the clamp, if a clamp is its only user."""
        clamp = fused_clamp(node)
        if clamp is None:
            node.meta[ANNOTATION] = QuantizationAnnotation(
                input_qspec_map=inputs, output_qspec=self._written(node), _annotated=True
            )
            return
        node.meta[ANNOTATION] = QuantizationAnnotation(input_qspec_map=inputs, _annotated=True)
        clamp.meta[ANNOTATION] = QuantizationAnnotation(
            output_qspec=self._written(clamp), _annotated=True
        )

    def _annotate_shared(self, node: fx.Node, inputs: list[fx.Node]) -> None:
        first = (inputs[0], node)
        shared = SharedQuantizationSpec(first)
        specs: dict[Any, Any] = dict.fromkeys(inputs, shared)
        specs[inputs[0]] = self._read(inputs[0], node)
        node.meta[ANNOTATION] = QuantizationAnnotation(
            input_qspec_map=specs, output_qspec=shared, _annotated=True
        )
