"""What a target may set for each backend: one small table a backend, unknown keys refused."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from edgekd.errors import EdgekdError, InputError, nearest
from edgekd.values.tables import Value, parse


class OnnxOptions(Value):
    """ONNX Runtime on the device. `provider` is cpu, cuda or tensorrt."""

    threads: PositiveInt = 1
    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"


class TfliteOptions(Value):
    """LiteRT on the device. `delegate` is a shared library that runs operators in its place, with
    `delegate_options`; `kernels` are the optimized ones (XNNPACK) or the reference ones."""

    threads: PositiveInt = 1
    kernels: Literal["optimized", "reference"] = "optimized"
    delegate: str = ""
    delegate_options: dict[str, str] = {}


class TvmOptions(Value):
    """TVM's target (`kind`, `mcpu`, `mtriple`, `mattr`, `num_cores`; `arch` for CUDA) and budgets.

    `host` is the processor that drives a CUDA device. `grid_seconds` bounds the per-layer grid of
    the built-in schedule and `tune_seconds` MetaSchedule, 0 meaning not at all. `cache` is the
    folder of compiled libraries, by default `tvm` in edgekd's cache.
    """

    kind: Literal["llvm", "cuda"] = "llvm"
    mcpu: str = ""
    mtriple: str = ""
    mattr: tuple[str, ...] = ()
    num_cores: PositiveInt = 1
    arch: str = Field(default="", pattern=r"^(sm_\d+)?$")
    host: dict[str, str | int | list[str]] = {}
    grid_seconds: float = Field(default=30.0, ge=0)
    tune_seconds: float = Field(default=0.0, ge=0)
    threads: PositiveInt = 1
    device: Literal["cpu", "cuda"] = "cpu"
    entry: str = "main"
    time_limit_seconds: PositiveFloat = 900.0
    cache: str = ""


class EdgetpuOptions(Value):
    """The Edge TPU compiler. `reserve_bytes` is what it takes of the on-chip memory itself."""

    time_limit_seconds: PositiveFloat = 600.0
    reserve_bytes: int = Field(default=1_153_434, ge=0)  # 1.1 MiB, the least seen in logs
    threads: PositiveInt = 1
    delegate: str = "libedgetpu.so.1"
    delegate_options: dict[str, str] = {}


class TensorrtOptions(Value):
    """The engine's build on the board; `workspace_mib` bounds its scratch memory."""

    builder_optimization_level: int = Field(default=3, ge=0, le=5)
    workspace_mib: PositiveInt | None = None
    time_limit_seconds: PositiveFloat = 1800.0
    trtexec: str = "/usr/src/tensorrt/bin/trtexec"  # where JetPack installs it
    cudart: str = ""


class VelaOptions(Value):
    """Vela, the compiler for Ethos-U. `accelerator_config` is the NPU with its MACs; `config` names
    the file that `system_config` (clock and bandwidths) and `memory_mode` (what lies where) are
    sections of. Vela's own defaults for those are of no real system, so they have to be given."""

    accelerator_config: Literal[
        "ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256",
        "ethos-u65-256", "ethos-u65-512",
        "ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048",
    ]  # fmt: skip
    system_config: str
    memory_mode: str
    config: str = "Arm/vela.ini"
    optimise: Literal["Performance", "Size"] = "Performance"
    arena_cache_bytes: PositiveInt | None = None
    time_limit_seconds: PositiveFloat = 600.0


class COptions(Value):
    """C11 from the int8 TFLite file. `name` begins files and functions; `arithmetic` says whose
    fully connected layers are matched to the bit; `cmsis_nn` is the folder of CMSIS-NN's sources
    (with Include/ in it), whose kernels are called instead of plain C where they do the same."""

    name: str = Field(default="model", pattern=r"^[A-Za-z][A-Za-z0-9_]{0,39}$")
    arithmetic: Literal["micro", "litert"] = "micro"
    cmsis_nn: str = ""


OPTIONS: Mapping[str, type[Value]] = {
    "onnx": OnnxOptions,
    "tflite": TfliteOptions,
    "tvm": TvmOptions,
    "edgetpu": EdgetpuOptions,
    "tensorrt": TensorrtOptions,
    "c": COptions,
    "vela": VelaOptions,
}


def check_options(tables: Mapping[str, Any], where: str) -> list[EdgekdError]:
    """Every fault in a target's `[backends.NAME]` tables.

    A third party's backend (an entry point of `edgekd.backends`) checks its own table.
    """
    unknown = set(tables) - set(OPTIONS)  # listing entry points reads every installed package
    foreign = {point.name for point in entry_points(group="edgekd.backends")} if unknown else set()
    faults: list[EdgekdError] = []
    for name, table in tables.items():
        place = f"{where}: backends.{name}"
        if not isinstance(table, Mapping):
            faults.append(InputError(f"a table is needed, found {table!r}", where=place))
        elif name in OPTIONS:
            faults += _faults_in(OPTIONS[name], table, place)
        elif name not in foreign:
            names = sorted({*OPTIONS, *foreign})
            faults.append(
                InputError(
                    f"unknown backend '{name}'",
                    where=place,
                    allowed=", ".join(names),
                    hint=nearest(name, names),
                )
            )
    return faults


def _faults_in(model: type[Value], table: Mapping[str, Any], where: str) -> list[EdgekdError]:
    try:
        parse(model, table, where)
    except EdgekdError as error:
        return list(error.faults)
    return []
