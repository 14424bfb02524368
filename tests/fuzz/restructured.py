"""What pruning and low rank must leave alone: networks with dead channels, layers at full rank."""

import copy
from dataclasses import replace

import torch
from checks import Case, Wrong, outputs, require_equal
from dead_units import with_dead_units
from operators import NUMBERS, SMOOTH
from programs import Program, Source, Step
from torch import nn

from edgekd.network.calling import take_one_argument
from edgekd.network.cost import parameter_count
from edgekd.network.plain_weights import with_plain_weights
from edgekd.stages.factorize.ranks import Option
from edgekd.stages.factorize.sites import find_sites, replaced, spectrum_of
from edgekd.stages.prune.channels import channel_groups, remove_channels
from edgekd.stages.prune.groups import Slice

COUNTING = ("nn.LayerNorm", "nn.GroupNorm", "nn.Softmax", "nn.BatchNorm1d")
"""Layers to which a channel of zeros still counts, or that shift it where it is not theirs."""

UNFAITHFUL = "with it split at full rank"
"""How a reason ends that a factorization gives for a layer which it found that it changes."""

KEEP_ZERO = {"torch.tanh({0})", "F.hardswish({0})", "F.silu({0})", "F.gelu({0})", "F.elu({0})"}
MOVING = {*SMOOTH, *NUMBERS, "{0} + {layer}", "{layer} - {0}", "{0}.add_(0.25)"} - KEEP_ZERO
"""Expressions that give something for zero."""


def with_zeros_kept(program: Program) -> Program:
    """The program in which a channel that is zero stays so: what gives something for zero becomes a
    tanh, and linear layers, which may lie across the channels, lose their biases."""
    turned = any("transpose(1, -1)" in step.expression for step in program.steps)
    counting = (*COUNTING, "nn.BatchNorm") if turned else COUNTING
    steps = [_with_zeros_kept(each, counting) for each in program.steps]
    for number, step in enumerate(steps):  # one that uses the layer of a step that has none now
        if step.shared is not None and not steps[step.shared].layer:
            steps[number] = replace(step, expression="torch.tanh({0})", shared=None)
    return replace(program, steps=tuple(steps))


def _with_zeros_kept(step: Step, counting: tuple[str, ...]) -> Step:
    if step.expression in MOVING or step.layer.startswith(counting):
        return replace(step, expression="torch.tanh({0})", layer="")
    layer, expression = step.layer, step.expression.replace(", value=0.5", "")
    if expression.endswith("sigmoid({layer}({0}))"):
        expression = "torch.tanh({layer}({0}))"
    if layer.startswith("nn.Linear") and "bias" not in layer:
        layer = f"{layer[:-1]}, bias=False)"
    return replace(step, expression=expression, layer=layer)


def _loaded(program: Source) -> nn.Module:
    """The network as every stage gets it, which is handed copies of its inputs."""
    module = program.network()
    take_one_argument(module)
    return module


def prune(case: Case) -> None:
    """Half of the channels die, and the network without them gives the same."""
    assert isinstance(case.program, Program)
    module, example = _loaded(with_zeros_kept(case.program)), case.samples[:1]
    groups = channel_groups(module, example)
    dead, gone = with_dead_units(module, groups, 0.5)
    if not gone:
        return
    smaller = remove_channels(dead, example, gone, groups)
    if parameter_count(smaller) >= parameter_count(module):
        raise Wrong("pruned: nothing became smaller")
    expected = outputs(dead, case.samples)
    require_equal(outputs(smaller, case.samples), expected, "without its dead channels")


def silenced(case: Case) -> None:
    """The network without a third of its channels gives what the whole one does where those
    channels and all that reads them are zero."""
    module, example = with_plain_weights(_loaded(case.program)), case.samples[:1]
    groups = channel_groups(module, example)
    gone = {group.name: group.units[::3] for group in groups if group.can_go}
    if not gone:
        return
    masked = copy.deepcopy(module)
    parameters = dict(masked.named_parameters())  # a norm's statistics may stay
    for group in groups:
        for part in group.slices:
            units = {number for number in range(0, len(group.units), 3) if group.name in gone}
            if part.parameter in parameters:
                _zero(parameters[part.parameter], part, units)
    channels = {name: [each for unit in units for each in unit] for name, units in gone.items()}
    smaller = remove_channels(module, example, channels, groups)
    expected = outputs(masked, case.samples)
    require_equal(outputs(smaller, case.samples), expected, f"without channels of {[*gone]}")


def _zero(parameter: nn.Parameter, part: Slice, units: set[int]) -> None:
    pairs = zip(part.indices, part.units, strict=True)
    places = [index for index, unit in pairs if unit in units]
    with torch.no_grad():
        parameter.index_fill_(part.dim, torch.tensor(places, dtype=torch.long), 0.0)


def low_rank(case: Case) -> None:
    """Each method at full rank changes nothing."""
    module = _loaded(case.program)
    sites, left = find_sites(module, case.samples[:1], "svd", "auto", lambda name: False)
    for name, reason in left.items():
        if reason.endswith(UNFAITHFUL):
            raise Wrong(f"'{name}': {reason}")
    methods = dict.fromkeys(method for site in sites for method in site.methods)
    for method in methods:
        fitting = [site for site in sites if method in site.methods]
        options = {site.name: Option(method, site.full(method), 0, 0.0) for site in fitting}
        spectra = {(site.name, method): spectrum_of(site, method, None) for site in fitting}
        split = replaced(module, fitting, options, spectra)
        require_equal(outputs(split, case.samples), case.expected, f"{method} at full rank")
