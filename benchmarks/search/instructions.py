"""Predicted against counted instructions of networks on an emulated Cortex-M.

Networks of timm, torchvision, MLPerf Tiny and widths of edgekd's own become int8 TFLite files; the
instructions of the C that is generated from each are counted on the emulated processor. The model
learns from one list and predicts the other: every network of the second list is another
architecture than those of the first, or has another width or resolution.

    python benchmarks/search/instructions.py --work FOLDER
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.backends.tflite import Tflite
from edgekd.benchmark.files import Wanted, loaded_files
from edgekd.devices.opening import open_device
from edgekd.errors import EdgekdError
from edgekd.measure.cost_model import fit_cost_model
from edgekd.measure.cost_table import graph_with_shapes
from edgekd.measure.operator_costs import MeasuredFile, measured_file
from edgekd.quant.calibration import calibrate
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE), str(HERE.parent / "mlperf_tiny")]
from cost_networks import network  # noqa: E402
from dated import write_result  # noqa: E402
from networks import write_tflite  # noqa: E402

TARGET = load_target("cortex-m4")

KNOWN = [
    "own:resnet8 12", "own:resnet8 24", "own:resnet14 8", "own:ds_cnn 48", "own:ds_cnn 96",
    "own:mobilenet_v1 0.2", "own:mobilenet_v1 0.5", "own:mobilenet_v2 0.35",
    "own:mobilenet_v2 0.75", "timm:mobilenetv2_035 64", "timm:mobilenetv2_075 48",
    "timm:mobilenetv3_small_050 64", "timm:lcnet_035 64", "timm:lcnet_075 48",
    "timm:mnasnet_050 64", "timm:tinynet_d 64", "timm:test_byobnet 64", "timm:ghostnet_050 48",
    "timm:regnety_002 48", "vision:squeezenet1_0 48",
]  # fmt: skip
HELD_OUT = [
    "tiny:resnet8", "tiny:ds_cnn", "tiny:mobilenet_v1", "tiny:autoencoder", "own:resnet8 20",
    "own:resnet14 28", "timm:mobilenetv2_035 144", "timm:mobilenetv2_050 64",
    "timm:mobilenetv2_100 48",
    "timm:mobilenetv2_100 96", "timm:mobilenetv3_small_050 96", "timm:mobilenetv3_small_075 64",
    "timm:mobilenetv3_small_100 48", "timm:mobilenetv3_large_075 48",
    "timm:mobilenetv4_conv_small_035 64", "timm:mobilenetv4_conv_small_050 48",
    "timm:mobilenetv4_conv_small 32", "timm:mobilenetv1_100 32", "timm:lcnet_050 64",
    "timm:lcnet_100 64", "timm:mnasnet_small 64", "timm:mnasnet_small 96", "timm:mnasnet_075 48",
    "timm:semnasnet_050 64", "timm:semnasnet_075 48", "timm:spnasnet_100 32", "timm:tinynet_e 64",
    "timm:tinynet_c 64", "timm:repghostnet_050 64", "timm:regnetx_002 48",
]  # fmt: skip
"""The source, the name, and the side of the image or, of edgekd's own, the width."""

CALIBRATION = 4


def file_of(name: str, work: Path) -> Path:
    """A network's int8 TFLite file, kept in `work`."""
    path = work / f"{name.replace(':', '-').replace(' ', '-')}.tflite"
    if path.is_file():
        return path
    if name.startswith("tiny:"):
        made = write_tflite(name.removeprefix("tiny:"), work)
        return made.replace(path)
    torch.manual_seed(0)
    module, x = network(name)
    samples = torch.rand(CALIBRATION, *x.shape[1:])
    settle(module, samples)
    whole = Candidate(module.eval(), samples[:1])
    graph = calibrate(module, samples[:1], samples, TARGET.quantization)
    with tempfile.TemporaryDirectory() as folder:
        quantized = whole.after(graph, "quantize: int8", "int8")
        (artifact,) = Tflite().compile(quantized, TARGET, {}, Path(folder))
        shutil.move(artifact.path, path)
    return path


def settle(module: nn.Module, samples: Tensor) -> None:
    """Give batch norms the statistics of these samples."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        module.train()(samples)


def counted(name: str, work: Path) -> MeasuredFile:
    """A network's operators with their instructions, kept in `work`."""
    path = file_of(name, work)
    kept = path.with_suffix(".json")
    if kept.is_file():
        return MeasuredFile.model_validate_json(kept.read_text())
    with closing(open_device("cortex-m://cortex-m4")) as device:
        (loaded,) = loaded_files([path], TARGET, device, Wanted())
        profiled = device.profile(loaded.artifact, loaded.options, quick=True)
    artifact = loaded.artifact
    found = measured_file(artifact.sha256, graph_with_shapes(path), profiled, artifact.runtime)
    kept.write_text(found.model_dump_json())
    return found


def all_counted(names: list[str], work: Path) -> tuple[dict[str, MeasuredFile], dict[str, str]]:
    """The files of networks, and why others have none."""
    files, refused = {}, {}
    for name in names:
        try:
            files[name] = counted(name, work)
        except EdgekdError as error:
            refused[name] = error.faults[0].message
        print(name, files[name].whole if name in files else refused[name], file=sys.stderr)
    return files, refused


def summary(errors: list[float]) -> dict[str, float]:
    sizes = sorted(map(abs, errors))
    within = {f"within_{limit}_percent": sum(s <= limit / 100 for s in sizes) / len(sizes)
              for limit in (1, 3, 10)}  # fmt: skip
    return {"median_error": statistics.median(sizes), "largest_error": sizes[-1], **within}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="Keep files and counts in this folder.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgekd-instructions-") as folder:
        work = given.work or Path(folder)
        known, refused = all_counted(KNOWN, work)
        asked, others = all_counted(HELD_OUT, work)
    started = time.perf_counter()
    model = fit_cost_model(list(known.values()))
    fitted = time.perf_counter() - started
    predicted = {name: model.predict(file.operators) for name, file in asked.items()}
    errors = {name: predicted[name] / file.whole - 1.0 for name, file in asked.items()}
    rows: dict[str, Any] = {
        name: {"counted": file.whole, "predicted": predicted[name], "error": errors[name]}
        for name, file in asked.items()
    }
    write_result(
        __file__,
        {
            "processor": "cortex-m4, QEMU mps2-an386: instructions, not cycles",
            "networks": {"known": len(known), "held_out": len(asked)},
            "not_made": {**refused, **others},
            "model": model.name,
            "fit_seconds": fitted,
            "held_out": summary(list(errors.values())),
            "left_out_of_the_known": summary(list(model.errors)),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
