"""A run whose teacher's own file is wrong fails, and says so, whatever the other files are."""

import numpy as np
import pytest
import torch

from edgekd.backends.onnx import export
from edgekd.quant.constants import constant_of
from edgekd.quant.export import export_graph
from edgekd.run.proof import parity_check

RECIPE = """
[model]
factory = "edgekd.models.resnet:resnet8"
arguments = { channels = 1, widths = [8, 8, 8] }
[student]
factory = "edgekd.models.resnet:resnet8"
arguments = { channels = 1, widths = [8, 8, 16] }
[data]
source = "few.npz"
"""


def spoilt(module, example, *rest, **keys):
    """The graph of the teacher (8, 8, 8) with a bias overwritten; that of others as it is."""
    graph = export_graph(module, example, *rest, **keys)
    if module.classifier.in_features == 8:
        layer = next(
            node for node in graph.graph.nodes if str(node.target) == "aten.conv2d.default"
        )
        with torch.no_grad():
            constant_of(graph, layer.args[2]).fill_(2.0)
    return graph


@pytest.mark.slow
def test_a_run_fails_by_the_teachers_file_alone(tmp_path, monkeypatch, edgekd):
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(export, "export_graph", spoilt)
    monkeypatch.setattr(parity_check, "export_graph", spoilt)
    y = np.arange(20) % 10
    x = np.random.default_rng(0).random((20, 1, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "few.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (tmp_path / "r.toml").write_text(RECIPE)
    arguments = ("--target", "x86", "--backend", "onnx", "--out", tmp_path / "out", "--quick")
    arguments += ("--budget", "accuracy_drop=99")
    code, shown, told = edgekd("compress", tmp_path / "r.toml", *arguments)
    assert code == 1, told
    assert "verdict: fail" in shown
    (line,) = [line for line in told.splitlines() if line.startswith("error:")]
    assert "x86: teacher.onnx: the teacher's own file is wrong" in line
    assert "at layer 'stem.0'" in line
    assert "no training mends it" in line
