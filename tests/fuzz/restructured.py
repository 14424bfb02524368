"""What pruning and low rank must leave alone: networks with dead channels, layers at full rank."""

from dataclasses import replace

from checks import Case, Wrong, outputs, require_equal
from dead_units import with_dead_units
from operators import NUMBERS, SMOOTH
from programs import Program

from edgekd.network.cost import parameter_count
from edgekd.stages.factorize.ranks import Option
from edgekd.stages.factorize.sites import find_sites, replaced, spectrum_of
from edgekd.stages.prune.channels import channel_groups, remove_channels

COUNTING = ("nn.LayerNorm", "nn.GroupNorm", "nn.Softmax")
"""Layers to which a channel of zeros still counts."""

KEEP_ZERO = ("torch.tanh({0})", "F.hardswish({0})", "F.silu({0})", "F.gelu({0})", "F.elu({0})")


def with_zeros_kept(program: Program) -> Program:
    """The program with functions that give something for zero replaced by a tanh, as a channel that
    is zero before them is not dead behind them."""
    moving = {
        *(each for each in SMOOTH + NUMBERS if each not in KEEP_ZERO),
        "{0} + {layer}",
        "{layer} - {0}",
        "{0}.add_(0.25)",
    }
    steps = [
        replace(step, expression="torch.tanh({0})", layer="")
        if step.expression in moving or step.layer.startswith(COUNTING)
        else replace(step, expression=step.expression.replace(", value=0.5", ""))
        for step in program.steps
    ]
    return replace(program, steps=tuple(steps))


def prune(case: Case) -> None:
    """Half of the channels die, and the network without them gives the same."""
    module = with_zeros_kept(case.program).network()
    example = case.samples[:1]
    groups = channel_groups(module, example.clone())
    dead, gone = with_dead_units(module, groups, 0.5)
    if not gone:
        return
    smaller = remove_channels(dead, example.clone(), gone, groups)
    if parameter_count(smaller) >= parameter_count(module):
        raise Wrong("pruned: nothing became smaller")
    expected = outputs(dead, case.samples)
    require_equal(outputs(smaller, case.samples), expected, "without its dead channels")


def low_rank(case: Case) -> None:
    """Each method at full rank changes nothing."""
    sites, _ = find_sites(case.module, case.samples[:1].clone(), "svd", "auto", lambda name: False)
    methods = dict.fromkeys(method for site in sites for method in site.methods)
    for method in methods:
        fitting = [site for site in sites if method in site.methods]
        options = {site.name: Option(method, site.full(method), 0, 0.0) for site in fitting}
        spectra = {(site.name, method): spectrum_of(site, method, None) for site in fitting}
        split = replaced(case.module, fitting, options, spectra)
        require_equal(outputs(split, case.samples), case.expected, f"{method} at full rank")
