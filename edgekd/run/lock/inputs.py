"""The files that a run reads: a build watches them, and the lock file records their hashes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekd import version
from edgekd.data.calibration import load_calibration
from edgekd.formats.onnx_file import external_files
from edgekd.network.checkpoints import checkpoint_files
from edgekd.network.identity import source_files
from edgekd.network.load import content_hash
from edgekd.store import key_of
from edgekd.values.recipe import Recipe, named_files, named_networks
from edgekd.values.target import target_path

SOURCE = "source "
"""The prefix of an input's name if it is the source of a factory or of a module it imports."""


def recipe_inputs(recipe: Recipe) -> dict[str, Path]:
    """Every file that a recipe names, by its key in the recipe, and its factories' sources."""
    table = recipe.model_dump(mode="json")
    inputs = {file.place: recipe.folder / file.path for file in named_files(table)}
    for place, file in list(inputs.items()):
        if place.endswith(".onnx") and file.is_file():
            inputs |= {f"{place} {beside.name}": beside for beside in external_files(file)}
        if place.endswith(".weights") and file.is_file():
            inputs |= {f"{place} {beside.name}": beside for beside in checkpoint_files(file)[1:]}
    if recipe.calibration.set is not None:
        inputs["calibration.set"] = load_calibration(recipe.calibration.set, recipe.folder)[1]
    modules = {factory.partition(":")[0] for factory in _factories(table)}
    sources = source_files(modules, recipe.folder)
    return inputs | {f"{SOURCE}{name}": path for name, path in sources.items()}


def _factories(table: dict[str, Any]) -> Iterator[str]:
    for _, network in named_networks(table):
        if network.get("factory"):
            yield str(network["factory"])
    if ":" in table["data"]["source"]:
        yield table["data"]["source"]
    if table["data"].get("transform"):
        yield table["data"]["transform"]


def recipe_key(recipe: Recipe) -> str:
    """A hash of a recipe's whole content, with files hashed by content, so its location doesn't
    matter. Factories' sources are left out: which ones are found depends on the working
    directory."""
    table: dict[str, Any] = recipe.model_dump(mode="json")
    inputs = recipe_inputs(recipe).items()
    hashes = {name: content_hash(path) for name, path in inputs if not name.startswith(SOURCE)}
    for file in named_files(table):
        file.replace(f"file {file.place}")
    return key_of(table, hashes)


def watched_files(recipe: Recipe, recipe_path: Path, targets: list[str]) -> list[Path]:
    """The files that a build has to watch: the recipe, its inputs, the targets' files, and
    edgekd."""
    files = [recipe_path, *recipe_inputs(recipe).values()]
    files += [target_path(name) for name in targets]
    files.append(Path(version.__file__))
    expanded = [inner for path in files for inner in _inside(path)]
    return list(dict.fromkeys(path.resolve() for path in expanded))


def _inside(path: Path) -> list[Path]:
    """A file itself, or every file of a folder (a SavedModel)."""
    if not path.is_dir():
        return [path]
    return sorted(inner for inner in path.rglob("*") if inner.is_file())
