"""What the schedules need to know about a processor: how wide its vector registers are, and how
many it has."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.backends.tvm.options import TvmOptions
from edgekd.errors import InputError
from edgekd.values.target import Hardware


@dataclass(frozen=True)
class Isa:
    """`lanes` float32 values fit a vector register, of which there are `registers`."""

    lanes: int
    registers: int


def isa_of(hardware: Hardware) -> Isa:
    """The widest vector registers that the profile's `isa` names; every 64-bit core has at least
    SSE2 or NEON."""
    names = set(hardware.isa)
    if any(name.startswith("avx512") for name in names):
        return Isa(lanes=16, registers=32)
    if names & {"avx", "avx2", "fma"}:
        return Isa(lanes=8, registers=16)
    if hardware.architecture == "aarch64":
        return Isa(lanes=4, registers=32)
    return Isa(lanes=4, registers=16)


UNUSED = frozenset({"crc", "crypto"})
"""Features of profiles that compiled networks make no use of."""


def needed_features(hardware: Hardware) -> tuple[str, ...]:
    """What code for the profile needs of a processor; a library carries it, and is not loaded where
    one is missing."""
    return tuple(name for name in hardware.isa if name not in UNUSED)


def dot_of(hardware: Hardware) -> str:
    """The name of the widest 8-bit dot product that the profile's `isa` names (see `integers.dot`);
    empty for a processor without one."""
    names = set(hardware.isa)
    if {"avx512_vnni", "avx512vl"} <= names:
        return "vpdpbusd512"
    if "avx_vnni" in names:
        return "vpdpbusd256"
    if "avx2" in names:
        return "pmaddubsw"
    return "sdot" if names & {"dotprod", "asimddp"} else ""


TRIPLES = {
    "x86_64": "x86_64-linux-gnu",
    "aarch64": "aarch64-linux-gnu",
    "armv7": "armv7a-linux-gnueabihf",
}

# Feature names of compilers and of the kernel that LLVM spells differently.
_LLVM_NAMES = {
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "asimd": "neon",
    "fp16": "fullfp16",
    "asimdhp": "fullfp16",
    "asimddp": "dotprod",
}


def llvm_target(hardware: Hardware, options: TvmOptions) -> dict[str, Any]:
    """TVM's target table for the processor; the options take precedence.

    Raises `InputError` for a processor that runs no Linux, which TVM's runtime needs.
    """
    if hardware.architecture not in TRIPLES:
        raise InputError(
            f"TVM's runtime does not fit a {hardware.architecture} core",
            where="backends.tvm",
            allowed=", ".join(TRIPLES),
        )
    features = [f"+{_llvm_name(name)}" for name in hardware.isa]
    table: dict[str, Any] = {
        "kind": "llvm",
        "mtriple": options.mtriple or TRIPLES[hardware.architecture],
        "mcpu": options.mcpu or _plain_cpu(hardware),
        "mattr": list(options.mattr) or features,
        "num-cores": options.num_cores,
    }
    if hardware.architecture == "armv7":
        table["mfloat-abi"] = "hard"
    return table


def cuda_target(hardware: Hardware, options: TvmOptions) -> dict[str, Any]:
    """TVM's target table for an NVIDIA GPU beside the processor; sm_87 is the Orin.

    Raises `InputError` when the options do not name the GPU's architecture.
    """
    if not options.arch:
        raise InputError(
            "the GPU's architecture is needed", where="backends.tvm.arch", allowed="sm_.."
        )
    return {
        "kind": "cuda",
        "arch": options.arch,
        "max_num_threads": 1024,
        "max_threads_per_block": 1024,
        "max_shared_memory_per_block": 49152,
        "registers_per_block": 65536,
        "thread_warp_size": 32,
        "host": options.host or llvm_target(hardware, options),
    }


def _llvm_name(name: str) -> str:
    return _LLVM_NAMES.get(name, name.replace("_", ""))


def has_half(hardware: Hardware) -> bool:
    """Whether the processor computes in float16 rather than converting it (F16C only converts)."""
    return bool({"fp16", "asimdhp", "fullfp16", "avx512_fp16"} & set(hardware.isa))


def _plain_cpu(hardware: Hardware) -> str:
    names = set(hardware.isa)
    if hardware.architecture != "x86_64":
        return "generic"
    if any(name.startswith("avx512") for name in names):
        return "x86-64-v4"
    return "x86-64-v3" if "avx2" in names else "x86-64"


def host_runs(hardware: Hardware) -> bool:
    """Whether this machine can run, and so time, code compiled for the target."""
    if platform.machine() != hardware.architecture:
        return False
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    names = set(flags.partition(":")[2].split())
    aliases = {"neon": "asimd", "fp16": "asimdhp", "dotprod": "asimddp"}
    return all(name in names or aliases.get(name) in names for name in hardware.isa)
