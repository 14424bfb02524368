"""Every way of pruning, factorizing, quantizing and clustering, from a recipe to a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from contexts import context
from safetensors.torch import save_file

from edgekd.data.load import load_data
from edgekd.errors import EdgekdError
from edgekd.models.resnet import resnet8
from edgekd.network.evaluation import evaluate
from edgekd.run.compiling import compile_candidate
from edgekd.run.pipeline import run_stages
from edgekd.run.plan import Plan, start_key
from edgekd.run.plan.make import make_plan
from edgekd.run.request import make_request
from edgekd.training.loop import fit_labels
from edgekd.training.teaching import Teaching
from edgekd.values.artifact import Artifact
from edgekd.values.recipe import DataTable

torch.set_num_threads(1)

TARGET: dict[str, Any] = {
    "name": "small",
    "title": "Small",
    "summary": "Any x86-64 processor, ONNX Runtime only",
    "channel_multiple": 4,
    "hardware": {
        "architecture": "x86_64", "cpu": "any", "cores": 2, "memory_bytes": 1_000_000_000},
    "quantization": {"activations": "uint8-affine", "weight_bits": 7},
    "backends": {"onnx": {"threads": 1}},
}  # fmt: skip
WIDTHS = [8, 16, 16]
SHORT = {"epochs": 1, "batch_size": 32, "learning_rate": 1e-3}
DATA = {"source": "digits", "limit": 640}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained network's."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    module = resnet8(channels=1, widths=tuple(WIDTHS))
    training = Teaching(epochs=6, batch_size=32, learning_rate=3e-3)
    data = load_data(DataTable(**DATA), Path())
    fit_labels(module, context(training, data=data, work=folder))
    save_file(module.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors"


def plan_of(folder: Path, weights: Path, *stages: dict[str, Any], **changes: Any) -> Plan:
    recipe = {
        "model": {
            "factory": "edgekd.models.resnet:resnet8",
            "arguments": {"channels": 1, "widths": WIDTHS},
            "weights": str(weights),
        },
        "data": DATA,
        "calibration": {"samples": 64},
        "stages": list(stages),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(tomli_w.dumps(recipe))
    (folder / "small.toml").write_text(tomli_w.dumps({**TARGET, **changes}))
    request = make_request(
        folder / "recipe.toml", {"target": folder / "small.toml", "out": folder / "out"}
    )
    return make_plan(request)


def accuracy(artifact: Artifact, plan: Plan) -> float:
    """Of the file itself, on the whole test set."""
    import onnxruntime

    session = onnxruntime.InferenceSession(artifact.path)
    x, y = plan.data.test.x.numpy(), plan.data.test.y.numpy()
    return float((session.run(None, {"input": x})[0].argmax(1) == y).mean())


def quantize(**keys: Any) -> dict[str, Any]:
    return {"kind": "quantize", **(SHORT if keys.get("method", "calibrate") != "calibrate" else {}),
            **keys}  # fmt: skip


PRUNE = {"kind": "prune", **SHORT}
CASES: dict[str, tuple[dict[str, Any], str, float]] = {
    "channels of movement": (
        {**PRUNE, "criterion": "movement", "amount": 0.3, "epochs": 3}, "fp32", 0.7),
    "blocks": (
        {**PRUNE, "granularity": "blocks", "criterion": "taylor", "amount": 0.6,
         "allocation": "global"}, "fp32", 0.75),
    "weight blocks": (
        {**PRUNE, "granularity": "4x4", "amount": 0.3, "ignore": ["stem", "classifier"]},
        "fp32", 0.8),
    "rank by sensitivity": (
        {"kind": "factorize", **SHORT, "rank": {"sensitivity": 0.02}}, "fp32", 0.8),
    "bf16": (quantize(dtype="bf16"), "bf16", 0.85),
    "int4 rounded": (quantize(dtype="int4"), "int4", 0.8),
    "int4 trained": (quantize(dtype="int4", method="qat"), "int4", 0.8),
    "int4 lsq": (quantize(dtype="int4", method="lsq"), "int4", 0.8),
    "int4 mixed": (
        quantize(dtype="int4", mixed={"layers": 3}), "mixed", 0.9),
    "ternary": (quantize(dtype="ternary", method="qat", group=0, ignore=["stem"]), "ternary", 0.7),
    "binary": (quantize(dtype="binary", method="qat", mixed={"layers": 4}), "mixed", 0.6),
    "int8 lsq": (quantize(method="lsq"), "int8", 0.9),
    "int8 pact": (quantize(method="pact"), "int8", 0.9),
    "int8 mixed": (quantize(mixed={"layers": 2}), "int8", 0.9),
    "cluster": ({"kind": "cluster", **SHORT, "bits": 4}, "clustered", 0.9),
    "shrink": ({"kind": "shrink", **SHORT, "weights_kb": 4.0}, "int4", 0.8),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_a_recipe_ends_in_a_file_that_computes_what_was_trained(
    name: str, weights: Path, tmp_path: Path
) -> None:
    stage, precision, least = CASES[name]
    plan = plan_of(tmp_path, weights, stage)
    (planned,) = plan.targets
    staged = run_stages(plan, planned, lambda *_: None, start_key(plan))
    files = compile_candidate(plan, planned, staged, lambda *_: None).files
    made = [each.artifact for each in files]
    artifact = made[0]
    found = accuracy(artifact, plan)
    reference = evaluate(staged.candidate.module, plan.data.test)
    assert artifact.precision == precision
    assert found >= least
    assert abs(found - reference) <= 0.01
    assert staged.reports[-1].accuracy == pytest.approx(reference)
    whole = sum(value.nbytes for value in plan.start.module.parameters())
    if precision in ("bf16", "int4", "ternary", "clustered"):
        assert any(note.startswith("weights in the file:") for note in artifact.notes)
        assert staged.reports[-1].bytes < 0.6 * whole
        assert artifact.bytes < 0.75 * whole + 40_000  # the graph itself
    if name == "int8 mixed":
        assert sum("computed in float: aten." in note for note in artifact.notes) == 2
    # The second run reuses the stage and gives the same file.
    again = plan_of(tmp_path, weights, stage).targets[0]
    assert all(each.cached for each in again.stages)


@pytest.mark.long
def test_deep_compression_gives_its_file_back_bit_for_bit(weights: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from edgekd.cli import app

    zeros = {**PRUNE, "granularity": "weights", "criterion": "magnitude-l1", "amount": 0.6,
             "epochs": 6, "learning_rate": 3e-3}  # fmt: skip
    plan = plan_of(tmp_path, weights, zeros, {"kind": "cluster", **SHORT, "bits": 4})
    (planned,) = plan.targets
    staged = run_stages(plan, planned, lambda *_: None, start_key(plan))
    onnx, coded = (
        each.artifact for each in compile_candidate(plan, planned, staged, lambda *_: None).files
    )
    assert (coded.format, coded.runtime) == ("onnx-huffman", "huffman")
    assert coded.bytes == coded.path.stat().st_size
    assert coded.facts["ratio_to_onnx"] == pytest.approx(onnx.bytes / coded.bytes, abs=1e-3)
    assert float(coded.facts["bits_per_weight"]) < 3.0
    assert float(coded.facts["ratio_to_fp32"]) > 6.0
    result = CliRunner().invoke(app, ["unpack", str(coded.path), "--out", str(tmp_path / "a.onnx")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a.onnx").read_bytes() == onnx.path.read_bytes()
    assert accuracy(onnx, plan) > 0.9
    import onnx as library

    model = library.load(onnx.path)
    index = [library.numpy_helper.to_array(t) for t in model.graph.initializer
             if t.name.endswith("_index")]  # fmt: skip
    zero = sum(int((each == 0).sum()) for each in index) / sum(each.size for each in index)
    assert zero == pytest.approx(0.6, abs=0.01)
    assert all(np.unique(each).size <= 16 for each in index)


REFUSED: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "bf16 doesn't support the method 'qat' (allowed: calibrate)": (
        [quantize(dtype="bf16", method="qat")], {}),
    "ternary doesn't support the method 'lsq' (allowed: calibrate, qat)": (
        [quantize(dtype="ternary", method="lsq")], {}),
    "int4 doesn't support the method 'pact'": ([quantize(dtype="int4", method="pact")], {}),
    "'int8' is not wider than int8 (allowed: float)": (
        [quantize(mixed={"wide": "int8", "layers": 1})], {}),
    "10 wide layers of 10 leave none for int8 (allowed: 1 to 9)": (
        [quantize(mixed={"layers": 10})], {}),
    "fp16 doesn't support mixed precision": ([quantize(dtype="fp16", mixed={"layers": 1})], {}),
    "give one of 'accuracy_drop', 'layers' and 'weights_kb'": ([quantize(mixed={})], {}),
    "there is no layer 'stem.O' with weights": ([quantize(ignore=["stem.O"])], {}),
    "every layer is ignored": ([quantize(ignore=["stem", "stages", "classifier"])], {}),
    "no backend of small stores int4 weights (tflite): it would only be a simulation": (
        [quantize(dtype="int4")], {"backends": {"tflite": {}}}),
    "no backend of small stores shared weights (tflite)": (
        [{"kind": "cluster", **SHORT}], {"backends": {"tflite": {}}}),
    "'quantize' after 'cluster': a model with shared weights can't be changed further": (
        [{"kind": "cluster", **SHORT}, quantize()], {}),
    "Input should be less than or equal to 8": ([{"kind": "cluster", **SHORT, "bits": 9}], {}),
}  # fmt: skip


@pytest.mark.long  # each plan exports the network
@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_work_is_refused_by_the_plan(
    message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, changes = REFUSED[message]
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    save_file(resnet8(channels=1, widths=tuple(WIDTHS)).state_dict(), path)
    with pytest.raises(EdgekdError) as caught:
        plan_of(tmp_path / "run", path, *stages, **changes)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2
