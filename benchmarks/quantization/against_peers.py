"""edgekd's int8 files against the peers' own routes from the same float student, in one run.

The student is what a finished `edgekd compress` run of the recipe left in its folder before it was
quantized; where there is no such run it is made first. Peers calibrate on the same samples: ONNX
Runtime's `quantize_static` (QDQ, per channel, uint8 activations, weights reduced to seven bits as
its documentation advises without VNNI) and ai-edge-quantizer's full int8 recipe.

    python benchmarks/quantization/against_peers.py --out runs/fashion-mnist/seed-0
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from edgekd.accuracy import evaluate_artifact
from edgekd.artifact import Artifact, sha256_of
from edgekd.backends.onnx import Onnx
from edgekd.backends.tflite import Tflite
from edgekd.compress import prepare
from edgekd.devices.opening import open_device
from edgekd.measuring import measure
from edgekd.meters.latency import ratio
from edgekd.onnx_files import describe_onnx
from edgekd.pipeline import compile_candidate, run_stages
from edgekd.plan import make_plan, start_key
from edgekd.quant.calibration import calibrate

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from dated import write_result  # noqa: E402


def by_onnxruntime(model: Path, made: Path, samples: Any) -> None:
    """ONNX Runtime's own static quantization."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = made.with_name("prepared.onnx")
    quant_pre_process(model, prepared)
    name = describe_onnx(prepared).inputs[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(samples.split(1))

        def get_next(self) -> dict[str, Any] | None:
            row = next(self.rows, None)
            return None if row is None else {name: row.numpy()}

    quantize_static(
        prepared,
        made,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def by_ai_edge_quantizer(model: Path, made: Path, samples: Any) -> None:
    """Google's quantizer for TFLite files, int8 weights and activations."""
    from ai_edge_quantizer import quantizer, recipe

    tool = quantizer.Quantizer(str(model), recipe.static_wi8_ai8())
    signature = tool_signature(model)
    rows = [{signature[1]: row.permute(0, 2, 3, 1).numpy()} for row in samples.split(1)]
    found = tool.calibrate({signature[0]: rows})
    tool.quantize(found).export_model(str(made), overwrite=True)


def tool_signature(model: Path) -> tuple[str, str]:
    """A TFLite file's signature and its input's name."""
    from ai_edge_litert.interpreter import Interpreter

    signatures = Interpreter(str(model)).get_signature_list()
    name = next(iter(signatures))
    return name, signatures[name]["inputs"][0]


def like(artifact: Artifact, path: Path, device: Any) -> Artifact:
    """The peer's file described as ours is."""
    inputs, outputs = device.probe(path, artifact.runtime, {})
    return artifact.model_copy(
        update={
            "path": path,
            "sha256": sha256_of(path),
            "bytes": path.stat().st_size,
            "inputs": inputs,
            "outputs": outputs,
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=HERE.parent / "fashion_mnist/recipe.toml")
    parser.add_argument("--out", type=Path, default=Path("runs/fashion-mnist/seed-0"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    request = prepare(recipe=options.recipe, targets=["x86"], out=options.out, quick=options.quick)
    plan = make_plan(request)
    planned = plan.targets[0]
    staged = run_stages(plan, planned, lambda *_: None, start_key(plan))
    target, samples = planned.target, plan.calibration
    trained = {
        each.artifact.format: each.artifact
        for each in compile_candidate(plan, planned, staged, lambda *_: None)
    }
    floating = staged.floating
    graph = calibrate(floating.module, floating.example, samples, target.quantization)
    calibrated = floating.after(graph, "calibrated", "int8")
    device, results = open_device("host"), []
    with tempfile.TemporaryDirectory() as folder:
        for form, backend, peer, by in (
            ("onnx", Onnx(), "onnxruntime.quantization.quantize_static", by_onnxruntime),
            ("tflite", Tflite(), "ai-edge-quantizer static_wi8_ai8", by_ai_edge_quantizer),
        ):
            places = {name: Path(folder) / form / name for name in ("float", "ours")}
            for place in places.values():
                place.mkdir(parents=True)
            table = target.backends[form]
            (float_file,) = backend.compile(floating, target, table, places["float"])
            (ours,) = backend.compile(calibrated, target, table, places["ours"])
            theirs_path = Path(folder) / form / f"theirs.{form}"
            by(float_file.path, theirs_path, samples)
            theirs = like(ours, theirs_path, device)
            files = {"peer": theirs, "calibrated": ours, "qat": trained[form]}
            taken, _ = measure(
                device, list(files.values()), table, target.sensors, quick=options.quick
            )
            accuracies = {
                name: evaluate_artifact(device, file, plan.data.test, table)[0].value
                for name, file in files.items()
            }
            ratios = [ratio(each, taken[0], device.name, device.kind) for each in taken[1:]]
            results.append(
                {
                    "format": form,
                    "peer": peer,
                    "accuracy": accuracies,
                    "bytes": {name: file.bytes for name, file in files.items()},
                    "latency_over_peer": {
                        name: {"ratio": found.value, "ci": found.ci}
                        for name, found in zip(("calibrated", "qat"), ratios, strict=True)
                    },
                }
            )
    device.close()
    write_result(
        __file__,
        {
            "what": "int8 files from the same float student; latency of ours over the peer's",
            "goal": "accuracy no worse, latency ratio at most 1.02",
            "results": results,
        },
    )


if __name__ == "__main__":
    main()
