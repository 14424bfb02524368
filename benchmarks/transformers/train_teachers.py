"""Train the teachers, a small BERT, a GPT-2 and a Whisper, on their labels alone.

    EDGEKD_DATA=DIRECTORY python benchmarks/transformers/train_teachers.py [bert] [gpt2] [whisper]

Each is the model of a recipe here; see texts.py for the archive in EDGEKD_DATA, and speech.py for
the programs that speak. The weights go to runs/transformers, where the recipes look for them; the
test set is used once.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_model

from edgekd.data import load_data
from edgekd.network.evaluation import evaluate
from edgekd.network.load import load_network
from edgekd.training.context import Context
from edgekd.training.loop import fit_labels
from edgekd.training.teaching import Teaching
from edgekd.values.recipe import load_recipe
from edgekd.values.target import load_target

HERE = Path(__file__).parent
SHARED = {"batch_size": 64, "weight_decay": 1e-2, "warmup": 0.1}
TEACHERS = {
    "bert": ("distilbert.toml", Teaching(epochs=6, learning_rate=1e-3, **SHARED)),
    "gpt2": ("gpt2.toml", Teaching(epochs=12, learning_rate=3e-3, **SHARED)),
    "whisper": ("whisper.toml", Teaching(epochs=25, learning_rate=2e-3, **SHARED)),
}


def train(recipe_name: str, teaching: Teaching) -> float:
    """Train a recipe's model with all its samples; its accuracy on the test set."""
    recipe = load_recipe(HERE / recipe_name)
    data = load_data(recipe.data.model_copy(update={"limit": None}), recipe.folder)
    torch.manual_seed(0)
    untrained = recipe.model.model_copy(update={"weights": None})
    module = load_network(untrained, recipe.folder, "model")
    with tempfile.TemporaryDirectory() as work:
        fit_labels(module, Context(load_target("x86"), data, [], Path(work), teaching))
    assert recipe.model.weights is not None
    path = HERE / recipe.model.weights
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(module, str(path))
    return evaluate(module, data.test)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(TEACHERS), choices=[*TEACHERS, []])
    torch.set_num_threads(1)
    for name in parser.parse_args().names:
        print(f"{name}: {train(*TEACHERS[name]):.4f} on the test set", flush=True)
