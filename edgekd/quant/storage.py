"""A quantized graph on disk: a torch.export program, read back through the same guarded loader as
a program from outside, so nothing in it is unpickled or executed."""

import io
from pathlib import Path
from typing import Any, cast

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from edgekd.errors import InputError, ToolError
from edgekd.network.fx_names import module_paths
from edgekd.network.programs import load_program
from edgekd.quant.export import exported
from edgekd.quant.open_sizes import example_size
from edgekd.quant.rewrite import QUANTIZE  # importing it registers the operators that are stored
from edgekd.quant.weight_only import stored_weights
from edgekd.store import write_beside
from edgekd.values.tree import Tree


def save_graph(module: nn.Module, path: Path) -> None:
    """Write a quantized graph as .pt2 to a temporary file that is then renamed. PyTorch writes to
    memory first: given a path, it would store the temporary name in the file, and given a stream, a
    full disk would end the process.
    """
    graph = cast(fx.GraphModule, module)
    program = exported(graph, example_of(graph))
    # Traces name the files of whoever exported; of no use to who loads but the layer's name.
    for node in program.graph.nodes:
        layers = module_paths(node)
        for key in ("stack_trace", "from_node", "source_fn_stack", "nn_module_stack"):
            node.meta.pop(key, None)
        if layers:
            node.meta["nn_module_stack"] = {"layer": (layers[-1], "torch.nn.Module")}
    whole = io.BytesIO()
    try:
        torch.export.save(program, whole)
    except RuntimeError as error:
        raise ToolError(f"can't be written: {error}", where=str(path)) from error
    write_beside(path, whole.getvalue())


def load_graph(path: Path) -> fx.GraphModule:
    """The graph that `save_graph` wrote; a damaged or foreign file is an `InputError`."""
    graph = cast(fx.GraphModule, load_program(path))
    if not any(node.target in QUANTIZE for node in graph.graph.nodes) and not stored_weights(graph):
        raise InputError("not a quantized graph", where=str(path))
    return graph


def example_of(graph: fx.GraphModule) -> Tree:
    """Two zero samples in the structure of the graph's inputs."""
    values = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    zeros = [torch.zeros([2, *map(example_size, v.shape[1:])], dtype=v.dtype) for v in values]
    codegen: Any = graph.graph._codegen
    arguments, _ = pytree.tree_unflatten(zeros, codegen.pytree_info.in_spec)
    return arguments[0]
