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


def taught(recipe_name: str, data_table: dict[str, Any], folder: Path, **changes: Any) -> Path:
    """The weights of a recipe's teacher after a little training on other data."""
    recipe = load_recipe(FOLDER / f"{recipe_name}.toml")
    table = recipe.data.model_copy(update={**data_table, "limit": None})
    data = load_data(table, recipe.folder)
    torch.manual_seed(0)
    untrained = recipe.model.model_copy(update={"weights": None})
    module = load_network(untrained, recipe.folder, "model")
    teaching = Teaching(**{"epochs": 1, "batch_size": 32, "learning_rate": 1e-3, **changes})
    fit_labels(module, Context(load_target("x86"), data, [], folder / "work", teaching))
    save_model(module, str(folder / "teacher.safetensors"))
    return folder / "teacher.safetensors"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a BERT after an epoch."""
    arguments = {"most": 2, "length": 16, "test": 60}
    table = {"source": "texts:topics", "arguments": arguments}
    return taught("distilbert", table, tmp_path_factory.mktemp("teacher"))


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


def test_a_whisper_goes_from_its_checkpoint_to_int8_files_that_write(tmp_path):
    """Its student keeps the encoder and learns what the teacher writes, here of one digit."""
    arguments = {"train": 400, "test": 40, "most": 1}
    table = {"source": "speech:dialled", "arguments": arguments}
    weights = taught("whisper", table, tmp_path, epochs=6, batch_size=16, learning_rate=3e-3)
    settings = ["data.source=speech:dialled", "data.arguments={train = 400, test = 40, most = 1}",
                "stage.distill.epochs=2", "stage.distill.batch_size=16",
                f"model.weights={weights}", f"student.weights={weights}",
                "calibration.samples=64"]  # fmt: skip
    changes = {"target": "x86", "backends": ("onnx", "tflite"), "out": tmp_path / "out",
               "quick": True, "settings": settings}  # fmt: skip
    plan = make_plan(make_request(FOLDER / "whisper.toml", changes))
    (target,) = run_plan(plan, lambda *_: None).targets
    assert {each.format for each in target.artifacts} == {"onnx", "tflite"}
    for file in target.artifacts:
        assert file.precision == "int8"
        assert file.parity is not None
        assert file.parity.verdict == "pass", file.parity
        assert target.baseline is not None
        assert file.bytes < target.baseline.bytes / 2
        measured = {each.metric: each.value for each in file.measurements}
        assert measured["word_error_rate"] < 0.5  # the same digit always: 8 of 9 wrong


def test_spoken_sentences_and_voices_are_either_for_training_or_for_the_test():
    speech = module_of("speech")
    train, test = list(speech.lines("train", 800)), list(speech.lines("test", 300))
    assert not {line.text for line in train} & {line.text for line in test}
    assert not {line.voice for line in train} & {line.voice for line in test}
    said = [line.text for line in (*train, *test)]
    assert {word for text in said for word in text.split()} == set(speech.WORDS)
    for text in said:
        fed, y = speech.tokens_of(text)
        assert speech.text(y.tolist()) == text
        assert fed[1:][y[:-1] != -1].tolist() == y[:-1][y[:-1] != -1].tolist()
