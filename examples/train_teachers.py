"""Train the teacher of each example on its labels alone, as the example's recipe describes it.

    python examples/train_teachers.py [NAME ...]

The weights are written beside the recipe. The test set is used once, at the end.
"""

import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_model

from edgekd.data import load_data
from edgekd.data.samples import Data, Samples
from edgekd.network.evaluation import evaluate
from edgekd.network.load import load_network
from edgekd.training.context import Context
from edgekd.training.loop import fit_labels
from edgekd.training.teaching import Teaching
from edgekd.values.recipe import load_recipe
from edgekd.values.target import load_target

FOLDER = Path(__file__).parent
EPOCHS = {
    "translation": 25,
    "detection": 50,
    "segmentation": 20,
    "keypoints": 30,
    "language_model": 15,
}
RATES = {"language_model": 3e-3, "translation": 3e-3, "regression": 1e-3}


def shown(samples: Samples) -> Samples:
    """The samples as the teacher sees them."""
    return Samples(samples.shown, samples.y, task=samples.task)


def train(name: str) -> float:
    """Train one example's teacher; its accuracy on the test set."""
    recipe = load_recipe(FOLDER / name / "recipe.toml")
    data = load_data(recipe.data, recipe.folder)
    parts = [shown(part) for part in (data.train, data.validation, data.test)]
    data = Data(data.name, *parts, classes=data.classes)
    torch.manual_seed(0)
    untrained = recipe.model.model_copy(update={"weights": None})
    module = load_network(untrained, recipe.folder, "model")
    teaching = Teaching(
        epochs=EPOCHS.get(name, 40), batch_size=64, learning_rate=RATES.get(name, 5e-3)
    )
    with tempfile.TemporaryDirectory() as work:
        fit_labels(module, Context(load_target("x86"), data, [], Path(work), teaching))
    save_model(module, str(FOLDER / name / "teacher.safetensors"))  # tied weights once
    return evaluate(module, data.test)


if __name__ == "__main__":
    torch.set_num_threads(1)  # every one of these is small
    for wanted in sys.argv[1:] or sorted(path.parent.name for path in FOLDER.glob("*/recipe.toml")):
        print(f"{wanted}: {train(wanted):.4f} on the test set", flush=True)
