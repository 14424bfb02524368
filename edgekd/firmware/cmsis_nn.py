"""Arm's CMSIS-NN in place of plain C where it computes the same, for cores with DSP or MVE.

Its sources stay where the user has them: the generated C includes their header and calls
convolutions (fully connected layers as 1x1 convolutions). Each call asks the library how much
scratch memory it needs; if that is more than planned, or if the library refuses, plain C computes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from edgekd.errors import InputError
from edgekd.firmware.step import Step, Table
from edgekd.values.target import Hardware

CmsisNn = Literal["", "dsp", "mve"]
"""Which cores' scratch memory is planned: those with DSP instructions, or with MVE (Helium)."""

HEADER = "arm_nnfunctions.h"
CORE_HEADER = "cmsis_compiler.h"
MVE_BLOCK = 124
"""Channels that CMSIS-NN's depthwise kernel processes at once on MVE (CH_IN_BLOCK_MVE)."""


def check_variant(name: str) -> CmsisNn:
    """The variant of that name, or none for an empty name. Raises `InputError` for an unknown
    one."""
    for known in get_args(CmsisNn):
        if name == known:
            found: CmsisNn = known
            return found
    raise InputError(f"unknown instruction set '{name}'", where="--cmsis-nn", allowed="dsp, mve")


def variant_of(hardware: Hardware) -> CmsisNn:
    """What a core has. Raises `InputError` for a core with neither DSP nor MVE."""
    if "mve" in hardware.isa:
        return "mve"
    if "dsp" in hardware.isa:
        return "dsp"
    raise InputError(
        f"CMSIS-NN's kernels need DSP or MVE, which a {hardware.cpu} does not have",
        where="backends.c: cmsis_nn",
        hint="leave cmsis_nn out",
    )


def with_cmsis_nn(steps: Sequence[Step], variant: CmsisNn) -> list[Step]:
    """The same steps, with CMSIS-NN's kernel in each step that it supports."""
    return [_wide(_replaced(step, variant)) for step in steps] if variant else list(steps)


def _wide(step: Step) -> Step:
    """The step with 32-bit shifts, as CMSIS-NN needs them."""
    shift = step.parameters.get("shift")
    if not isinstance(shift, Table):
        return step
    wide = Table(shift.values.astype(np.int32), (*shift.key, "int32"))
    return replace(step, parameters={**step.parameters, "shift": wide})


def _replaced(step: Step, variant: CmsisNn) -> Step:
    values = step.parameters
    if step.kernel == "conv_2d" and values["group_inputs"] == values["input_channels"]:
        columns = values["filter_height"] * values["filter_width"] * values["input_channels"]
        return _called(step, 4 * ((columns + 7) // 8 * 8))
    if step.kernel == "depthwise_conv_2d" and values["batches"] == 1:
        taps = values["filter_height"] * values["filter_width"]
        return _called(step, 4 * MVE_BLOCK * taps if variant == "mve" else _dsp_scratch(values))
    if step.kernel == "fully_connected":
        return _called(replace(step, parameters=_for_each_output(values)), 0)
    return step


def _dsp_scratch(values: Mapping[str, Any]) -> int:
    return int(2 * values["input_channels"] * values["filter_height"] * values["filter_width"])


def _for_each_output(values: Mapping[str, Any]) -> dict[str, Any]:
    """One multiplier per output, also if all outputs share one."""
    if values["step"]:
        return dict(values)
    spread = {
        name: Table(np.repeat(values[name].values, values["outputs"]), (*values[name].key, "each"))
        for name in ("multiplier", "shift")
    }
    return {**values, **spread, "step": 1}


def _called(step: Step, scratch: int) -> Step:
    """The step with CMSIS-NN's kernel."""
    return replace(
        step,
        kernel=f"{step.kernel}_cmsis",
        needs=(*step.needs, step.kernel),
        scratch=scratch,
        ahead=None,
    )


def flags_of(folder: Path) -> tuple[str, ...]:
    """The compiler's flags for the folder with Include/arm_nnfunctions.h; the CMSIS core's headers
    may be anywhere in it or in its parent."""
    if not (folder / "Include" / HEADER).is_file():
        raise InputError(
            f"it has no Include/{HEADER}",
            where=f"cmsis_nn: {folder}",
            hint="the folder of CMSIS-NN",
        )
    near = sorted(folder.rglob(CORE_HEADER)) or sorted(folder.parent.rglob(CORE_HEADER))
    core = next(iter(near), None)
    if core is None:
        raise InputError(
            f"no {CORE_HEADER} in it or beside it",
            where=f"cmsis_nn: {folder}",
            hint="put the CMSIS core's headers beside CMSIS-NN",
        )
    return f"-isystem{folder / 'Include'}", f"-isystem{core.parent}"


def sources_of(folder: Path) -> tuple[Path, ...]:
    """Every source file of the library; the linker drops what nothing calls."""
    sources = tuple(sorted((folder / "Source").rglob("*.c")))
    if not sources:
        raise InputError("it has no Source/*.c", where=f"cmsis_nn: {folder}")
    return sources
