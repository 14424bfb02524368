"""Networks of transformers, from a folder on disk."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from torch import float32, nn

from edgekd.errors import EdgekdError, InputError, nearest, raise_all, summary_of
from edgekd.network.sources import ModelRequest, Source
from edgekd.network.sources._importing import built, imported
from edgekd.network.weights import listed
from edgekd.registry import SOURCES

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


@SOURCES.register()
class Transformers(Source):
    """A local snapshot of a transformers model, or its config.json: "transformers:FOLDER".

    The class is the first of the config's `architectures`, or the argument `architecture`; the
    other arguments are attributes of the config (`num_labels = 2`). A snapshot's own weights are
    loaded; a config alone gives random ones. Nothing is downloaded, and code that a snapshot
    carries is never run.
    """

    packages: ClassVar[Mapping[str, str]] = {"transformers": "transformers"}
    extra = "transformers"
    example: ClassVar[Mapping[str, Any]] = {
        "source": "transformers:bert/config.json",
        "arguments": {"num_labels": 2},
    }

    def load(self, request: ModelRequest) -> nn.Module:
        transformers = imported("transformers", request)
        config = _config(transformers, request)
        kind = _class(transformers, config, request)
        if _weights(request.path) is None:
            plain = ModelRequest(request.name, {}, request.folder, request.where)
            return built(lambda: kind(config), plain)
        return _pretrained(transformers, kind, config, request)

    def files(self, request: ModelRequest) -> Iterable[Path]:
        config, weights = _config_file(request.path), _weights(request.path)
        shards = request.path.glob(f"{weights.name.split('.')[0]}-*-of-*") if weights else ()
        return [config, *([weights] if weights else []), *sorted(shards)]


def _config_file(path: Path) -> Path:
    return path / "config.json" if path.is_dir() else path


def _weights(path: Path) -> Path | None:
    """The file with a snapshot's weights, None for a config alone."""
    return next((path / name for name in WEIGHTS if (path / name).is_file()), None)


def _config(transformers: Any, request: ModelRequest) -> Any:
    path = _config_file(request.path)
    if not path.is_file():
        raise InputError(
            "no such file",
            where=str(path),
            allowed="a folder with a config.json, or a config.json",
            hint="save it with model.save_pretrained(FOLDER); nothing is downloaded",
        )
    given = {key: value for key, value in request.arguments.items() if key != "architecture"}
    options = {"use_cache": False, **given}
    try:
        config, unused = transformers.AutoConfig.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False, return_unused_kwargs=True,
            **options,
        )  # fmt: skip
    except Exception as error:
        raise InputError(
            f"transformers {transformers.__version__} can't read it: {summary_of(error)[:200]}",
            where=str(path),
        ) from error
    unknown = [key for key in given if key in unused]
    if unknown:
        hint = nearest(unknown[0], [*config.to_dict(), "num_labels"])
        message = f"{type(config).__name__} has no '{unknown[0]}'"
        raise InputError(message, where=f"{request.where}.arguments", hint=hint)
    return config


def _class(transformers: Any, config: Any, request: ModelRequest) -> Any:
    """The model's class: by name from transformers itself, never from the snapshot."""
    names = [request.arguments.get("architecture"), *(config.architectures or [])]
    name = next((name for name in names if name), None)
    kind = getattr(transformers, name, None) if name else transformers.AutoModel
    if name is None:
        return lambda config: transformers.AutoModel.from_config(config)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise InputError(
            f"transformers has no model '{name}'",
            where=f"{request.where}.source",
            hint="name one with arguments = { architecture = ... }; a snapshot's own code is not "
            "run",
        )
    return kind


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without transformers' progress bars and tables on the terminal."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _pretrained(transformers: Any, kind: Any, config: Any, request: ModelRequest) -> nn.Module:
    """A snapshot with its weights; those that it lacks would be random, so they are refused."""
    try:
        with _quiet(transformers):
            module, info = kind.from_pretrained(
                str(request.path), config=config, local_files_only=True, trust_remote_code=False,
                dtype=float32, output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
    except Exception as error:
        message = f"can't be loaded: {summary_of(error)[:300]}"
        raise InputError(message, where=str(request.path)) from error
    where = str(request.path)
    faults: list[EdgekdError] = [
        InputError(f"'{name}' has shape {tuple(found)}", where=where, allowed=f"{tuple(wanted)}")
        for name, found, wanted in sorted(info["mismatched_keys"])
    ]
    missing = sorted(info["missing_keys"])
    if missing:
        hint = "fine-tune it first, or name its config.json as the source, with weights = ..."
        message = f"its weights lack {listed(missing)}, which {type(module).__name__} has"
        faults.append(InputError(message, where=where, hint=hint))
    raise_all(faults)
    loaded: nn.Module = module
    return loaded
