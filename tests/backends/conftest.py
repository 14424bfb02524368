"""Four small networks, calibrated once each, and the files made of them, compiled once each."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekd.backends import Backend
from edgekd.models.ds_cnn import ds_cnn
from edgekd.models.resnet import resnet8
from edgekd.models.sensor_cnn import sensor_cnn
from edgekd.models.transformer import transformer
from edgekd.values.artifact import Artifact
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet": (lambda: resnet8(channels=1, widths=(8, 16, 16)), (1, 8, 8)),
    "ds-cnn": (lambda: ds_cnn(classes=4, width=8, blocks=1, small_stem=True), (1, 8, 8)),
    "sensor": (lambda: sensor_cnn(classes=4, widths=(8, 8), kernels=(3, 3)), (3, 16)),
    "transformer": (lambda: transformer(8, classes=4, width=8, depth=1, heads=2), (1, 8, 8)),
}


def inputs_of(name: str) -> Tensor:
    """64 samples, the same ones in every process."""
    return torch.rand(64, *NETWORKS[name][1], generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def candidate() -> Callable[..., Candidate]:
    """Called as candidate("resnet", "int8"); int8 ones are calibrated in x86's scheme."""
    made: dict[tuple[str, str], Candidate] = {}

    def of(name: str, form: str = "int8") -> Candidate:
        if (name, form) not in made:
            made[name, form] = _candidate(name, form)
        return made[name, form]

    return of


def _candidate(name: str, form: str) -> Candidate:
    torch.set_num_threads(1)
    x = inputs_of(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = NETWORKS[name][0]()
        with torch.no_grad():
            for _ in range(4):  # the batch norms' statistics
                module(x)
    whole = Candidate(module.eval(), x[:1])
    if form == "float":
        return whole
    if form == "fp16":
        return whole.after(module, "quantize: fp16", "fp16")
    from edgekd.quant.calibration import calibrate

    graph = calibrate(module, x[:1], x[:16], load_target("x86").quantization)
    return whole.after(graph, "quantize: int8", "int8")


@pytest.fixture(scope="session")
def compiled(
    candidate: Callable[..., Candidate], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Artifact]:
    """Called as compiled(backend, "resnet", "int8"), or with another `copy` for one more file."""
    made: dict[tuple[str, str, str, int], Artifact] = {}

    def artifact(backend: Backend, name: str, form: str = "int8", copy: int = 0) -> Artifact:
        key = (type(backend).__name__, name, form, copy)
        if key not in made:
            folder: Path = tmp_path_factory.mktemp("-".join(map(str, key)))
            (made[key],) = backend.compile(candidate(name, form), load_target("x86"), {}, folder)
        return made[key]

    return artifact


@pytest.fixture
def quantized(tmp_path: Path) -> Callable[..., tuple[Artifact, Candidate]]:
    """Called as quantized(backend, module, "x86", x): the int8 file of a module calibrated on the
    samples `x`, and the candidate that it was made of."""

    def of(backend: Backend, module: nn.Module, name: str, x: Tensor) -> tuple[Artifact, Candidate]:
        from edgekd.quant.calibration import calibrate

        target = load_target(name)
        graph = calibrate(module, x[:1], x, target.quantization)
        whole = Candidate(module, x[:1]).after(graph, "quantize: int8", "int8")
        (artifact,) = backend.compile(whole, target, {}, tmp_path)
        return artifact, whole

    return of
