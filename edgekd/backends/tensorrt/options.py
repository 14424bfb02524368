"""What a target may set in `[backends.tensorrt]`."""

from pydantic import Field, PositiveFloat, PositiveInt

from edgekd.values.tables import Value


class TensorrtOptions(Value):
    """How the engine is built on the board. `workspace_mib` bounds the builder's scratch memory;
    `cudart` is the CUDA runtime library with which the board's agent runs the engine."""

    builder_optimization_level: int = Field(default=3, ge=0, le=5)
    workspace_mib: PositiveInt | None = None
    time_limit_seconds: PositiveFloat = 1800.0
    trtexec: str = "/usr/src/tensorrt/bin/trtexec"  # where JetPack installs it
    cudart: str = ""
