"""The files that a run reads: what a build watches, and what a lock file has the hashes of."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import edgekd
from edgekd.data.calibration import load_calibration
from edgekd.networks import content_hash
from edgekd.recipe import Network, Recipe
from edgekd.store import key_of
from edgekd.target import target_path

FILES = ("weights", "program", "onnx", "tflite", "keras", "logits")


def network_inputs(recipe: Recipe) -> dict[str, Path]:
    """The networks' own files, by their key in the recipe: `teachers.1.weights`."""
    networks = {"model": recipe.model, **_named_teachers(recipe)}
    if recipe.student:
        networks["student"] = recipe.student
    return {
        f"{name}.{kind}": recipe.folder / getattr(network, kind)
        for name, network in networks.items()
        for kind in FILES
        if getattr(network, kind) is not None
    }


def _named_teachers(recipe: Recipe) -> dict[str, Network]:
    return {f"teachers.{number}": each for number, each in enumerate(recipe.teachers, 1)}


def recipe_inputs(recipe: Recipe) -> dict[str, Path]:
    """Every file that a recipe names, by its key there; sources of its factories included."""
    found = network_inputs(recipe)
    if recipe.data.source.endswith(".npz"):
        found["data.source"] = recipe.folder / recipe.data.source
    if recipe.calibration.set is not None:
        found["calibration.set"] = load_calibration(recipe.calibration.set)[1]
    if recipe.metadata.licence_file is not None:
        found["metadata.licence_file"] = recipe.folder / recipe.metadata.licence_file
    for factory in sorted(set(_factories(recipe))):
        path = source_file(factory, recipe.folder)
        if path is not None:
            found[f"factory {factory}"] = path
    return found


def _factories(recipe: Recipe) -> Iterator[str]:
    for network in (recipe.model, recipe.student, *recipe.teachers):
        if network is not None and network.factory is not None:
            yield network.factory
    if ":" in recipe.data.source:
        yield recipe.data.source


def source_file(factory: str, folder: Path) -> Path | None:
    """The file of a factory's module, None for edgekd's own, which its version stands for."""
    module = factory.partition(":")[0]
    if module.split(".")[0] == "edgekd":
        return None
    loaded = sys.modules.get(module)
    if loaded is not None and loaded.__file__:
        return Path(loaded.__file__)
    beside = folder.joinpath(*module.split(".")).with_suffix(".py")
    if beside.is_file():
        return beside
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin else None


def recipe_key(recipe: Recipe, seed: int) -> str:
    """A hash of all that a recipe says, its files by their content: the same wherever it lies."""
    table: dict[str, Any] = recipe.model_dump(mode="json", exclude={"seed"})
    hashes = {name: content_hash(path) for name, path in recipe_inputs(recipe).items()}
    for name, network in (("model", table["model"]), ("student", table.get("student"))):
        _without_paths(name, network)
    for number, network in enumerate(table["teachers"], 1):
        _without_paths(f"teachers.{number}", network)
    if "data.source" in hashes:
        table["data"]["source"] = "file"
    if "metadata.licence_file" in hashes:
        table["metadata"]["licence_file"] = "file"
    return key_of(table, hashes, seed)


def _without_paths(name: str, network: dict[str, Any] | None) -> None:
    for kind in FILES:
        if network and network.get(kind) is not None:
            network[kind] = f"file {name}.{kind}"


def watched_files(recipe: Recipe, recipe_path: Path, targets: list[str]) -> list[Path]:
    """What a build has to watch: the recipe, all that it names, the targets' files, and edgekd."""
    files = [recipe_path, *recipe_inputs(recipe).values()]
    files += [target_path(name) for name in targets]
    files.append(Path(edgekd.__file__))
    expanded = [inner for path in files for inner in _inside(path)]
    return list(dict.fromkeys(path.resolve() for path in expanded))


def _inside(path: Path) -> list[Path]:
    """A file itself, or every file of a folder (a SavedModel)."""
    if not path.is_dir():
        return [path]
    return sorted(inner for inner in path.rglob("*") if inner.is_file())
