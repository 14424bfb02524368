"""What the hardware has: one TOML file a target, data only, each fact with its source."""

import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from edgekd.config import Value, parse, read_toml
from edgekd.errors import InputError, nearest

Architecture = Literal["x86_64", "aarch64", "armv7", "thumb"]


class Hardware(Value):
    """The processor and its memories. `isa` uses compiler names: avx2, avx512_vnni, dotprod."""

    architecture: Architecture
    cpu: str
    cores: PositiveInt
    isa: tuple[str, ...] = ()
    memory_bytes: PositiveInt
    storage_bytes: PositiveInt | None = None


class Accelerator(Value):
    """A unit beside the processor. `compute` is CUDA's name for it (sm_87)."""

    kind: Literal["cuda", "edgetpu", "ethos-u"]
    name: str
    compute: str = ""
    on_chip_bytes: PositiveInt | None = None


class Scheme(Value):
    """The quantization that the target's kernels are fast and exact with.

    `weight_bits = 7` keeps weights in [-63, 63] where the processor's 8-bit multiply-add saturates
    its 16-bit sums (x86 without VNNI). `tolerance_lsb` is how far an artifact's outputs may lie
    from the fake-quantized reference before the run fails.
    """

    activations: Literal["uint8-affine", "int8-affine", "int8-symmetric"]
    per_channel: bool = True
    weight_bits: Literal[7, 8] = 8
    tolerance_lsb: PositiveInt = 2


class Sensors(Value):
    """Where energy is read. `rails` are INA3221 labels; their sum is the module's power."""

    energy: Literal["rapl", "ina3221", "none"] = "none"
    rails: tuple[str, ...] = ()


class Target(Value):
    """A target profile. The profile decides; the code only reads it.

    `backends` has a table for each backend that runs here, with that backend's own options
    (compile flags, threads, execution providers). `unsupported_ops` are ATen names that the
    target can't run at all. `budgets` are defaults that a recipe overrides.
    """

    name: str
    title: str
    summary: str
    hardware: Hardware
    accelerators: tuple[Accelerator, ...] = ()
    quantization: Scheme
    channel_multiple: PositiveInt = 8
    backends: dict[str, dict[str, Any]]
    unsupported_ops: tuple[str, ...] = ()
    sensors: Sensors = Sensors()
    budgets: dict[str, float] = {}


def target_folders() -> list[Path]:
    """Where names are looked up: the working directory first, then what came with the package."""
    packaged = Path(__file__).parent.parent / "targets"
    installed = Path(sys.prefix) / "share" / "edgekd" / "targets"
    return [Path.cwd() / "targets", packaged, installed]


def target_files() -> dict[str, Path]:
    """Every known target's file by name, the first folder that has it winning."""
    files: dict[str, Path] = {}
    for folder in target_folders():
        for path in sorted(folder.glob("*.toml")):
            files.setdefault(path.stem, path)
    return files


def load_target(name: str) -> Target:
    """The profile of that name, or of that file when `name` is a path that ends in .toml."""
    if name.endswith(".toml"):
        path = Path(name)
    else:
        files = target_files()
        if name not in files:
            raise InputError(
                f"unknown target '{name}'",
                where="--target",
                allowed=", ".join(sorted(files)),
                hint=nearest(name, files) or "run 'edgekd targets' for the list",
            )
        path = files[name]
    target = parse(Target, read_toml(path), str(path))
    if target.name != path.stem:
        raise InputError(
            f"the name '{target.name}' is not the file's", where=str(path), allowed=path.stem
        )
    return target
