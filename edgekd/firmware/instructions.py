"""Which instructions the kernels of generated C are laid out for."""

from collections.abc import Sequence
from typing import Literal, get_args

from edgekd.firmware.flat import as_flat
from edgekd.firmware.helium import with_vectors
from edgekd.firmware.options import named_option
from edgekd.firmware.packed import with_packed_weights
from edgekd.firmware.step import Step
from edgekd.firmware.weighted import NEEDS
from edgekd.values.target import Hardware

Instructions = Literal["dsp", "mve", "plain"]
"""DSP instructions (Cortex-M4, M7, M33), vectors of 128 bits (Helium: Cortex-M52, M55, M85), or
none, for the least code and the smallest tables. The C of each compiles for every core and gives
the same bytes; it is only slower there."""

Prefer = Literal["speed", "size"]
"""Whether the kernels are the fast ones of a core or those that take the least flash."""

WITH_VECTORS = ("cortex-m52", "cortex-m55", "cortex-m85")


def check_instructions(name: str) -> Instructions:
    """The instructions of that name. Raises `InputError` for an unknown one."""
    names: tuple[Instructions, ...] = get_args(Instructions)
    return named_option("instructions", name, names)


def instructions_of(hardware: Hardware, prefer: Prefer = "speed") -> Instructions:
    """The instructions for a target."""
    if prefer == "size":
        return "plain"
    return "mve" if "mve" in hardware.isa else "dsp"


def instructions_for(cpu: str) -> Instructions:
    """The instructions for a processor."""
    return "mve" if cpu in WITH_VECTORS else "dsp"


def with_instructions(steps: Sequence[Step], instructions: Instructions) -> list[Step]:
    """The same steps, with the kernels for those instructions."""
    if instructions == "plain":
        return list(steps)
    if instructions == "mve":
        return [as_flat(step, (*NEEDS, "helium")) for step in with_vectors(steps)]
    return [as_flat(step, NEEDS) for step in with_packed_weights(steps)]
