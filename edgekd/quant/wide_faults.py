"""Checks of activations of 16 bits, for a network or for single layers, before any calibration."""

from collections.abc import Collection, Sequence

from torch import fx

from edgekd.errors import EdgekdError, InputError, nearest
from edgekd.network.fx_names import layer_of, module_paths
from edgekd.network.taps import is_within
from edgekd.quant import ops
from edgekd.quant.chains import chains_of
from edgekd.quant.faults import backends_of
from edgekd.quant.regions import integer_nodes
from edgekd.quant.shielding import is_written
from edgekd.quant.wide_layers import EVERY_LAYER, is_named, wide_nodes
from edgekd.values.target import Target

_SHOWN = 6


def wide_faults(
    dtype: str,
    method: str,
    strict: bool,
    target: Target,
    where: str,
    layers: Sequence[str] = EVERY_LAYER,
) -> list[EdgekdError]:
    """Faults of activations of 16 bits in these layers: types and methods without them, and
    backends whose kernels have no such type."""
    key = where.rpartition(".")[2]
    if dtype != "int8":
        text = f"{dtype} leaves activations in float"
        return [InputError(text, where=where, hint=f"dtype = \"int8\", or remove '{key}'")]
    faults: list[EdgekdError] = []
    if method in ("lsq", "pact"):
        text = f"the method '{method}' trains grids of eight bits"
        faults.append(
            InputError(text, where=where, allowed='method = "calibrate", "auto" or "qat"')
        )
    infos = backends_of(target)
    wanted = "" if tuple(layers) == EVERY_LAYER else f" in {_listed(layers)}"
    for name, info in infos.items():
        if not info.wide_activations:
            able = [each for each, other in infos.items() if other.wide_activations]
            text = f"{info.title} has no kernels for 16-bit activations{wanted}"
            instead = "activations = 8" if key == "activations" else f"remove '{key}'"
            hint = f"{instead}, or a target without backends.{name}"
            faults.append(InputError(text, where=where, allowed=", ".join(able) or "8", hint=hint))
    if strict and "onnx" in infos:
        text = f"ONNX Runtime computes 16-bit activations in float{wanted}, and strict leaves none"
        faults.append(InputError(text, where=where, hint="remove 'strict' or backends.onnx"))
    return faults


def layer_faults(
    graph: fx.GraphModule, layers: Sequence[str], ignored: Collection[str], strict: bool, where: str
) -> list[EdgekdError]:
    """Faults of the layers' names in a graph that is ready for quantization: those that nothing in
    integers has, that stay in float, or whose functions have no kernel of 16 bits under `strict`.
    """
    nodes = integer_nodes(graph)
    known = dict.fromkeys(path for node in nodes for path in (*module_paths(node), layer_of(node)))
    faults: list[EdgekdError] = []
    for name in layers:
        if not any(is_named(node, [name]) for node in nodes):
            text = f"there is no layer '{name}' that computes in integers"
            hint = nearest(name, known)
            faults.append(InputError(text, where=where, allowed=_short(known), hint=hint))
        elif is_within(name, ignored):
            text = f"'{name}' is listed under 'ignore', too, which keeps it in float"
            faults.append(InputError(text, where=where, hint="remove it from one of the two"))
    if strict and not faults:
        faults += _without_kernels(graph, layers, where)
    return faults


def _without_kernels(graph: fx.GraphModule, layers: Sequence[str], where: str) -> list[EdgekdError]:
    """A fault if functions have no kernel of 16 bits: a table has 256 values."""
    chains, wide = chains_of(graph), wide_nodes(graph, layers)
    names = [
        f"{ops.name_of(tail)} ({layer_of(tail)})"
        for tail, chain in chains.items()
        if tail in wide and not is_written(chain)
    ]
    if not names:
        return []
    text = f"no runtime has a kernel of 16 bits for {_listed(names)}, and strict leaves no floats"
    return [InputError(text, where=where, hint="leave these layers in eight bits, or no 'strict'")]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:_SHOWN]) + more


def _short(names: Collection[str]) -> str:
    first = list(names)[: 2 * _SHOWN]
    rest = len(names) - len(first)
    return ", ".join(first) + (f" and {rest} more" if rest else "")
