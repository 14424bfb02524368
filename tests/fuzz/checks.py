"""What is required of every random network: all of it is compared with the module in PyTorch."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from programs import Source
from rounding import rounded, snr
from torch import Tensor, fx, nn

from edgekd.backends.onnx.export import export_artifact
from edgekd.measure.divergence import divergence_of
from edgekd.measure.parity import compare, rounding_adds_up
from edgekd.measure.rounding import is_rounding, spread_of
from edgekd.quant.calibration import calibrate
from edgekd.quant.export import export_graph
from edgekd.quant.inspection import output_scale
from edgekd.quant.qat import finish_qat, freeze_ranges, prepare_qat
from edgekd.run.proof.parity_check import TOLERANCE, TOLERANCE_OF_LAYERS
from edgekd.values.artifact import Artifact
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

EXACT = 1e-4
"""How far float outputs may differ, as a share of the largest."""

MARGIN_DB = 12.0
"""How much more a quantized graph may lose than rounding every value on a grid of its own does:
concatenations and pools share grids, biases and averages are rounded once more."""

ENOUGH_DB = 30.0
"""A graph that is this close to the module is not wrong, whatever rounding alone would cost."""

X86, EIGHT_BITS = "x86", "raspberry-pi-4"


class Wrong(AssertionError):
    """A network gives something else than the module does."""


class RoundingOnly(Exception):
    """A file is beyond the tolerance at its end, though each of its layers is within it and random
    steps of one in the layers move the outputs as far. Parity passes such files in a run too."""


@dataclass
class Case:
    """A network, and what several checks need of it."""

    program: Source
    made: dict[str, Any] = field(default_factory=dict)
    """What one check has made of the network that another one needs too."""

    @cached_property
    def module(self) -> nn.Module:
        return self.program.network()

    @cached_property
    def samples(self) -> Tensor:
        """(16, ...) copies of these go to networks, which may change them."""
        return self.program.samples(16)

    @cached_property
    def expected(self) -> Tensor:
        return outputs(self.module, self.samples)

    @cached_property
    def graph(self) -> fx.GraphModule:
        return export_graph(self.module, self.samples[:1])

    @cached_property
    def x86(self) -> fx.GraphModule:
        return self.calibrated(X86)

    @cached_property
    def int8(self) -> fx.GraphModule:
        return self.calibrated(EIGHT_BITS)

    def calibrated(self, target: str) -> fx.GraphModule:
        scheme = load_target(target).quantization
        return calibrate(self.module, self.samples[:1], self.samples.clone(), scheme)


def outputs(module: nn.Module, samples: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = module(samples.clone())
    return found


def require_equal(found: Tensor, expected: Tensor, what: str) -> None:
    if found.shape != expected.shape:
        raise Wrong(f"{what}: {tuple(found.shape)} instead of {tuple(expected.shape)}")
    largest = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    difference = float((found - expected).abs().max() / largest)
    if not difference <= EXACT:
        raise Wrong(f"{what}: {difference:.1e} of the largest output apart")


def export(case: Case) -> None:
    """The exported float graph gives what the module gives, and the module is left as it was."""
    before = case.expected
    require_equal(outputs(case.graph, case.samples), before, "the exported graph")
    require_equal(outputs(case.module, case.samples), before, "the module after its export")


def _close(case: Case, quantized: fx.GraphModule, target: str, what: str) -> None:
    found = snr(case.expected, outputs(quantized, case.samples))
    bits = load_target(target).quantization.weight_bits
    alone = rounded(case.graph, case.samples, bits)
    if not alone.isfinite().all():  # a small divisor or the argument of a logarithm became 0
        raise RoundingOnly(f"{what}: {found:.1f} dB, where rounding alone gives no numbers")
    allowed = snr(case.expected, alone) - MARGIN_DB
    if not found >= min(allowed, ENOUGH_DB):
        raise Wrong(
            f"{what}: {found:.1f} dB, where rounding alone allows {allowed + MARGIN_DB:.1f}"
        )


def ptq(case: Case) -> None:
    """The graph with 7-bit weights loses what its bits cost."""
    _close(case, case.x86, X86, "calibrated for x86")


def ptq8(case: Case) -> None:
    """The same with 8-bit weights."""
    _close(case, case.int8, EIGHT_BITS, f"calibrated for {EIGHT_BITS}")


def onnx(case: Case) -> None:
    """ONNX Runtime computes from the file what the quantized graph gives."""
    with tempfile.TemporaryDirectory() as folder:
        candidate = Candidate(case.x86, case.samples[:1], "int8")
        artifact = export_artifact(candidate, load_target(X86), (), Path(folder) / "model.onnx")
        require_parity(case, case.x86, _by_onnxruntime(artifact, case.samples), artifact)


def half(case: Case) -> None:
    """An ONNX file in half precision computes what the module does."""
    with tempfile.TemporaryDirectory() as folder:
        candidate = Candidate(case.module, case.samples[:1], "fp16")
        artifact = export_artifact(candidate, load_target(X86), (), Path(folder) / "model.onnx")
        found = torch.tensor(_by_onnxruntime(artifact, case.samples))
    difference = float((found - case.expected).abs().max() / case.expected.abs().max())
    if found.dtype != torch.float32 or not difference <= TOLERANCE["fp16"]:
        raise Wrong(f"in half precision: {difference:.1e} of the largest output apart")


def _by_onnxruntime(artifact: Artifact, samples: Tensor) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(artifact.path), options, ["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": samples.numpy()})
    outputs: np.ndarray = found
    return outputs


def require_parity(
    case: Case, graph: fx.GraphModule, found: np.ndarray, artifact: Artifact
) -> None:
    """The verdict that a run gives: the file's outputs are within its target's tolerance, or no
    layer strays and rounding explains what adds up."""
    samples = case.samples
    scale = output_scale(graph)
    tolerance = (
        load_target(artifact.target).quantization.tolerance_lsb if scale else TOLERANCE["int8"]
    )
    expected = outputs(graph, samples)
    parity = compare(expected, found, scale, tolerance)
    if parity.verdict == "pass":
        return
    most = f"{parity.max_lsb} LSB" if scale else f"{parity.max_relative} of the largest"
    worst = samples[parity.worst_sample : parity.worst_sample + 1]
    divergence = divergence_of(graph, artifact, worst, TOLERANCE_OF_LAYERS)
    words = f"{artifact.format}: {most} from the quantized graph; {divergence.sentence}"
    if divergence.clean and (
        rounding_adds_up(parity, expected, found)
        or is_rounding(spread_of(graph, divergence.shares, samples, 0), expected.numpy(), found)
    ):
        raise RoundingOnly(words)
    raise Wrong(words)


def qat(case: Case) -> None:
    """One step of training with fake quantization, and then the finished graph."""
    scheme = load_target(EIGHT_BITS).quantization
    graph = prepare_qat(case.module, case.samples[:1], case.samples.clone(), scheme)
    if not list(graph.parameters()):
        return
    optimizer = torch.optim.SGD(graph.parameters(), lr=1e-6)
    graph.train()
    loss = (graph(case.samples.clone()) - case.expected).square().mean()
    loss.backward()
    if not all(bool(p.grad.isfinite().all()) for p in graph.parameters() if p.grad is not None):
        raise Wrong("QAT: gradients that are not finite")
    optimizer.step()
    freeze_ranges(graph)
    _close(case, finish_qat(graph, case.samples[:1]), EIGHT_BITS, "after a step of QAT")


Check = Callable[[Case], None]
