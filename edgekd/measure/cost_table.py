"""The tables of what operators cost on a device, in the cache that runs share.

Each model file that was measured has an entry by its content, in a folder for each device, runtime
and way of running.
"""

# code-key: measures

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekd.devices import Device, Options
from edgekd.devices.replies import Profiled
from edgekd.formats.graph import Graph
from edgekd.formats.onnx_file import read_onnx
from edgekd.formats.onnx_shapes import with_shapes
from edgekd.formats.tflite import read_tflite
from edgekd.measure.operator_costs import MeasuredFile, measured_file
from edgekd.store import key_of, make_folder, write_beside
from edgekd.values.artifact import Artifact

DECISIVE = ("threads", "provider", "delegate", "delegate_options", "kernels", "device")
"""The options on which an operator's time depends."""


def table_folder(cache: Path, device: Device, artifact: Artifact, options: Options) -> Path:
    """The folder of the table that a file's operators belong to."""
    return table_of(cache, device, artifact.runtime, artifact.format, options)


def table_of(cache: Path, device: Device, runtime: str, format: str, options: Options) -> Path:
    """The folder of the table of a runtime's files on a device."""
    hello = device.hello()
    chosen: dict[str, Any] = {name: options[name] for name in DECISIVE if name in options}
    kind = (runtime, hello.runtimes.get(runtime, ""), format)
    key = key_of(device.name, hello.machine, hello.cpu, hello.features, kind, chosen)
    return cache / "costs" / key[:16]


def graph_with_shapes(path: Path) -> Graph:
    """A model file's operators with the shapes of one sample. Raises `InputError` for a file of
    another format or a damaged one."""
    if path.suffix.lower() == ".tflite":
        return read_tflite(path)
    return with_shapes(read_onnx(path), path)


def keep_costs(
    folder: Path, artifact: Artifact, profiled: Profiled, whole_us: float | None
) -> None:
    """Enter a measured file into a table, in place of an earlier measurement of it. A file that was
    timed without its whole latency is left out, and so is one that runs in patches."""
    if profiled.patches or (profiled.unit == "ns" and whole_us is None):
        return
    graph = graph_with_shapes(artifact.path)
    whole = whole_us if profiled.unit == "ns" else None
    measured = measured_file(artifact.sha256, graph, profiled, artifact.runtime, whole)
    make_folder(folder)
    write_beside(folder / f"{artifact.sha256}.json", measured.model_dump_json() + "\n")


def known_files(folder: Path) -> Sequence[MeasuredFile]:
    """The files of a table, by their hashes; files of another form are left out."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(MeasuredFile.model_validate_json(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return found
