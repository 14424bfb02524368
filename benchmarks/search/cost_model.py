"""Predicted against measured latency of 30 networks that the table of operators has not seen.

Networks of timm, torchvision and widths of edgekd's own are compiled for ONNX Runtime on x86 and
timed, whole and by operator. The model learns from one list and predicts the other: every network
of the second list is another architecture than those of the first, or has another width, depth or
resolution. The second list is measured twice, whole: no prediction can come closer than the second
measurement of a file comes to the first.

    python benchmarks/search/cost_model.py
"""

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from edgekd.devices.opening import open_device
from edgekd.formats.onnx_file import read_onnx
from edgekd.formats.onnx_shapes import with_shapes
from edgekd.measure.cost_model import fit_cost_model
from edgekd.measure.operator_costs import MeasuredFile, measured_file
from edgekd.registry import BACKENDS
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
from cost_networks import network  # noqa: E402
from dated import write_result  # noqa: E402

NN_METER = (
    "its README (github.com/microsoft/nn-Meter), of 26,000 models within 10 %: 99.0 % on a mobile "
    "CPU, 99.1 % and 99.0 % on Adreno 640 and 630, 83.4 % on an Intel VPU; cited, not run here"
)

TRAIN = [
    "timm:resnet10t 64", "timm:resnet14t 96", "timm:resnet18 64", "timm:resnet26 96",
    "timm:resnet50 64", "timm:mobilenetv2_050 96", "timm:mobilenetv2_100 64",
    "timm:mobilenetv2_140 96", "timm:mobilenetv3_small_050 128", "timm:mobilenetv3_large_100 96",
    "timm:efficientnet_lite0 64", "timm:regnetx_002 96", "timm:regnety_002 128",
    "timm:ghostnet_050 128", "timm:lcnet_050 128", "timm:vgg11 64", "vision:squeezenet1_0 96",
    "vision:shufflenet_v2_x0_5 96", "own:resnet8 16", "own:mobilenet_v1 0.25", "own:ds_cnn 64",
]  # fmt: skip
HELD_OUT = [
    "timm:resnet18 96", "timm:resnet18d 64", "timm:resnet26d 64", "timm:resnet34 64",
    "timm:resnet32ts 64", "timm:mobilenetv2_110d 64", "timm:mobilenetv2_050 128",
    "timm:mobilenetv3_small_075 96", "timm:mobilenetv3_large_075 64", "timm:efficientnet_lite1 64",
    "timm:efficientnet_es 64", "timm:mnasnet_100 64", "timm:regnetx_006 64", "timm:regnety_004 64",
    "timm:repvgg_a1 64", "timm:ghostnet_100 96", "timm:semnasnet_100 64", "timm:lcnet_100 96",
    "timm:tinynet_d 96", "timm:mobilenetv4_conv_small 96", "timm:hardcorenas_c 64",
    "timm:dla34 64", "timm:rexnet_130 64", "timm:vgg13 64", "vision:squeezenet1_1 96",
    "vision:shufflenet_v2_x1_0 96", "own:resnet8 24", "own:resnet14 32", "own:mobilenet_v1 0.35",
    "own:ds_cnn 96",
]  # fmt: skip
"""The source, the name, and the side of the image or, of edgekd's own, the width."""

LEAST_RUNS, WARM_UP, SECONDS = 60, 20, 1.5


def measured(name: str, work: Path, again: str = "") -> MeasuredFile:
    """A network's operators with their times; kept in `work`, a second measurement by itself."""
    kept = work / f"{name.replace(':', '-').replace(' ', '-')}{again}.json"
    if kept.is_file():
        return MeasuredFile.model_validate_json(kept.read_text())
    torch.manual_seed(0)
    module, x = network(name)
    target = load_target("x86")
    options = target.backends["onnx"]
    with tempfile.TemporaryDirectory() as folder, closing(open_device("host")) as host:
        backend: Any = BACKENDS.get("onnx").make()
        candidate = Candidate(module.eval(), x)
        (artifact,) = backend.compile(candidate, target, options, Path(folder))
        profiled = host.profile(artifact, options, quick=True)
        whole_us = inference_us(artifact.path, x.numpy())
        graph = with_shapes(read_onnx(artifact.path), artifact.path)
        found = measured_file(artifact.sha256, graph, profiled, "onnxruntime", whole_us)
    kept.write_text(found.model_dump_json())
    return found


def inference_us(path: Path, x: np.ndarray) -> float:
    """The median of the processor's time for one inference in one thread: unlike the time on the
    clock, other processes on the machine do not add theirs to it."""
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(path), session_options, providers=["CPUExecutionProvider"]
    )
    inputs = {session.get_inputs()[0].name: x}
    times = []
    begun = time.monotonic()
    while len(times) < LEAST_RUNS or time.monotonic() - begun < SECONDS:
        start = time.thread_time_ns()
        session.run(None, inputs)
        times.append(time.thread_time_ns() - start)
    return statistics.median(times[WARM_UP:]) / 1e3


def summary(errors: dict[str, float]) -> dict[str, float]:
    """The median of the errors' sizes, and the shares of networks within 10 and 20 %."""
    sizes = [abs(error) for error in errors.values()]
    return {
        "median_error": statistics.median(sizes),
        "within_10_percent": sum(size <= 0.1 for size in sizes) / len(sizes),
        "within_20_percent": sum(size <= 0.2 for size in sizes) / len(sizes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="Keep the measurements in this folder.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgekd-cost-") as folder:
        work = given.work or Path(folder)
        known = [measured(name, work) for name in TRAIN]
        asked = {name: measured(name, work) for name in HELD_OUT}
        repeated = {name: measured(name, work, ".again") for name in HELD_OUT}
    model = fit_cost_model(known)
    predicted = {name: model.predict(file.operators) for name, file in asked.items()}
    errors = {name: predicted[name] / file.whole - 1.0 for name, file in asked.items()}
    rows = {
        name: {
            "measured_us": asked[name].whole,
            "predicted_us": predicted[name],
            "error": errors[name],
        }
        for name in HELD_OUT
    }
    floor = {name: repeated[name].whole / file.whole - 1.0 for name, file in asked.items()}
    left_out = summary({str(number): error for number, error in enumerate(model.errors)})
    write_result(
        __file__,
        {
            "networks": {"known": len(known), "held_out": len(asked)},
            "measured": "processor time of one thread, ONNX Runtime, float32; other work ran too",
            "model": model.name,
            "held_out": summary(errors),
            "second_measurement_of_the_same_files": summary(floor),
            "left_out_of_the_known": left_out,
            "nn_meter": NN_METER,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
