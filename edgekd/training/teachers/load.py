"""From a recipe's network table to a teacher whose outputs are checked against the data."""

from pathlib import Path

from edgekd.data.samples import Data
from edgekd.errors import InputError, first_line
from edgekd.network.calling import bake
from edgekd.network.first_call import first_outputs
from edgekd.network.load import load_network, network_key
from edgekd.network.weights import weights_notes
from edgekd.store import key_of
from edgekd.training.checkpoint import sha256_of_state
from edgekd.training.teachers.black_box import BlackBox, Predictor
from edgekd.training.teachers.keras import open_keras
from edgekd.training.teachers.logits import open_logits
from edgekd.training.teachers.module import ModuleTeacher
from edgekd.training.teachers.onnx import open_onnx
from edgekd.training.teachers.outputs import PROBE, outputs_of
from edgekd.training.teachers.teacher import Teacher
from edgekd.training.teachers.tflite import open_tflite
from edgekd.training.teachers.torchscript import open_torchscript
from edgekd.values.recipe import Network
from edgekd.values.tree import rows


def load_teacher(network: Network, folder: Path, data: Data, where: str) -> Teacher:
    """The teacher of a recipe's table, whose paths are relative to `folder`.

    A factory or program can be tapped (`module`); the rest are black boxes. A few training
    samples are run, so outputs that don't fit the data's classes are rejected here, and
    probabilities are detected. Raises InputError for anything that is wrong, MissingPackage for a
    runtime that isn't installed.
    """
    key = network_key(network, folder)
    if network.is_module:
        return _module_teacher(network, folder, data, where, key)
    if data.baked is not None:
        raise InputError(
            f"a black box ({network.kind}) takes normalized inputs, but 'bake' leaves them raw",
            where=where,
            hint="set data.preprocess.bake = false, or give the network itself",
        )
    path = folder / network.name
    predictor = _open(network.kind, path, data, where)
    probe = data.train.first(PROBE).shown
    try:
        raw = predictor.predict(probe)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"fails on the data: {first_line(error)}", where=str(path)) from error
    y = rows(data.train.y, slice(0, PROBE))
    outputs = outputs_of(raw, data.classes, str(path), predictor.floor, data.task, y)
    return BlackBox(path.name, key, network.weight, predictor.predict, outputs, notes=outputs.notes)


def _open(source: str, path: Path, data: Data, where: str) -> Predictor:
    if source == "onnx":
        return open_onnx(path, data.shown, where)
    if source == "tflite":
        return open_tflite(path, data.shown, where)
    if source == "keras":
        return open_keras(path, data.shown, where)
    if source == "torchscript":
        return open_torchscript(path)
    return Predictor(open_logits(path, data, where))


def _module_teacher(
    network: Network, folder: Path, data: Data, where: str, key: str
) -> ModuleTeacher:
    module = load_network(network, folder, where).requires_grad_(False)
    if data.baked is not None:
        bake(module, data.baked)
    name = network.name
    probe = data.train.first(PROBE).shown
    raw = first_outputs(module, probe, data, where, f"'{name}'")
    if raw is None:
        raise InputError(f"'{name}' returns no tensor", where=where, allowed="a tensor, or several")
    y = rows(data.train.y, slice(0, PROBE))
    outputs = outputs_of(raw, data.classes, where, task=data.task, y=y)
    drawn = key_of(key, sha256_of_state(module))  # a factory without weights draws them by the seed
    notes = (*outputs.notes, *weights_notes(module))
    return ModuleTeacher(name, drawn, network.weight, module, outputs, notes=notes)
