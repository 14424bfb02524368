"""TFLite files and C made of random networks, against the quantized graph."""

import tempfile
from pathlib import Path

import numpy as np
from checks import EIGHT_BITS, Case, require_parity
from litert_reference import by_litert
from torch import Tensor

from edgekd.backends.tflite.convert import convert_artifact
from edgekd.firmware import hosted
from edgekd.firmware.generate import generate
from edgekd.values.artifact import Artifact, TensorInfo
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target


def _file(case: Case) -> Artifact:
    """The network's TFLite file, in a folder that is gone together with the case."""
    if "tflite" not in case.made:
        folder = case.made["folder"] = tempfile.TemporaryDirectory()
        candidate = Candidate(case.int8, case.samples[:1], "int8")
        path = Path(folder.name) / "model.tflite"
        case.made["tflite"] = convert_artifact(candidate, load_target(EIGHT_BITS), (), path)
    return case.made["tflite"]


def tflite(case: Case) -> None:
    """LiteRT computes from the file what the quantized graph gives."""
    artifact = _file(case)
    given = _given(artifact, case.samples)
    found = by_litert(artifact.path.read_bytes(), given, reference=False)
    require_parity(case, case.int8, _floats(artifact, found, case), artifact)


def c(case: Case) -> None:
    """The C code that is made of the file does too."""
    artifact = _file(case)
    with tempfile.TemporaryDirectory() as folder:
        _, source = generate(artifact.path, arithmetic="litert").write(Path(folder))
        program = hosted.build(source, Path(folder), ("-O1", *hosted.SANITIZERS))
        found = hosted.run(program, _given(artifact, case.samples))
        require_parity(case, case.int8, _floats(artifact, found, case), artifact)


def _given(artifact: Artifact, samples: Tensor) -> np.ndarray:
    """(N, numbers) as the file takes them: channels last, on its grid."""
    x = samples.permute(0, 2, 3, 1) if samples.dim() == 4 else samples
    values = x.flatten(1).numpy()
    (entry,) = artifact.inputs
    if entry.dtype != "int8":
        return values
    assert entry.scale is not None
    steps = np.round(values / np.float32(entry.scale)) + (entry.zero_point or 0)
    return np.clip(steps, -128, 127).astype(np.int8)


def _floats(artifact: Artifact, found: np.ndarray, case: Case) -> np.ndarray:
    """What the file gives as floats in the shape of the module's output."""
    output: TensorInfo = artifact.outputs[0]
    if output.dtype == "int8":
        assert output.scale is not None
        found = (found.astype(np.float64) - (output.zero_point or 0)) * output.scale
    return found.reshape(case.expected.shape)
