"""What `edgekd doctor` looks for: runtimes, compilers, sensors, and how to get the rest."""

import importlib.metadata
import os
import shutil
from dataclasses import dataclass
from pathlib import Path


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


def _package(names: str, purpose: str, requirement: str) -> Finding:
    for name in names.split("|"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
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
