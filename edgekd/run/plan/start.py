"""Loads a plan's starting point: the network to compress and the teachers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from edgekd.data.samples import Data
from edgekd.errors import InputError
from edgekd.network.calling import bake, leave_open, open_sizes
from edgekd.network.first_call import first_outputs
from edgekd.network.load import load_network
from edgekd.training.teachers import Teacher, load_teacher
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import Network, Recipe
from edgekd.values.sizes import bounded
from edgekd.values.tree import rows


def teacher_networks(recipe: Recipe) -> list[tuple[Network, str]]:
    """The trained model and the recipe's other teachers, each with its key in the recipe."""
    others = [(each, f"teachers.{n}") for n, each in enumerate(recipe.teachers, 1)]
    return [(recipe.model, "model"), *others]


def teacher_for(network: Network, recipe: Recipe, data: Data, where: str) -> Teacher:
    """A teacher, loaded and tested on the data."""
    with _seeded(recipe.seed):  # one without weights is the same in every run
        return load_teacher(network, recipe.folder, data, where)


def start_candidate(network: Network, recipe: Recipe, data: Data) -> Candidate:
    """The first stage's network, tested on one sample."""
    where = "student" if recipe.student else "model"
    if not network.is_module:
        raise InputError(
            f"a black box ({network.kind}) can be a teacher, but can't be trained or compiled",
            where=where,
            allowed="source, factory or program",
            hint=f"write source = 'onnx:{network.name}' to train the network in the file"
            if network.kind == "onnx"
            else "give [student] a network; an ONNX or TFLite file alone is quantized with one "
            "quantize stage, method = 'calibrate'",
        )
    module = start_module(network, recipe, data)
    _check_outputs(module, data, where)
    return Candidate(module, data.example, open=open_sizes(module))


def start_module(network: Network, recipe: Recipe, data: Data) -> nn.Module:
    """The network as the first stage gets it: with its weights, the arithmetic of preprocessing
    that is baked into it, and the sizes that its files leave open."""
    where = "student" if recipe.student else "model"
    with _seeded(recipe.seed):  # a student without weights starts from the seed's
        module = load_network(network, recipe.folder, where).eval()
    if data.baked is not None:
        bake(module, data.baked)
    leave_open(module, bounded(recipe.dynamic, data.example, "dynamic"))
    return module


def _check_outputs(module: nn.Module, data: Data, where: str) -> None:
    example = data.example
    outputs = first_outputs(module, example, data, where, "the network")
    if outputs is None:
        raise InputError("the network returns no tensor", where=where, allowed="one, or several")
    y = rows(data.train.y, slice(0, 1))
    fault = data.task.output_fault(data.task.main(outputs), y, data.classes, where)
    if fault is not None:
        raise fault


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers from a seed, and the generator as it was afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
