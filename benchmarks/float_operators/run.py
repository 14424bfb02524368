"""How many operators of edgekd's int8 files compute in float: in the graph that ONNX Runtime makes
of the ONNX file, and in the TFLite file.

Counted is every operator between floats that is neither a quantize nor a dequantize operator. The
networks have random weights: counts don't depend on them, and the signal to noise says that the
graph computes the network's function, not how accurate a trained one would be.

    python benchmarks/float_operators/run.py --networks resnet18 unet
    python benchmarks/float_operators/run.py --networks convnext_atto --strict
    python benchmarks/float_operators/run.py --peers

With `--peers` the files are those of ONNX Runtime's `quantize_static` and of ai-edge-quantizer,
made of edgekd's float files and calibrated on the same samples.
"""

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import torch
from torch import Tensor, nn

from edgekd.backends import Backend
from edgekd.backends.onnx import Onnx
from edgekd.backends.onnx.optimized import float_operators, optimized_graph
from edgekd.backends.tflite import Tflite
from edgekd.devices.opening import open_device
from edgekd.errors import EdgekdError, first_line
from edgekd.formats.graph import float_islands
from edgekd.formats.tflite import read_tflite
from edgekd.quant.calibration import calibrate
from edgekd.values.artifact import sha256_of
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from dated import write_result  # type: ignore[import-not-found] # noqa: E402
from networks import NETWORKS, SHAPES, SIDE  # noqa: E402
from peers import by_ai_edge_quantizer, by_onnxruntime  # type: ignore[import-not-found] # noqa: E402

SAMPLES = 8
TARGETS = {"onnx": "x86", "tflite": "raspberry-pi-4"}
BACKENDS: dict[str, type[Backend]] = {"onnx": Onnx, "tflite": Tflite}
PEERS = {
    "onnx": ("onnxruntime quantize_static", by_onnxruntime),
    "tflite": ("ai-edge-quantizer", by_ai_edge_quantizer),
}


def main() -> None:
    """Measure the networks that are asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--backends", nargs="+", choices=TARGETS, default=[*TARGETS])
    parser.add_argument("--strict", action="store_true", help="let nothing stay in float")
    parser.add_argument("--peers", action="store_true", help="the peers' files instead of ours")
    chosen = parser.parse_args()
    rows = measured_today()
    for name in chosen.networks:
        made = row_of(name, chosen.backends, "peers" * chosen.peers or "strict" * chosen.strict)
        rows[name] = rows.get(name, {}) | made
        path = write_result(__file__, {"side": SIDE, "samples": SAMPLES, "networks": rows})
        path.with_suffix(".md").write_text(table_of(rows), encoding="utf-8")


COLUMNS = {
    "onnx": "edgekd, ONNX",
    "onnx, strict": "edgekd, ONNX, `strict`",
    "onnxruntime quantize_static": "ONNX Runtime's `quantize_static`",
    "tflite": "edgekd, TFLite",
    "ai-edge-quantizer": "ai-edge-quantizer",
}
"""The keys of a network's row, and what the table calls them."""


def table_of(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The counts as a table in Markdown, in the order of `NETWORKS`."""
    lines = [f"| network | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name in (name for name in NETWORKS if name in rows):
        cells = [cell_of(rows[name].get(column)) for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell_of(found: Mapping[str, Any] | None) -> str:
    """'29 of 193, 24.8 dB', 'refused', or a dash for what was not measured."""
    if found is None:
        return "-"
    if "error" in found:
        return "refused"
    return f"{found['float']} of {found['operators']}, {found['signal_to_noise_db']} dB"


def measured_today() -> dict[str, Any]:
    """What earlier calls on the same day have found, which is kept."""
    today = datetime.date.today().isoformat()
    path = Path(__file__).with_name(f"{Path(__file__).stem}.{today}.json")
    return json.loads(path.read_text(encoding="utf-8"))["networks"] if path.exists() else {}


def row_of(name: str, backends: list[str], how: str = "") -> dict[str, Any]:
    """The counts of one network, or what each backend or peer refused. `how` is "strict" where
    nothing may stay in float, and "peers" for the peers' files."""
    torch.manual_seed(0)
    module = trained_looking(NETWORKS[name]())
    samples = torch.randn(SAMPLES, *SHAPES.get(name, (3, SIDE, SIDE)))
    row: dict[str, Any] = {}
    for backend in backends:
        start = time.perf_counter()
        key = {"peers": PEERS[backend][0], "strict": f"{backend}, strict"}.get(how, backend)
        try:
            if how == "peers":
                row[key] = counted_of_peer(backend, module, samples)
            else:
                row[key] = counted(backend, module, samples, how == "strict")
        except Exception as error:  # a peer's error is of any kind
            if how != "peers" and not isinstance(error, EdgekdError):
                raise
            row[key] = {"error": first_line(error)}
        row[key]["seconds"] = round(time.perf_counter() - start, 1)
        print(name, key, row[key], file=sys.stderr, flush=True)
    return row


def trained_looking(module: nn.Module) -> nn.Module:
    """The network in eval mode, with batch statistics that differ from channel to channel, and with
    class tokens and layer scales that are not next to nothing, as they are before training."""
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for values, low, high in ((part.running_mean, -0.1, 0.1), (part.running_var, 0.5, 1.5)):
                assert values is not None
                nn.init.uniform_(values, low, high)
    for name, value in module.named_parameters():
        if name.endswith(("cls_token", "gamma")):
            nn.init.normal_(value, std=0.5)
    return module.eval()


def counted(backend: str, module: nn.Module, samples: Tensor, strict: bool) -> dict[str, Any]:
    """The operators of one file, those in float, and how close the graph is to the network."""
    target = load_target(TARGETS[backend])
    graph = calibrate(module, samples[:1], samples, target.quantization, strict=strict)
    with torch.no_grad():
        expected, found = module(samples), graph(samples)
    candidate = Candidate(graph, samples[:1], "int8", integers_only=strict)
    with tempfile.TemporaryDirectory() as folder:
        (artifact,) = BACKENDS[backend]().compile(candidate, target, {}, Path(folder))
        return operators_of(artifact.path) | noise_of(expected, found)


def counted_of_peer(backend: str, module: nn.Module, samples: Tensor) -> dict[str, Any]:
    """The same for the file that a peer makes of edgekd's float file, whose outputs are compared
    with the network's."""
    target = load_target(TARGETS[backend])
    with torch.no_grad():
        expected = module(samples)
    with tempfile.TemporaryDirectory() as folder:
        floating = Candidate(module, samples[:1])
        (artifact,) = BACKENDS[backend]().compile(floating, target, {}, Path(folder))
        made = artifact.path.with_stem("int8")
        PEERS[backend][1](artifact.path, made, samples)
        host = open_device("host")
        try:
            inputs, outputs = host.probe(made, artifact.runtime, {})
            facts = {"path": made, "sha256": sha256_of(made), "inputs": inputs, "outputs": outputs}
            artifact = artifact.model_copy(update=facts)
            (found,) = host.infer(artifact, [samples.numpy()], {})
        finally:
            host.close()
        return operators_of(made) | noise_of(expected, torch.from_numpy(found))


def operators_of(path: Path) -> dict[str, Any]:
    """How many operators the runtime computes, and which of them in float."""
    if path.suffix == ".onnx":
        floats = Counter(op for op, _ in float_operators(path))
        total = len(optimized_graph(path).node)
    else:
        file = read_tflite(path)
        floats, total = Counter(op.op for op in float_islands(file)), len(file.ops)
    kinds = dict(floats.most_common())
    return {"float": sum(floats.values()), "operators": total, "kinds": kinds}


def noise_of(expected: Tensor, found: Tensor) -> dict[str, float]:
    """The signal to noise in dB."""
    noise = (expected.double() - found.double()).square().sum().clamp_min(1e-30)
    decibels = float(10 * torch.log10(expected.double().square().sum() / noise))
    return {"signal_to_noise_db": round(decibels, 1)}


if __name__ == "__main__":
    main()
