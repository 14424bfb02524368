"""The Transformers of benchmarks/transformers from a checkpoint to a file, with less text and a
teacher that has learned a little."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_model

from edgekd.data import load_data
from edgekd.installed import has_module
from edgekd.network.load import load_network
from edgekd.run.compress import run_plan
from edgekd.run.plan.make import make_plan
from edgekd.run.request import make_request
from edgekd.training.context import Context
from edgekd.training.loop import fit_labels
from edgekd.training.teaching import Teaching
from edgekd.values.recipe import load_recipe
from edgekd.values.target import load_target

FOLDER = Path(__file__).parents[1] / "benchmarks/transformers"
TEXT = ("data.source=texts:topics", "data.arguments={most = 2, length = 16, test = 60}")
SHORT = ("calibration.samples=64", "data.limit=120")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_module("transformers"), reason="transformers is not installed"),
]


def module_of(name: str) -> Any:
    """A script of the folder, imported."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a BERT after an epoch."""
    folder = tmp_path_factory.mktemp("teacher")
    recipe = load_recipe(FOLDER / "distilbert.toml")
    table = recipe.data.model_copy(
        update={"source": "texts:topics", "arguments": {"most": 2, "length": 16, "test": 60},
                "limit": None}
    )  # fmt: skip
    data = load_data(table, recipe.folder)
    torch.manual_seed(0)
    untrained = recipe.model.model_copy(update={"weights": None})
    module = load_network(untrained, recipe.folder, "model")
    teaching = Teaching(epochs=1, batch_size=32, learning_rate=1e-3)
    fit_labels(module, Context(load_target("x86"), data, [], folder / "work", teaching))
    save_model(module, str(folder / "teacher.safetensors"))
    return folder / "teacher.safetensors"


@pytest.mark.parametrize("name", ["distilbert", "tinybert", "minilm", "movement"])
def test_a_bert_goes_from_its_checkpoint_to_an_int8_file(name, teacher, tmp_path):
    kind = "prune" if name == "movement" else "distill"
    settings = [*TEXT, *SHORT, f"stage.{kind}.epochs=1", f"model.weights={teacher}"]
    if name == "distilbert":
        settings.append(f"student.weights={teacher}")
    changes = {"target": "x86", "backends": ("onnx",), "out": tmp_path / "out", "quick": True,
               "settings": settings}  # fmt: skip
    plan = make_plan(make_request(FOLDER / f"{name}.toml", changes))
    (target,) = run_plan(plan, lambda *_: None).targets
    (artifact,) = target.artifacts
    assert artifact.precision == "int8"
    assert artifact.parity is not None
    assert artifact.parity.verdict == "pass", artifact.parity
    assert target.baseline is not None
    assert artifact.bytes < target.baseline.bytes / 3


def test_a_step_with_a_cache_computes_what_the_whole_text_does():
    cached = module_of("cached")
    torch.manual_seed(0)
    network = cached.step(n_embd=16, n_layer=2, n_head=2).eval()
    tokens = torch.randint(0, 37, (3, 32))
    cache, found = cached.empty_cache(network.model.config, 3), []
    with torch.no_grad():
        for place in range(32):
            outputs = network(tokens[:, place : place + 1], torch.full((3, 1), place), **cache)
            cache = {name: outputs[name] for name in cache}
            found.append(outputs["logits"])
        expected = network.model(tokens).logits
    assert torch.allclose(torch.stack(found, 1), expected, atol=1e-5)
