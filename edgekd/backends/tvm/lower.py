"""Lowers an exported program to scheduled kernels: layout, packing, fusion, schedules."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekd.backends.tvm.constants import array_of, is_constant, rearranged
from edgekd.backends.tvm.integers.schedule import INTEGER, schedule_integer
from edgekd.backends.tvm.isa import Isa
from edgekd.backends.tvm.layers import Layer, expression, linear_expression, pack
from edgekd.backends.tvm.leftovers import schedule_leftover
from edgekd.backends.tvm.tile import Tile
from edgekd.backends.tvm.tiled_sum import SUM, schedule_sum

Choice = Callable[[Layer], Tile]
"""Chooses a layer's tile, from the grid's measurements or by rule."""

OUT_EWISE_FUSABLE = 4  # TVM's pattern kind: elementwise successors may join the kernel


def imported(program: Any, *, channels_last: bool = True) -> Any:
    """A `torch.export` program in Relax, with its parameters as constants."""
    from tvm import relax, transform
    from tvm.relax.frontend.torch import from_exported_program

    module = from_exported_program(
        program, keep_params_as_input=False, unwrap_unit_return_tuple=True
    )
    module = rearranged(relax.transform.DecomposeOpsForInference()(module))
    if not channels_last:
        return module
    layouts = {
        "relax.nn.conv2d": ["NHWC", "HWIO"],
        "relax.nn.conv2d_transpose": ["NCHW", "IOHW"],  # TVM has no channels-last kernel for it
    }
    passes = [relax.transform.ConvertLayout(layouts), relax.transform.Normalize()]
    return rearranged(transform.Sequential(passes)(module))


def half(module: Any) -> Any:
    """The module with convolutions and linear layers in float16, inputs and outputs unchanged."""
    from tvm import relax

    return rearranged(relax.transform.ToMixedPrecision("float16")(module))


def layers_of(module: Any) -> list[Layer]:
    """The layers of an imported module that need a tile, in order."""
    from tvm import relax

    found: list[Layer] = []

    def visit(node: Any) -> None:
        layer = None
        if getattr(getattr(node, "op", None), "name", "") == "relax.nn.conv2d":
            layer = convolution_of(node)
        elif getattr(getattr(node, "op", None), "name", "") == "relax.matmul":
            layer = linear_of(node)
        if layer is not None:
            found.append(layer)

    relax.analysis.post_order_visit(module["main"], visit)
    return found


def legalized(module: Any, choose: Choice | None) -> Any:
    """The module with its operators as kernels, elementwise ones fused into the layers before them.

    With `choose`, weighted layers are packed for the tiles that it chooses; without it they stay
    TVM's own kernels.
    """
    from tvm import relax, transform

    own = {}
    if choose is not None:
        own = {"relax.nn.conv2d": _convolution(choose), "relax.matmul": _matmul(choose)}
    passes = [
        relax.transform.LegalizeOps(own),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.DeadCodeElimination(),
    ]
    return transform.Sequential(passes)(module)


def _default(name: str, builder: Any, call: Any) -> Any:
    from tvm.ir import Op

    return Op.get(name).get_attr("FLegalize")(builder, call)


def _convolution(choose: Choice) -> Any:
    from tvm import relax

    def legalize(builder: Any, call: Any) -> Any:
        layer = convolution_of(call)
        if layer is None:
            return _default("relax.nn.conv2d", builder, call)
        tile = choose(layer)
        weight = relax.const(pack(layer, array_of(call.args[1]), tile))
        return builder.call_te(
            lambda data, packed: expression(layer, tile, data, packed),
            call.args[0],
            weight,
            primfunc_name_hint=layer.kind,
            primfunc_attrs={"op_pattern": OUT_EWISE_FUSABLE},
        )

    return legalize


def convolution_of(call: Any) -> Layer | None:
    """The geometry of a channels-last conv2d with constant weights, or None for any other."""
    data, weight = call.args
    attrs = call.attrs
    if not is_constant(weight) or attrs.data_layout != "NHWC":
        return None
    shape = tuple(int(size) for size in data.ty.shape)
    kh, kw, inputs, channels = (int(size) for size in weight.ty.shape)
    groups = int(attrs.groups)
    kind = "convolution" if groups == 1 else "grouped"
    if inputs == 1 and groups == channels == shape[3]:
        kind = "depthwise"
    return Layer(
        kind=kind,  # type: ignore[arg-type]
        input=shape,  # type: ignore[arg-type]
        channels=channels,
        kernel=(kh, kw),
        stride=tuple(int(s) for s in attrs.strides),  # type: ignore[arg-type]
        padding=tuple(int(p) for p in attrs.padding),  # type: ignore[arg-type]
        dilation=tuple(int(d) for d in attrs.dilation),  # type: ignore[arg-type]
        groups=groups,
        dtype=str(data.ty.dtype),
    )


def _matmul(choose: Choice) -> Any:
    from tvm import relax

    def legalize(builder: Any, call: Any) -> Any:
        layer = linear_of(call)
        if layer is None:
            return _default("relax.matmul", builder, call)
        tile = choose(layer)
        values = array_of(call.args[1])[np.newaxis, np.newaxis]
        rank = len(call.args[0].ty.shape)

        def product(data: Any, packed: Any) -> Any:
            return linear_expression(layer, tile, rank, data, packed)

        return builder.call_te(
            product,
            call.args[0],
            relax.const(pack(layer, values, tile)),
            primfunc_name_hint="linear",
            primfunc_attrs={"op_pattern": OUT_EWISE_FUSABLE},
        )

    return legalize


def linear_of(call: Any) -> Layer | None:
    """The geometry of a product with a constant (inputs, outputs) matrix, or None for any other."""
    data, weight = call.args
    if not is_constant(weight) or len(weight.ty.shape) != 2:
        return None
    shape = [int(size) for size in data.ty.shape]
    if len(shape) not in (2, 3):
        return None
    batch = shape[0] if len(shape) == 3 else 1
    return Layer(
        kind="linear",
        input=(batch, 1, shape[-2], shape[-1]),
        channels=int(weight.ty.shape[1]),
        dtype=str(data.ty.dtype),
    )


@dataclass(frozen=True)
class Left:
    """Kernels without a register tile, by name.

    No schedule fits the `uncovered` ones, which stay as they were; the `general` ones are weighted
    layers that only the schedule of plain reductions fits.
    """

    uncovered: list[str]
    general: list[str]

    def without(self, names: Collection[str]) -> "Left":
        """The kernels that remain once those have been tuned."""
        return Left(
            [name for name in self.uncovered if name not in names],
            [name for name in self.general if name not in names],
        )


def scheduled(module: Any, isa: Isa) -> tuple[Any, Left]:
    """The module with every kernel scheduled for a processor, and the kernels that the schedules
    don't cover."""
    from tvm import tirx

    uncovered, general = [], []
    for name, function in list(module.functions_items()):
        if not isinstance(function, tirx.PrimFunc):
            continue
        kernel, tiled = schedule_kernel(function, isa)
        if kernel is None:
            uncovered.append(name.name_hint)
            continue
        module.update_func(name, kernel)
        if not tiled and any(word in name.name_hint for word in WEIGHTED):
            general.append(name.name_hint)
    return module, Left(sorted(uncovered), sorted(general))


WEIGHTED = ("conv", "matmul")
"""Parts of TVM's own names for weighted layers, to tell them from edgekd's."""


def schedule_kernel(function: Any, isa: Isa) -> tuple[Any | None, bool]:
    """A scheduled PrimFunc, or None if no schedule applies, and whether it is tiled."""
    from tvm.s_tir import Schedule, ScheduleError

    if INTEGER in (function.attrs or {}):
        return schedule_integer(function, isa.lanes), True
    schedule = Schedule(function)
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    sums = [i for i, b in enumerate(blocks) if schedule.get(b).name_hint.startswith(SUM)]
    try:
        if len(sums) == 1:
            schedule_sum(schedule, blocks, sums[0])
        else:
            schedule_leftover(schedule, blocks, isa.lanes)
    except ScheduleError:
        return None, False
    return schedule.mod["main"], len(sums) == 1
