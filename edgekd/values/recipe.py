"""A recipe: model, teachers, data, stages in order and budgets, read from TOML."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    model_validator,
)

from edgekd.errors import InputError, nearest
from edgekd.package import package_folder
from edgekd.store import key_of, read_errors, write_beside
from edgekd.values.preprocess import NO_STEPS, Preprocess
from edgekd.values.ranges import refuse_ranges
from edgekd.values.sizes import OpenSize
from edgekd.values.tables import Value, parse, read_toml

LARGEST_SEED = 2**32 - 1


class Network(Value):
    """A network that the recipe names: a source and what to take from it, or one file.

    `source` is "SOURCE:NAME": "timm:resnet18", "torchvision:mobilenet_v2", "transformers:FOLDER";
    `edgekd methods source` lists them. `factory`, a callable `package.module:callable`, and
    `program`, a `torch.export` file (.pt2), are short for two of them. `arguments` go to the
    source, and `weights` is a checkpoint that is loaded afterwards. `onnx`, `tflite`, `keras` (a
    .keras file or a SavedModel folder), `torchscript` and `logits` (an .npy or .npz of recorded
    logits in the order of the training samples) are black boxes. `output` keeps one of several
    outputs, by name or position, or some of them by their names. Paths are relative to the
    recipe's folder. `layers` keeps some of a repeated stack's layers, by the stack's name and the
    layers' numbers from 0: `layers = { "bert.encoder.layer" = [1, 3] }`, once the weights are
    loaded. `given` is the name of a module that the Python API was called with; a recipe
    on disk can't hold it.
    """

    source: str | None = Field(default=None, pattern=r"^[\w-]+:.+$")
    factory: str | None = None
    given: str | None = None
    arguments: dict[str, Any] = {}
    weights: Path | None = None
    program: Path | None = None
    onnx: Path | None = None
    tflite: Path | None = None
    keras: Path | None = None
    torchscript: Path | None = None
    logits: Path | None = None
    weight: PositiveFloat = 1.0
    output: str | int | tuple[str, ...] | None = None
    layers: dict[str, tuple[NonNegativeInt, ...]] = {}
    _module: Any = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_source(self) -> "Network":
        keys = [key for key in (*MODULES, *BLACK_BOXES) if getattr(self, key) is not None]
        if len(keys) != 1:
            given = " and ".join(keys) or "none"
            allowed = ", ".join(key for key in (*MODULES, *BLACK_BOXES) if key != "given")
            raise ValueError(f"give exactly one of {allowed}; found {given}")
        if self.kind in ("factory", "program") and self.source:
            raise ValueError(f"write {self.kind} = '{self.name}'")
        if keys[0] not in ("source", "factory", "program") and (self.weights or self.arguments):
            raise ValueError("'weights' and 'arguments' are for 'source', 'factory' and 'program'")
        if self.layers and self._key not in ("source", "factory", "given"):
            raise ValueError("'layers' is for 'source' and 'factory'")
        return self

    @property
    def kind(self) -> str:
        """Where the network comes from: a source's name, `given` or a kind of black box."""
        key = self._key
        return str(self.source).partition(":")[0] if key == "source" else key

    @property
    def name(self) -> str:
        """What is taken from there: a model's name, a reference or a path."""
        value = str(getattr(self, self._key))
        return value.partition(":")[2] if self._key == "source" else value

    @property
    def _key(self) -> str:
        keys = (*MODULES, *BLACK_BOXES)
        return next(key for key in keys if getattr(self, key) is not None)

    @property
    def module(self) -> Any:
        """The `nn.Module` that was given as an object, or None."""
        return self._module

    @property
    def is_module(self) -> bool:
        """Whether it is an `nn.Module`, which can be trained and compiled."""
        return self._key in MODULES


MODULES = ("source", "factory", "program", "given")
BLACK_BOXES = ("onnx", "tflite", "keras", "torchscript", "logits")


class DataTable(Value):
    """The source of the samples and how they are used.

    `source` is a named set (digits, fashion-mnist), an .npz file, `package.module:callable`, or a
    reader (image-folder, table) of the folder or file at `path`.
    `validation` is the share of the training samples that is held back as the validation set.
    `task` says what the targets are where the source doesn't: a name ("segmentation") or a table
    with its parameters. `stream` reads samples when they are needed rather than into memory: by
    default those of a part that takes more than `memory_gb`, or that draws its samples at random;
    `workers` processes read ahead. `transform` is a callable, `package.module:name`, that changes a
    training sample's inputs at random each time; `preprocess` is what is done to every sample.
    `sampler = "balanced"` draws each epoch's samples so that all classes are equally frequent.
    """

    source: str = "digits"
    path: Path | None = None
    arguments: dict[str, Any] = {}
    validation: float = Field(default=0.1, gt=0.0, lt=1.0)
    limit: PositiveInt | None = None
    flip: bool = False
    shift: int = Field(default=0, ge=0)
    views: int = Field(default=0, ge=0)
    task: str | dict[str, Any] | None = None
    stream: bool | None = None
    memory_gb: float = Field(default=1.0, ge=0.0)
    workers: int | None = Field(default=None, ge=0, le=64)
    transform: str | None = None
    sampler: Literal["balanced"] | None = None
    preprocess: Preprocess = NO_STEPS
    _parts: Any = PrivateAttr(default=None)

    @property
    def parts(self) -> Any:
        """The data sets that were given as objects, or None; `source` is then "given"."""
        return self._parts


class Calibration(Value):
    """The calibration samples: a set of sample ids by name or by its .toml file, a `folder` of
    images without labels, or the first samples of each class."""

    set: str | None = None
    folder: Path | None = None
    samples: PositiveInt = 256


class Metadata(Value):
    """The deployed model's metadata, in the TFLite file and in C headers.

    `licence` is any text, often an SPDX name; `licence_file` a file that holds the whole text.
    `labels` name the classes in the order of the outputs.
    """

    name: str = Field(default="", max_length=200)
    version: str = Field(default="", max_length=200)
    licence: str = ""
    licence_file: Path | None = None
    labels: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_licence(self) -> "Metadata":
        if self.licence and self.licence_file is not None:
            raise ValueError("give 'licence' or 'licence_file', not both")
        return self


class ReportTable(Value):
    """The report's diagnostics besides accuracy and cost, by name, or as tables with `name` and
    parameters."""

    diagnostics: tuple[str | dict[str, Any], ...] = ()


class Recipe(Value):
    """A whole recipe. `stages` stay tables here; the plan makes each by its `kind`. `dynamic` are
    sizes of the inputs that compiled files leave open where their runtime can. `deliver` says whose
    budgets and parity the verdict is about: the recommended file of each target (the fastest that
    holds every budget), "all", or the files of these backends."""

    model: Network
    student: Network | None = None
    teachers: tuple[Network, ...] = ()
    data: DataTable = DataTable()
    calibration: Calibration = Calibration()
    dynamic: tuple[OpenSize, ...] = ()
    stages: tuple[dict[str, Any], ...] = ()
    budgets: dict[str, float] = {}
    metadata: Metadata = Metadata()
    report: ReportTable = ReportTable()
    deliver: Literal["recommended", "all"] | tuple[str, ...] = "recommended"
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The folder that the recipe's paths are relative to."""
        return self._folder

    @property
    def objects(self) -> dict[str, Any]:
        """The modules and datasets that were given as objects, by their key in the recipe."""
        networks = [("model", self.model), *([("student", self.student)] if self.student else [])]
        networks += [(f"teachers.{n}", teacher) for n, teacher in enumerate(self.teachers, 1)]
        modules = {
            place: network.module for place, network in networks if network.module is not None
        }
        return modules if self.data.parts is None else {**modules, "data": self.data.parts}


def load_recipe(path: Path) -> Recipe:
    """The recipe in a file."""
    return recipe_from(read_toml(path), path.resolve().parent, str(path))


def recipe_from(
    table: dict[str, Any], folder: Path, where: str, objects: Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe from its table, checked. Its paths are relative to `folder`; `objects` are
    modules and datasets by their key (`model`, `student`, `teachers.1`, `data`)."""
    refuse_ranges(table, where)
    recipe = parse(Recipe, table, where)
    recipe._folder = folder
    given = objects or {}
    for place, network in [("model", recipe.model), ("student", recipe.student)]:
        if network is not None:
            network._module = given.get(place)
    for number, teacher in enumerate(recipe.teachers, 1):
        teacher._module = given.get(f"teachers.{number}")
    recipe.data._parts = given.get("data")
    return recipe


FILES = ("weights", "program", *BLACK_BOXES)


@dataclass(frozen=True)
class NamedFile:
    """A file that a recipe's table names: `place` is its key there (`teachers.1.weights`), which
    is the value of `key` in `table`. In `source = "transformers:FOLDER"` the file follows the
    `prefix`."""

    place: str
    table: dict[str, Any]
    key: str
    prefix: str = ""

    @property
    def path(self) -> str:
        """The path as the recipe has it, which starts from the recipe's folder."""
        return str(self.table[self.key]).removeprefix(self.prefix)

    def replace(self, path: str) -> None:
        """Put another path, or a text that stands for it, in the table."""
        self.table[self.key] = self.prefix + path


def named_files(table: dict[str, Any]) -> Iterator[NamedFile]:
    """Every file that a recipe's table (a `Recipe` as JSON) names."""
    for place, network in named_networks(table):
        yield from _files_of(network, place)
    schemes = _schemes(table)
    sources = [
        ("data", table["data"]),
        *((f"{place}.public", s.get("public")) for place, s in schemes),
    ]
    for place, source in sources:
        yield from _files_of_data(source, place)
    if str(table["calibration"].get("set")).endswith(".toml"):
        yield NamedFile("calibration.set", table["calibration"], "set")
    if table["calibration"].get("folder"):
        yield NamedFile("calibration.folder", table["calibration"], "folder")
    if table["metadata"].get("licence_file"):
        yield NamedFile("metadata.licence_file", table["metadata"], "licence_file")
    for number, diagnostic in enumerate(table["report"]["diagnostics"], 1):
        if isinstance(diagnostic, dict) and isinstance(diagnostic.get("groups"), str):
            yield NamedFile(f"report.diagnostics.{number}.groups", diagnostic, "groups")


def _files_of_data(source: Any, place: str) -> Iterator[NamedFile]:
    if not isinstance(source, dict):
        return
    if str(source.get("source")).endswith(".npz"):
        yield NamedFile(f"{place}.source", source, "source")
    if source.get("path"):
        yield NamedFile(f"{place}.path", source, "path")
    tokenizer = (source.get("preprocess") or {}).get("tokenizer")
    if tokenizer:
        yield NamedFile(f"{place}.preprocess.tokenizer.file", tokenizer, "file")


def _files_of(network: dict[str, Any], place: str) -> Iterator[NamedFile]:
    yield from (NamedFile(f"{place}.{key}", network, key) for key in FILES if network.get(key))
    kind, _, name = str(network.get("source") or "").partition(":")
    if kind in FROM_FOLDERS or "/" in name:
        yield NamedFile(f"{place}.source", network, "source", f"{kind}:")


FROM_FOLDERS = ("transformers",)
"""Sources that always name a path; for the others, a name with a slash is one."""


def named_networks(table: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every network of a recipe's table with its key, including a scheme's assistants."""
    yield "model", table["model"]
    if table.get("student"):
        yield "student", table["student"]
    several = [("teachers", table["teachers"])]
    several += [(f"{place}.assistants", each.get("assistants")) for place, each in _schemes(table)]
    for place, networks in several:
        if isinstance(networks, list):
            for number, network in enumerate(networks, 1):
                if isinstance(network, dict):
                    yield f"{place}.{number}", network


def _schemes(table: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The schemes of stages, where they are tables. Their content has not been checked yet."""
    return [
        (f"stages.{number}.scheme", stage["scheme"])
        for number, stage in enumerate(table["stages"], 1)
        if isinstance(stage.get("scheme"), dict)
    ]


LONGEST_LICENCE = 100_000


def recipe_hash(recipe: Recipe) -> str:
    """The key of everything that determines the model's bytes: the recipe without budgets,
    metadata and report, with each file replaced by its key, so that its location doesn't matter."""
    table = recipe.model_dump(mode="json")
    for file in named_files(table):
        file.replace(f"file {file.place}")
    for name in ("budgets", "metadata", "report"):
        del table[name]
    return key_of(table)


def licence_text(recipe: Recipe) -> str:
    """The licence text. Raises `InputError` if its file can't be read as text."""
    if recipe.metadata.licence_file is None:
        return recipe.metadata.licence
    path = recipe.folder / recipe.metadata.licence_file
    where = f"metadata.licence_file {path}"
    try:
        with read_errors(path, "a text file", where=where):
            text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error}", where=where) from None
    if len(text) > LONGEST_LICENCE:
        raise InputError(f"{len(text):,} characters are too long for a licence", where=where)
    return text


def override(table: dict[str, Any], key: str, given: Any) -> None:
    """Set one key of a recipe's table: `stage.distill.epochs=3`, `data.source=digits`.

    `stage.KIND` means every stage of that kind, `stage.2` the second one. Text is parsed as TOML if
    it is a valid TOML value and taken as a string otherwise; other values are used as they are.
    """
    value = _toml_value(given) if isinstance(given, str) else given
    parts = key.split(".")
    if parts[0] == "stage" and len(parts) >= 3:
        for stage in _stages_named(table, parts[1], key):
            _set(stage, parts[2:], value, key)
        return
    _set(table, parts, value, key)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _stages_named(table: dict[str, Any], name: str, key: str) -> list[dict[str, Any]]:
    stages: list[dict[str, Any]] = table.get("stages", [])
    if name.isdigit():
        if 1 <= int(name) <= len(stages):
            return [stages[int(name) - 1]]
        kinds = [str(number + 1) for number in range(len(stages))]
    else:
        named = [stage for stage in stages if stage.get("kind") == name]
        if named:
            return named
        kinds = [str(stage.get("kind")) for stage in stages]
    raise InputError(
        f"no stage '{name}'",
        where=f"--set {key}",
        allowed=", ".join(kinds) or "this recipe has no stages",
        hint=nearest(name, kinds),
    )


def _set(table: dict[str, Any], parts: list[str], value: Any, key: str) -> None:
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InputError(f"'{part}' is not a table", where=f"--set {key}")
    table[parts[-1]] = value


RECIPES = package_folder() / "recipes"


def default_recipe() -> Path:
    """The recipe that comes with the package: digits, a small residual network, every stage."""
    return RECIPES / "digits.toml"


def write_example(folder: Path) -> Path:
    """Copy the default recipe and its teacher's weights into a folder, to be edited."""
    path = folder / "recipe.toml"
    if path.exists():
        raise InputError("it already has a recipe", where=str(path), hint="choose another folder")
    for source, to in ((TEACHER, folder / TEACHER.name), (default_recipe(), path)):
        write_beside(to, source.read_bytes())  # the recipe last: it says that all is there
    return path


TEACHER = RECIPES / "digits_teacher.safetensors"
