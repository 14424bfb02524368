"""edgekd's int8 files against the peers' own routes from the same float student, in one run.

The students are what finished `edgekd compress` runs of the recipe left in their folders before
they were quantized, one for each seed; where there is no such run it is made first. Latency is that
of the first student; accuracy is counted over the test images of all of them, ours against the
peer's on the same image, with the interval of the paired difference. Peers calibrate on the same
samples: ONNX Runtime's `quantize_static` (QDQ, per channel, uint8 activations, weights reduced to
seven bits as its documentation advises without VNNI) and ai-edge-quantizer's full int8 recipe.

    python benchmarks/quantization/against_peers.py --out runs/fashion-mnist --seeds 0 1 2
"""

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from edgekd.backends.onnx import Onnx
from edgekd.backends.tflite import Tflite
from edgekd.data.samples import Samples
from edgekd.devices.opening import open_device
from edgekd.measure.accuracy import drop_measurement, evaluate_artifact
from edgekd.measure.measuring import measure
from edgekd.measure.meters.latency import ratio
from edgekd.quant.calibration import calibrate
from edgekd.run.compiling import compile_candidate
from edgekd.run.pipeline import run_stages
from edgekd.run.plan import start_key
from edgekd.run.plan.make import make_plan
from edgekd.run.request import make_request
from edgekd.values.artifact import Artifact, sha256_of
from edgekd.values.candidate import Candidate
from edgekd.values.target import Target

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from dated import write_result  # noqa: E402
from peers import by_ai_edge_quantizer, by_onnxruntime  # noqa: E402


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


@dataclass(frozen=True)
class Student:
    """A seed's float student, its int8 files by edgekd, and what they are made and judged with."""

    floating: Candidate
    trained: dict[str, Artifact]
    target: Target
    samples: Any
    test: Samples


def student_of(recipe: Path, out: Path, seed: int) -> Student:
    """From the run's folder; what is missing there is made."""
    request = make_request(recipe, {"target": "x86", "out": out / f"seed-{seed}", "seed": seed})
    plan = make_plan(request)
    planned = plan.targets[0]
    staged = run_stages(plan, planned, lambda *_: None, start_key(plan))
    compiled = compile_candidate(plan, planned, staged, lambda *_: None).files
    trained = {each.artifact.format: each.artifact for each in compiled}
    floating = staged.floating
    return Student(floating, trained, planned.target, plan.calibration, plan.data.test)


ROUTES = (
    ("onnx", Onnx(), "onnxruntime.quantization.quantize_static", by_onnxruntime),
    ("tflite", Tflite(), "ai-edge-quantizer static_wi8_ai8", by_ai_edge_quantizer),
)


def files_of(student: Student, folder: Path, device: Any) -> dict[str, dict[str, Artifact]]:
    """Format -> the peer's file, ours by calibration alone, and ours by training."""
    candidate, target = student.floating, student.target
    scheme = target.quantization
    graph = calibrate(candidate.module, candidate.example, student.samples, scheme)
    calibrated = candidate.after(graph, "calibrated", "int8")
    found = {}
    for form, backend, _, by in ROUTES:
        places = {name: folder / form / name for name in ("float", "ours")}
        for place in places.values():
            place.mkdir(parents=True)
        table = target.backends[form]
        (float_file,) = backend.compile(candidate, target, table, places["float"])
        (ours,) = backend.compile(calibrated, target, table, places["ours"])
        path = folder / form / f"theirs.{form}"
        by(float_file.path, path, student.samples)
        peer = like(ours, path, device)
        found[form] = {"peer": peer, "calibrated": ours, "qat": student.trained[form]}
    return found


def right(device: Any, file: Artifact, student: Student) -> np.ndarray:
    """(N,) which test images a file has right."""
    _, outputs = evaluate_artifact(device, file, student.test, student.target.backends[file.format])
    return outputs.argmax(1) == student.test.y.numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=HERE.parent / "fashion_mnist/recipe.toml")
    parser.add_argument("--out", type=Path, default=Path("runs/fashion-mnist"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="short measurements of latency")
    options = parser.parse_args()
    device = open_device("host")
    hits: dict[tuple[str, str], list[np.ndarray]] = {}
    results = {form: {"format": form, "peer": peer} for form, _, peer, _ in ROUTES}
    for number, seed in enumerate(options.seeds):
        student = student_of(options.recipe, options.out, seed)
        with tempfile.TemporaryDirectory() as folder:
            for form, files in files_of(student, Path(folder), device).items():
                for name, file in files.items():
                    hits.setdefault((form, name), []).append(right(device, file, student))
                if number == 0:
                    table, sensors = student.target.backends[form], student.target.sensors
                    taken, _ = measure(
                        device, list(files.values()), table, sensors, quick=options.quick
                    )
                    ratios = [ratio(each, taken[0], device.name, device.kind) for each in taken[1:]]
                    results[form]["bytes"] = {name: file.bytes for name, file in files.items()}
                    results[form]["latency_over_peer"] = {
                        name: {"ratio": found.value, "ci": found.ci}
                        for name, found in zip(("calibrated", "qat"), ratios, strict=True)
                    }
    for form, result in results.items():
        whole = {name: np.concatenate(hits[form, name]) for name in ("peer", "calibrated", "qat")}
        result["accuracy"] = {
            name: [float(each.mean()) for each in hits[form, name]] for name in whole
        }
        result["points_below_peer"] = {
            name: {"value": found.value, "ci": found.ci}
            for name in ("calibrated", "qat")
            for found in [drop_measurement(whole["peer"], whole[name], device.name)]
        }
    device.close()
    write_result(
        __file__,
        {
            "what": "int8 files from the same float students; latency of ours over the peer's",
            "goal": "accuracy no worse, latency ratio at most 1.02",
            "seeds": options.seeds,
            "results": list(results.values()),
        },
    )


if __name__ == "__main__":
    main()
