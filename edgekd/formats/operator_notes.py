"""Notes on operators for the user: by layer, each kind once with its count."""

import re
from collections import Counter
from collections.abc import Iterable

_MOST_KINDS, _MOST_LAYERS = 4, 3


def by_layer(operators: Iterable[tuple[str, str]]) -> list[str]:
    """'466 x SLICE, 39 x TANH and 2 other kinds (rnn)' for each layer of pairs (kind, layer)."""
    layers: dict[str, Counter[str]] = {}
    for kind, layer in operators:
        layers.setdefault(layer, Counter())[kind] += 1
    return [_counted(kinds) + (f" ({layer})" if layer else "") for layer, kinds in layers.items()]


def by_kind(operators: Iterable[tuple[str, str]]) -> list[str]:
    """'3 x aten.gelu (mlp.0, mlp.1, mlp.2)' for each kind of pairs (kind, layer)."""
    kinds: dict[str, list[str]] = {}
    for kind, layer in operators:
        kinds.setdefault(kind, []).append(layer)
    return [_times(len(layers), kind) + f" ({_listed(layers)})" for kind, layers in kinds.items()]


def _counted(kinds: Counter[str]) -> str:
    shown = ", ".join(_times(number, kind) for kind, number in kinds.most_common(_MOST_KINDS))
    rest = len(kinds) - _MOST_KINDS
    if rest <= 0:
        return shown
    return f"{shown} and {rest} other kind{'s' if rest > 1 else ''}"


def _listed(layers: list[str]) -> str:
    different = list(dict.fromkeys(layers))
    shown = different[:_MOST_LAYERS]
    return ", ".join([*shown, "..."] if len(different) > len(shown) else shown)


def _times(number: int, kind: str) -> str:
    return kind if number == 1 else f"{number} x {kind}"


def shown_name(name: str) -> str:
    """The layer of an operator where TFLite's converter named it after PyTorch's modules, else the
    name itself."""
    return (converted_layer(name) if names_layers(name) else "") or name


def names_layers(name: str) -> bool:
    """Whether the name of an operator is one that TFLite's converter made of PyTorch's modules."""
    return "torch." in name or "named_layers." in name


def converted_layer(name: str) -> str:
    """'net.0' from the name that TFLite's converter gives an operator, such as
    'model.Net/torch.nn.modules.container.Sequential_net/torch.nn.modules.conv.Conv2d_0;3', or from
    that of a file of edgekd's, '__main__._ByPosition/edgekd.quant.named_layers.Layer_|net|0;3'; ''
    for one outside the layers."""
    path = name.split(";")[0].split("/")[1:]
    steps = [re.match(r"[A-Za-z0-9]+_(.+)", step.rpartition(".")[2]) for step in path]
    return ".".join(step.group(1) for step in steps if step).replace("|", ".").lstrip(".")
