"""What `edgekd doctor` looks for: runtimes, compilers, sensors, and how to get the rest."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.devices.opening import open_device
from edgekd.installed import versions_of


@dataclass(frozen=True)
class Finding:
    """One thing that edgekd can use: what it is for, whether it is here, and how to get it."""

    name: str
    purpose: str
    found: str
    hint: str


PACKAGES = (
    ("torch", "training and export", "edgekd"),
    ("torchao", "quantization-aware training", "edgekd"),
    ("torch-pruning", "structured pruning", "edgekd"),
    ("nncf", "calibration without training", "edgekd[nncf]"),
    ("onnx", "the ONNX backend", "edgekd[onnx]"),
    ("onnxruntime", "running ONNX files", "edgekd[onnx]"),
    ("litert-torch", "the TFLite backend", "edgekd[tflite]"),
    ("ai-edge-litert", "running TFLite files", "edgekd[tflite]"),
    ("apache-tvm", "the TVM backend", "edgekd[tvm]"),
    ("ethos-u-vela", "Ethos-U files", "edgekd[ethos]"),
    ("tflite-micro", "the micro runtime's arena, on this machine", "edgekd[tflm]"),
    ("tensorflow|tensorflow-cpu", "Keras and SavedModel teachers", "edgekd[keras]"),
)

TOOLS = (
    ("aarch64-linux-gnu-g++", "TVM libraries for 64-bit ARM", "apt install g++-aarch64-linux-gnu"),
    ("qemu-aarch64-static", "ARM artifacts on this machine", "apt install qemu-user-static"),
    ("arm-none-eabi-gcc", "bare-metal Cortex-M", "apt install gcc-arm-none-eabi"),
    ("qemu-system-aarch64", "emulated boards with times", "apt install qemu-system-arm"),
    ("mmdebstrap", "making emulated boards", "apt install mmdebstrap"),
    ("nvcc", "TVM libraries for Jetson", "install NVIDIA's CUDA toolkit"),
    ("trtexec", "TensorRT engines, on the board", "comes with JetPack"),
    ("edgetpu_compiler", "Edge TPU files", "comes from Coral's apt archive"),
)


def examine(root: Path = Path("/")) -> list[Finding]:
    """Everything that edgekd knows to look for; `root` is where sensors are read from."""
    findings = [_package(*row) for row in PACKAGES]
    findings += [_tool(*row) for row in TOOLS]
    return [*findings, *_sensors(root)]


def examine_device(url: str) -> list[Finding]:
    """What a device has: processor, memory, space, runtimes, sensors, and what a latency there
    depends on. Raises `ToolError` for a board that does not answer."""
    device = open_device(url)
    try:
        hello = device.hello()
    finally:
        device.close()
    plain = [
        ("board", "what it is", hello.cpu),
        ("system", "what runs on it", hello.platform),
        ("architecture", "which files it can run", hello.machine),
        ("processors", "threads", str(hello.cores)),
        ("instructions", "which kernels are fast", " ".join(_worth_telling(hello.features))),
        ("memory", "models and activations", _bytes(hello.memory_bytes)),
        ("free memory", "models and activations", _bytes(hello.memory_free_bytes)),
        ("free space", "files and test sets", _bytes(hello.storage_free_bytes)),
        ("python", "the agent", hello.python),
        ("numpy", "the agent", hello.numpy),
        ("governor", "steady latencies", ", ".join(hello.governors)),
        *((key.replace("_", " "), "steady latencies", value)
          for key, value in hello.conditions.items() if key not in ("governor", "affinity")),
    ]  # fmt: skip
    hints = {"numpy": "pip install numpy on the device"}
    findings = [
        Finding(name, purpose, found, "" if found else hints.get(name, "the device does not tell"))
        for name, purpose, found in plain
    ]
    findings += [
        Finding(name, "running files", version, "" if version else hello.install.get(name, ""))
        for name, version in hello.runtimes.items()
    ]
    sensors = (("RAPL", "rapl", "energy on x86"), ("INA3221", "ina3221", "energy on Jetson"),
               ("thermal zones", "thermal", "throttling"))  # fmt: skip
    return findings + [
        Finding(name, purpose, hello.sensors.get(key, ""),
                "" if key in hello.sensors else "no such sensor there")
        for name, key, purpose in sensors
    ]  # fmt: skip


WORTH_TELLING = ("sse4_2", "avx", "fma", "f16c", "vnni", "amx", "asimd", "fphp", "sve", "i8mm",
                 "bf16", "neon", "vfpv4")  # fmt: skip
"""Beginnings of what a kernel's speed depends on; a processor lists a hundred more features."""


def _worth_telling(features: Sequence[str]) -> list[str]:
    return [one for one in features if any(known in one for known in WORTH_TELLING)]


def _bytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e9:.2f} GB"


def _package(names: str, purpose: str, requirement: str) -> Finding:
    for name, version in versions_of(names.split("|")).items():
        return Finding(name, purpose, version, "")
    return Finding(names.split("|")[0], purpose, "", f"pip install '{requirement}'")


def _tool(name: str, purpose: str, hint: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, purpose, path or "", "" if path else hint)


def _sensors(root: Path) -> list[Finding]:
    rapl = sorted((root / "sys/class/powercap").glob("intel-rapl:*/energy_uj"))
    readable = [str(path.parent.name) for path in rapl if os.access(path, os.R_OK)]
    hint = "reading it needs root" if rapl else "no such sensor here (virtual machines have none)"
    rails = sorted((root / "sys/bus/i2c/drivers/ina3221").glob("*/hwmon/hwmon*/in*_label"))
    labels = sorted({path.read_text().strip() for path in rails})
    return [
        Finding("RAPL", "energy on x86", ", ".join(readable), "" if readable else hint),
        Finding(
            "INA3221",
            "energy on Jetson",
            ", ".join(labels),
            "" if labels else "no such sensor here (Jetson boards have it)",
        ),
    ]
