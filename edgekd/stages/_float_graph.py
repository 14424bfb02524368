"""The float graph of a candidate, from which every quantization starts."""

import copy
from typing import Any, cast

from torch.fx import GraphModule

from edgekd.quant.export import export_graph
from edgekd.quant.export_check import check_exported
from edgekd.training.context import Context
from edgekd.values.candidate import Candidate

_KEY = "float graph"


def float_graph(candidate: Candidate, context: Context, kept: dict[Any, Any]) -> GraphModule:
    """A copy of the float graph, compared with the network on all test samples; `kept` has it if
    there was an attempt before."""
    if _KEY not in kept:
        graph = export_graph(candidate.module, candidate.example)
        check_exported(graph, candidate.module, context.data.test)
        kept[_KEY] = graph
    return copy.deepcopy(cast(GraphModule, kept[_KEY]))
