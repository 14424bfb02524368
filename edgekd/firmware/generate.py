"""From an int8 TFLite file to model.h and model.c."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from edgekd.firmware.cmsis_nn import CmsisNn, with_cmsis_nn
from edgekd.firmware.emit import Program, body, header, summary
from edgekd.firmware.facts import Facts, check_name, name_from
from edgekd.firmware.graph import Network, read_network
from edgekd.firmware.instructions import Instructions, with_instructions
from edgekd.firmware.kernels import lower
from edgekd.firmware.layout import lay_out
from edgekd.firmware.options import named_option
from edgekd.firmware.padding import absorb_padding
from edgekd.store import write_beside

Arithmetic = Literal["micro", "litert"]
"""The runtime whose fully connected layers are matched bit for bit: the micro runtime and
CMSIS-NN, in fixed point, or LiteRT's reference kernels, in double precision. Everything else is
equal."""


def check_arithmetic(name: str) -> Arithmetic:
    """The arithmetic of that name. Raises `InputError` for an unknown one."""
    names: tuple[Arithmetic, ...] = get_args(Arithmetic)
    return named_option("arithmetic", name, names)


@dataclass(frozen=True)
class Generated:
    """The two texts and their numbers (bytes, and kernel calls)."""

    name: str
    header: str
    source: str
    numbers: Mapping[str, int]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write NAME.h and NAME.c into a folder, which is created; each file is replaced
        atomically."""
        paths = folder / f"{self.name}.h", folder / f"{self.name}.c"
        for path, text in zip(paths, (self.header, self.source), strict=True):
            write_beside(path, text)
        return paths


def generate(
    path: Path,
    name: str = "",
    facts: Facts | None = None,
    *,
    arithmetic: Arithmetic = "micro",
    cmsis_nn: CmsisNn = "",
    instructions: Instructions = "dsp",
) -> Generated:
    """Generate C for the int8 network in a TFLite file.

    `name` is the prefix of its files and functions, `instructions` say for which kind of core its
    kernels are laid out, and `cmsis_nn` for which one CMSIS-NN is called instead.

    Raises:
        InputError: the file is corrupt, not int8 throughout, or has an operator without a kernel,
        or the name is not valid in C.
    """
    name = check_name(name) if name else name_from(path.stem)
    network = _matching(read_network(path), arithmetic)
    program = program_of(network, str(path), name, facts or Facts(), cmsis_nn, instructions)
    return Generated(name, header(program), body(program), summary(program))


def _matching(network: Network, arithmetic: Arithmetic) -> Network:
    nodes = (
        replace(node, options={**node.options, "Arithmetic": arithmetic}) for node in network.nodes
    )
    return replace(network, nodes=tuple(nodes))


def program_of(
    network: Network,
    where: str,
    name: str,
    facts: Facts,
    cmsis_nn: CmsisNn = "",
    instructions: Instructions = "dsp",
) -> Program:
    """Every call and the place of every tensor; the file's own arithmetic, with no extra
    rounding."""
    network = absorb_padding(network)
    plain = [step for node in network.nodes for step in lower(node)]
    if cmsis_nn:
        steps = tuple(with_cmsis_nn(plain, cmsis_nn))
    else:
        steps = tuple(with_instructions(plain, instructions))
    return Program(name, network, steps, lay_out(network, steps, where), facts)
