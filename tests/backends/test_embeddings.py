"""Embeddings in int8 files: the table stays integers."""

from pathlib import Path

import torch
from litert_reference import by_litert
from torch import Tensor, nn

from edgekd.backends.tflite.convert import convert_artifact
from edgekd.formats.graph import float_islands
from edgekd.formats.tflite import read_tflite
from edgekd.quant.calibration import calibrate
from edgekd.quant.inspection import output_scale
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

WORDS, WIDTH = 5000, 16


class Bag(nn.Module):
    """The mean of the words' rows and positions, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.layer = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, 4)
        self.position = nn.Parameter(torch.randn(1, 6, WIDTH))

    def forward(self, ids: Tensor) -> Tensor:
        output: Tensor = self.layer((self.table(ids) + self.position).relu().mean(1))
        return output


def test_a_table_stays_integers_in_a_tflite_file(tmp_path: Path):
    target = load_target("raspberry-pi-4")
    module, ids = Bag().eval(), torch.randint(0, WORDS, (32, 6))
    quantized = calibrate(module, ids[:1], ids, target.quantization)
    candidate = Candidate(quantized, ids[:1], "int8")
    artifact = convert_artifact(candidate, target, (), tmp_path / "bag.tflite")
    graph = read_tflite(artifact.path)
    assert not float_islands(graph)
    assert "GATHER" in {op.op for op in graph.ops}
    assert WORDS * WIDTH < artifact.bytes < 1.2 * WORDS * WIDTH
    found = by_litert(artifact.path.read_bytes(), ids.int().numpy()).astype(float)
    scale, zero = output_scale(quantized), artifact.outputs[0].zero_point
    assert scale is not None
    assert zero is not None
    with torch.no_grad():
        expected = quantized(ids).numpy()
    assert abs((found - zero) * scale - expected).max() <= 1.01 * scale
