"""What the schedules need to know of a processor: how wide its vectors are, how many it holds."""

from dataclasses import dataclass
from typing import Any

from edgekd.errors import InputError
from edgekd.target import Target


@dataclass(frozen=True)
class Isa:
    """`lanes` float32 values fit a vector register, of which there are `registers`."""

    lanes: int
    registers: int


def isa_of(target: Target) -> Isa:
    """The widest vectors that the profile's `isa` names; SSE2 and NEON are every 64-bit core's."""
    names = set(target.hardware.isa)
    if any(name.startswith("avx512") for name in names):
        return Isa(lanes=16, registers=32)
    if names & {"avx", "avx2", "fma"}:
        return Isa(lanes=8, registers=16)
    if target.hardware.architecture == "aarch64":
        return Isa(lanes=4, registers=32)
    return Isa(lanes=4, registers=16)


TRIPLES = {
    "x86_64": "x86_64-linux-gnu",
    "aarch64": "aarch64-linux-gnu",
    "armv7": "armv7a-linux-gnueabihf",
}

# The profile's names of features, where LLVM spells them otherwise.
LLVM_NAMES = {"asimd": "neon", "fp16": "fullfp16", "asimdhp": "fullfp16", "asimddp": "dotprod"}


def llvm_target(target: Target, options: dict[str, Any]) -> dict[str, Any]:
    """TVM's target table for the processor; `mcpu` and `mattr` of the options win.

    Raises `InputError` for a processor that TVM's LLVM runtime has no operating system on.
    """
    hardware = target.hardware
    if hardware.architecture not in TRIPLES:
        raise InputError(
            f"TVM compiles for no {hardware.architecture} core",
            where=f"target {target.name}",
            allowed=", ".join(TRIPLES),
        )
    features = [LLVM_NAMES.get(name, name.replace("_", "")) for name in hardware.isa]
    table: dict[str, Any] = {
        "kind": "llvm",
        "mtriple": TRIPLES[hardware.architecture],
        "mcpu": options.get("mcpu", _plain_cpu(target)),
        "mattr": options.get("mattr", [f"+{name}" for name in features]),
        "num-cores": hardware.cores,
    }
    if hardware.architecture == "armv7":
        table["mfloat-abi"] = "hard"
    return table


def _plain_cpu(target: Target) -> str:
    names = set(target.hardware.isa)
    if target.hardware.architecture != "x86_64":
        return "generic"
    if any(name.startswith("avx512") for name in names):
        return "x86-64-v4"
    return "x86-64-v3" if "avx2" in names else "x86-64"
