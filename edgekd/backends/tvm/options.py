"""What a target may set in `[backends.tvm]`."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from edgekd.values.tables import Value


class TvmOptions(Value):
    """TVM's target (`kind`, `mcpu`, `mtriple`, `mattr`, `num_cores`; `arch` for CUDA) and limits.

    `host` is the processor that drives a CUDA device. `grid_seconds` bounds the search of the
    built-in schedule's parameters for each layer and `tune_seconds` MetaSchedule; 0 turns either
    off. `cache` is the folder of compiled libraries, by default `tvm` in edgekd's cache. With
    `strict`, a quantized model of which an operator would compute in float is refused.
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
    strict: bool = False
