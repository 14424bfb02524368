"""What `edgekd doctor` looks for: runtimes, compilers, sensors, and how to get the rest."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.devices.opening import open_device
from edgekd.installed import versions_of
from edgekd.values.backend_lookup import examined_backends


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
    ("nncf", "calibration of ONNX files alone", "edgekd[nncf]"),
    ("tflite-micro", "measuring a microcontroller's arena", "edgekd[tflm]"),
    ("tensorflow|tensorflow-cpu", "Keras and SavedModel teachers", "edgekd[keras]"),
)

TOOLS = (
    ("qemu-aarch64-static", "running Arm files on this machine", "apt install qemu-user-static"),
    ("qemu-system-aarch64", "emulated boards with latencies", "apt install qemu-system-arm"),
    ("mmdebstrap", "creating emulated boards", "apt install mmdebstrap"),
)


def examine(root: Path = Path("/")) -> list[Finding]:
    """Everything that edgekd and its backends can use; `root` is where sensors are read from."""
    infos, errors = examined_backends()
    needs = [info.needs for info in infos.values()]
    packages = [
        *PACKAGES,
        *((each.name, each.purpose, each.requirement) for need in needs for each in need.packages),
    ]
    tools = [
        *TOOLS,
        *((each.command, each.purpose, each.hint) for need in needs for each in need.tools),
    ]
    broken = [
        Finding(name, "a backend", "", f"{error.message}; {error.hint}")
        for name, error in errors.items()
    ]
    # Several backends need the same package: the first one's line stands for all.
    found_packages = {row[0]: _package(*row) for row in reversed(packages)}
    found_tools = {row[0]: _tool(*row) for row in reversed(tools)}
    return [
        *reversed(found_packages.values()),
        *reversed(found_tools.values()),
        *broken,
        *_sensors(root),
    ]


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
        ("instructions", "which kernels are fast", " ".join(_relevant(hello.features))),
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
    unknown = "the device does not report it"
    findings = [
        Finding(name, purpose, found, "" if found else hints.get(name, unknown))
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


RELEVANT = ("sse4_2", "avx", "fma", "f16c", "vnni", "amx", "asimd", "fphp", "sve", "i8mm",
                 "bf16", "neon", "vfpv4")  # fmt: skip
"""Beginnings of what a kernel's speed depends on; a processor lists a hundred more features."""


def _relevant(features: Sequence[str]) -> list[str]:
    return [one for one in features if any(known in one for known in RELEVANT)]


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
