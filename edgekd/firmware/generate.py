"""From an int8 TFLite file to model.h and model.c."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from edgekd.errors import InputError
from edgekd.firmware.cmsis_nn import CmsisNn, with_cmsis_nn
from edgekd.firmware.emit import Program, body, header, summary
from edgekd.firmware.facts import Facts, check_name, name_from
from edgekd.firmware.graph import Network, Node, read_network
from edgekd.firmware.instructions import Instructions, with_instructions
from edgekd.firmware.kernels import lower
from edgekd.firmware.options import named_option
from edgekd.firmware.padding import absorb_padding
from edgekd.firmware.patches.patch_steps import Lower
from edgekd.firmware.patches.plan import LAYER_BY_LAYER, Patching, plan
from edgekd.firmware.patches.report import patch_notes, patch_numbers
from edgekd.firmware.step import Step
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
    """The two texts, their numbers (bytes, kernel calls, multiplications), and what was decided."""

    name: str
    header: str
    source: str
    numbers: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write NAME.h and NAME.c into a folder, which is created; each file is replaced
        atomically."""
        paths = folder / f"{self.name}.h", folder / f"{self.name}.c"
        for path, text in zip(paths, (self.header, self.source), strict=True):
            write_beside(path, text)
        return paths

    def check_arena(self, patching: Patching, where: str) -> None:
        """Raises `InputError` if the arena is larger than the limit."""
        arena, limit = self.numbers["arena_bytes"], patching.arena_limit
        if limit is not None and arena > limit:
            may_help = patching.mode == "never"
            raise InputError(
                f"the arena needs {arena} bytes, more than {limit}",
                where=where,
                allowed=f"at least {arena}",
                hint='patches = "auto" computes layers patch by patch for a smaller arena'
                if may_help
                else "use a smaller input, or fewer channels in the first layers",
            )


def generate(
    path: Path,
    name: str = "",
    facts: Facts | None = None,
    *,
    arithmetic: Arithmetic = "micro",
    cmsis_nn: CmsisNn = "",
    instructions: Instructions = "dsp",
    patching: Patching = LAYER_BY_LAYER,
) -> Generated:
    """Generate C for the int8 network in a TFLite file.

    `name` is the prefix of its files and functions, `instructions` say for which kind of core its
    kernels are laid out, and `cmsis_nn` for which one CMSIS-NN is called instead. `patching` says
    whether layers may be computed patch by patch, for a smaller arena; where no plan keeps its
    limit, the arena is the smallest one.

    Raises:
        InputError: the file is corrupt, not int8 throughout, or has an operator without a kernel,
        or the name is not valid in C.
    """
    name = check_name(name) if name else name_from(path.stem)
    network = absorb_padding(_matching(read_network(path), arithmetic))
    lower = _lowering(cmsis_nn, instructions)
    found = plan(network, lower, _allowed(patching, cmsis_nn), str(path))
    program = Program(name, network, found.steps, found.layout, facts or Facts(), found.loops)
    numbers = {**summary(program), **patch_numbers(network, found)}
    notes = patch_notes(network, found, patching)
    return Generated(name, header(program), body(program), numbers, notes)


def _allowed(patching: Patching, cmsis_nn: CmsisNn) -> Patching:
    """Patches are computed by edgekd's own kernels alone."""
    if cmsis_nn and patching.mode == "always":
        raise InputError(
            "CMSIS-NN's kernels do not compute patches",
            where="--patches always",
            hint="leave CMSIS-NN out: edgekd's own kernels need fewer instructions",
        )
    return LAYER_BY_LAYER if cmsis_nn else patching


def _matching(network: Network, arithmetic: Arithmetic) -> Network:
    nodes = (
        replace(node, options={**node.options, "Arithmetic": arithmetic}) for node in network.nodes
    )
    return replace(network, nodes=tuple(nodes))


def _lowering(cmsis_nn: CmsisNn, instructions: Instructions) -> Lower:
    """How a node becomes calls of the kernels for these cores."""

    def lowered(node: Node) -> list[Step]:
        if cmsis_nn:
            return with_cmsis_nn(lower(node), cmsis_nn)
        return with_instructions(lower(node), instructions)

    return lowered


def program_of(
    network: Network,
    where: str,
    name: str,
    instructions: Instructions = "dsp",
    patching: Patching = LAYER_BY_LAYER,
    arithmetic: Arithmetic = "micro",
) -> Program:
    """Every call of edgekd's own kernels, and the place of every tensor."""
    network = absorb_padding(_matching(network, arithmetic))
    found = plan(network, _lowering("", instructions), patching, where)
    return Program(name, network, found.steps, found.layout, Facts(), found.loops)
