"""A Keras file or a SavedModel folder as a teacher, through TensorFlow in this process."""

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from edgekd.errors import InputError, MissingPackage, first_line
from edgekd.training.teachers.black_box import Predictor, batch_of, in_batches
from edgekd.training.teachers.layout import inputs_for, outputs_as_tree
from edgekd.values.tree import Tree

# Ops of a SavedModel's graph that reach beyond its own tensors.
OUTSIDE = {"ReadFile", "WriteFile", "PyFunc", "PyFuncStateless", "EagerPyFunc"}


def open_keras(path: Path, example: Tree, where: str) -> Predictor:
    """A predictor of the outputs of a .keras file or SavedModel, for samples like `example`.

    A .keras file with lambdas or with classes that aren't Keras's own is rejected, and so is a
    SavedModel whose graph reads or writes files: neither is executed.
    """
    if not path.exists():
        raise InputError("no such file or folder", where=str(path))
    if path.is_dir():
        _inspect_saved_model(path, where)
        return _open_saved_model(path, example, where)
    _inspect_keras(path)
    return _open_keras_file(path, example, where)


def _tensorflow(where: str) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        import tensorflow
    except ImportError:
        raise MissingPackage("tensorflow", "keras", where=where) from None
    tensorflow.get_logger().setLevel("ERROR")
    return tensorflow


def _open_keras_file(path: Path, example: Tree, where: str) -> Predictor:
    tensorflow = _tensorflow(where)
    try:
        model = tensorflow.keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        message = first_line(error)
        raise InputError(f"Keras can't load it: {message}", where=str(path)) from None
    names = [each.name for each in model.inputs]
    shapes = [list(each.shape) for each in model.inputs]
    wanted = {name: shape[1:] for name, shape in zip(names, shapes, strict=True)}
    arrange = inputs_for(wanted, example, str(path))
    results = [each.name for each in model.outputs]

    def predict(x: Tree) -> Tree:
        values = [value.numpy() for value in arrange(x)]
        found = model(values if len(values) > 1 else values[0], training=False)
        leaves = tensorflow.nest.flatten(found)
        return outputs_as_tree(results, [torch.from_numpy(each.numpy()) for each in leaves])

    return Predictor(in_batches(predict, batch_of(shapes)))


def _open_saved_model(path: Path, example: Tree, where: str) -> Predictor:
    tensorflow = _tensorflow(where)
    try:
        loaded = tensorflow.saved_model.load(str(path))
        serve = loaded.signatures["serving_default"]
    except KeyError:
        raise InputError("no signature 'serving_default'", where=str(path)) from None
    except Exception as error:
        message = first_line(error)
        raise InputError(f"TensorFlow can't load it: {message}", where=str(path)) from None
    specs = serve.structured_input_signature[1]
    shapes = {name: spec.shape.as_list() for name, spec in specs.items()}
    wanted = {name: shape[1:] for name, shape in shapes.items()}
    arrange = inputs_for(wanted, example, str(path))

    def predict(x: Tree) -> Tree:
        values = {
            name: tensorflow.constant(value.numpy(), dtype=specs[name].dtype)
            for name, value in zip(specs, arrange(x), strict=True)
        }
        # `loaded` owns the variables: while this function lives, so must it.
        found = loaded and serve(**values)
        return outputs_as_tree(list(found), [torch.from_numpy(v.numpy()) for v in found.values()])

    return Predictor(in_batches(predict, batch_of(list(shapes.values()))))


def _inspect_keras(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError):
        hint = "save it again with model.save('model.keras')" if path.suffix == ".h5" else ""
        raise InputError(
            "not a complete Keras file",
            where=str(path),
            allowed=".keras or a SavedModel",
            hint=hint,
        ) from None
    for module, name in _classes(config):
        if name in ("Lambda", "__lambda__") or module.split(".")[0] not in ("keras", "builtins"):
            raise InputError(
                f"it contains '{module}.{name}', which is custom code and is not executed",
                where=str(path),
                allowed="Keras's own layers",
                hint="export a SavedModel with model.export(folder)",
            )


def _classes(config: Any) -> Iterator[tuple[str, str]]:
    """Module and name of every class that a serialized Keras configuration names."""
    if isinstance(config, list):
        for item in config:
            yield from _classes(item)
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            yield config.get("module") or "keras", config["class_name"]
        for value in config.values():
            yield from _classes(value)


def _inspect_saved_model(path: Path, where: str) -> None:
    file = path / "saved_model.pb"
    if not file.is_file():
        raise InputError("no saved_model.pb in this folder", where=str(path))
    _tensorflow(where)
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString(file.read_bytes())
    except Exception:  # protobuf's DecodeError, whose module has no type stubs
        raise InputError("not a complete SavedModel", where=str(file)) from None
    for graph in model.meta_graphs:
        functions = graph.graph_def.library.function
        nodes = [*graph.graph_def.node, *(node for f in functions for node in f.node_def)]
        reached = sorted({node.op for node in nodes} & OUTSIDE)
        if reached:
            raise InputError(
                f"its graph contains {', '.join(reached)}, which access something outside it",
                where=str(file),
            )
