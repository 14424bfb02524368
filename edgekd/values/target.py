"""Target profiles: one TOML file per target, data only, each fact with its source."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from edgekd.errors import EdgekdError, InputError, nearest, raise_all
from edgekd.values.backend_lookup import backend_info
from edgekd.values.lookup import toml_files
from edgekd.values.options import check_options
from edgekd.values.tables import Value, parse, read_toml

Architecture = Literal["x86_64", "aarch64", "armv7", "thumb"]


class Hardware(Value):
    """The processor and its memories. `isa` uses compiler names: avx2, avx512_vnni, dotprod.

    `cache_bytes` is the last-level cache that the processor's cores share. `executes_in_place` says
    that constants are read directly from storage, as a microcontroller reads its flash, so that
    only activations take memory.
    """

    architecture: Architecture
    cpu: str
    cores: PositiveInt
    clock_mhz: PositiveInt | None = None
    isa: tuple[str, ...] = ()
    memory_bytes: PositiveInt
    memory_gb_per_second: PositiveFloat | None = None
    cache_bytes: PositiveInt | None = None
    storage_bytes: PositiveInt | None = None
    executes_in_place: bool = False


class Accelerator(Value):
    """An accelerator beside the processor. `compute` is CUDA's name for it (sm_87)."""

    kind: Literal["cuda", "edgetpu", "ethos-u"]
    name: str
    compute: str = ""
    clock_mhz: PositiveInt | None = None
    on_chip_bytes: PositiveInt | None = None


class Scheme(Value):
    """The quantization for which the target's kernels are fast and exact.

    `weight_bits = 7` keeps weights in [-63, 63] where the processor's 8-bit multiply-add saturates
    its 16-bit sums (x86 without VNNI). `tolerance_lsb` is how far an artifact's outputs may lie
    from the fake-quantized reference before the run fails.
    """

    activations: Literal["uint8-affine", "int8-affine", "int8-symmetric"]
    per_channel: bool = True
    weight_bits: Literal[7, 8] = 8
    tolerance_lsb: PositiveInt = 2


class Sensors(Value):
    """The source of energy readings. `rails` are INA3221 labels; their sum is the module's
    power."""

    energy: Literal["rapl", "ina3221", "none"] = "none"
    rails: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _rails_belong_to_the_monitor(self) -> "Sensors":
        if (self.energy == "ina3221") != bool(self.rails):
            raise ValueError("'rails' go with energy = \"ina3221\", which needs at least one")
        return self


class Target(Value):
    """A target profile.

    `backends` has a table for each backend that compiles for this target, with that backend's own
    options. `aliases` are further names that load it. `fast_dtypes` are the types that the hardware
    computes natively. `unsupported_ops` are ATen names (`aten.nonzero`) that the target can't run
    at all. `budgets` are defaults that a recipe overrides.
    """

    name: str
    title: str
    summary: str
    aliases: tuple[str, ...] = ()
    hardware: Hardware
    accelerators: tuple[Accelerator, ...] = ()
    quantization: Scheme
    channel_multiple: PositiveInt = 8
    fast_dtypes: tuple[Literal["fp32", "fp16", "bf16", "int8"], ...] = ("fp32",)
    backends: dict[str, dict[str, Any]] = Field(min_length=1)
    unsupported_ops: tuple[str, ...] = ()
    sensors: Sensors = Sensors()
    budgets: dict[str, float] = {}

    def accelerator(self, kind: str) -> Accelerator | None:
        """The first accelerator of that kind, if the target has one."""
        return next((one for one in self.accelerators if one.kind == kind), None)

    @model_validator(mode="after")
    def _facts_agree(self) -> "Target":
        contradictions = list(_contradictions(self))
        if contradictions:
            raise ValueError("; ".join(contradictions))
        return self


def _contradictions(target: Target) -> Iterable[str]:
    """Contradictions within a profile."""
    for name in target.backends:
        yield from _unmet_needs(target, name)
    for accelerator in target.accelerators:
        if accelerator.kind == "cuda" and not accelerator.compute.startswith("sm_"):
            yield f"accelerator '{accelerator.name}' needs its compute capability (sm_87)"
    if target.quantization.weight_bits == 7 and target.hardware.architecture != "x86_64":
        yield "weight_bits = 7 is for x86 without VNNI only"
    if target.hardware.executes_in_place and target.hardware.storage_bytes is None:
        yield "executes_in_place needs storage_bytes, since constants are read from storage"
    if "dotprod" in target.hardware.isa and target.hardware.architecture != "aarch64":
        yield "'dotprod' is an instruction of aarch64"


def _unmet_needs(target: Target, name: str) -> Iterable[str]:
    """A backend's requirements that the target does not meet."""
    try:
        info = backend_info(name)
    except EdgekdError:  # `check_options` reports it, with its place in the file
        return
    needs = info.needs
    if info.follows and info.follows not in target.backends:
        yield f"backend '{name}' follows '{info.follows}', which is not among the backends"
    if needs.accelerator and target.accelerator(needs.accelerator) is None:
        yield f"backend '{name}' needs an accelerator of the kind '{needs.accelerator}'"
    if needs.activations not in ("", target.quantization.activations):
        yield f"backend '{name}' needs activations = \"{needs.activations}\""


def target_files() -> dict[str, Path]:
    """Every known target's file by name, the first folder that has it winning."""
    return toml_files("targets")


def target_aliases() -> dict[str, str]:
    """Each alias with its target's name; files that can't be read are skipped."""
    files = target_files()
    aliases: dict[str, str] = {}
    for name, path in files.items():
        try:
            others = tomllib.loads(path.read_text(encoding="utf-8")).get("aliases", [])
        except (OSError, ValueError):  # a broken file is reported when it is asked for by name
            continue
        for other in others if isinstance(others, list) else []:
            if isinstance(other, str) and other not in files:
                aliases.setdefault(other, name)
    return aliases


def target_path(name: str) -> Path:
    """The file behind a name, an alias or a path that ends in .toml; it may be missing."""
    if name.endswith(".toml"):
        return Path(name)
    files = target_files()
    if name in files:
        return files[name]
    aliases = target_aliases()
    if name in aliases:
        return files[aliases[name]]
    names = sorted({*files, *aliases})
    raise InputError(
        f"unknown target '{name}'",
        where="--target",
        allowed=", ".join(names),
        hint=nearest(name, names) or "run 'edgekd targets' for the list",
    )


def load_target(name: str) -> Target:
    """The profile of that name or alias, or of that file when `name` is a path in .toml."""
    path = target_path(name)
    return parse_target(read_toml(path), str(path), expected=path.stem)


def parse_target(table: Mapping[str, Any], where: str, expected: str | None = None) -> Target:
    """A profile from a table, or every fault in it at once, backends' options included."""
    faults: list[EdgekdError] = []
    tables = table.get("backends")
    if isinstance(tables, Mapping):
        faults += check_options(tables, where)
    if expected is not None and table.get("name", expected) != expected:
        faults.append(
            InputError(
                f"the name '{table['name']}' differs from the file's name",
                where=where,
                allowed=expected,
            )
        )
    try:
        target = parse(Target, table, where)
    except EdgekdError as error:
        faults += error.faults
    raise_all(faults)
    return target


def fits(
    target: Target, parameter_bytes: int, activation_bytes: int, runtime_bytes: int = 0
) -> str:
    """Why a model does not fit the target, or an empty string. `activation_bytes` is the peak of
    live activations and `runtime_bytes` what the interpreter takes besides. All of it has to fit
    into memory, and the parameters into storage too.
    """
    hardware = target.hardware
    held_bytes = 0 if hardware.executes_in_place else parameter_bytes
    needed = held_bytes + activation_bytes + runtime_bytes
    if needed > hardware.memory_bytes:
        if hardware.executes_in_place:
            return (
                f"{_bytes(needed)} of activations; "
                f"{target.name} has {_bytes(hardware.memory_bytes)} of memory"
            )
        return (
            f"{_bytes(parameter_bytes)} of parameters and {_bytes(activation_bytes)} of "
            f"activations need {_bytes(needed)} of memory; "
            f"{target.name} has {_bytes(hardware.memory_bytes)}"
        )
    if hardware.storage_bytes is not None and parameter_bytes > hardware.storage_bytes:
        return (
            f"{_bytes(parameter_bytes)} of parameters; "
            f"{target.name} has {_bytes(hardware.storage_bytes)} of storage"
        )
    return ""


def hard_limits(target: Target) -> dict[str, float]:
    """The budgets that no recipe can raise, in bytes: the hardware's flash and memory. They exist
    only where constants are read in place; elsewhere a file system and swap blur both limits.
    """
    hardware = target.hardware
    if not hardware.executes_in_place or hardware.storage_bytes is None:
        return {}
    return {
        "size_bytes": float(hardware.storage_bytes),
        "memory_bytes": float(hardware.memory_bytes),
    }


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def unsupported_ops_of(ops: Iterable[str], target: Target) -> tuple[str, ...]:
    """Which of the operators the target can't run, each once, in the order they came.

    Names may be ATen's in either spelling, with or without the overload: `aten.nonzero.default`,
    `aten::nonzero`, `aten.nonzero`.
    """
    refused = {_without_overload(name) for name in target.unsupported_ops}
    return tuple(dict.fromkeys(op for op in ops if _without_overload(op) in refused))


def _without_overload(op: str) -> str:
    return ".".join(op.replace("::", ".").split(".")[:2])
