"""The layer of the original model that a node of an exported graph came from."""

import re

from torch import fx


def layer_of(node: fx.Node) -> str:
    """The dotted name of the innermost module that a node came from, or the node's own name."""
    paths = module_paths(node)
    return paths[-1] if paths else node.name


def module_paths(node: fx.Node) -> list[str]:
    """The dotted names of the modules around a node, the outermost first, without the model itself.

    Every call of a module counts as the same module: releases of torch.export differ in whether
    the path of the second call is `stem` or `stem@1`.
    """
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] if isinstance(entry, tuple) else entry for entry in stack.values()]
    return [path for path in map(plain_path, paths) if path]


def plain_path(path: object) -> str:
    """A recorded path as the module's name: `L['self'].stem@1.conv` is `stem.conv`."""
    return re.sub(r"@\d+", "", str(path)).removeprefix("L['self']").lstrip(".")
