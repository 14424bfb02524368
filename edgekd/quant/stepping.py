"""Runs a graph on samples node by node, so that weights can be changed on the way and two graphs
can be compared layer by layer. Values are dropped once nothing later reads them."""

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.values.tree import Tree, mapped


class Stepper(fx.Interpreter):
    """A run that stops before each layer that is asked for; layers come in the graph's order."""

    def __init__(self, graph: fx.GraphModule, samples: Tree) -> None:
        super().__init__(graph)
        inputs = graph.graph.process_inputs(mapped(torch.clone, samples))
        self.args_iter = iter(inputs if isinstance(inputs, list | tuple) else (inputs,))
        self._nodes = iter(graph.graph.nodes)
        self._next: fx.Node | None = next(self._nodes)

    def before(self, name: str) -> tuple[fx.Node, Tensor]:
        """The node called `name` and the value of its first argument."""
        while self._next is not None and self._next.name != name:
            self._step()
        if self._next is None:
            raise KeyError(name)
        source: Any = self._next.args[0] if self._next.args else None
        return self._next, self.env.get(source)  # type: ignore[return-value]

    def value(self, name: str) -> Tensor:
        """The value of the node called `name`, which something later reads."""
        done: list[Tensor] = [value for node, value in self.env.items() if node.name == name]
        if done:
            return done[0]
        self.before(name)
        return self.result()

    def result(self) -> Tensor:
        """The value of the node that the run has stopped before."""
        node = self._next
        assert node is not None
        self._step()
        value: Tensor = self.env[node]
        return value

    def _step(self) -> None:
        node = self._next
        assert node is not None
        self.env[node] = self.run_node(node)
        for done in self.user_to_last_uses.get(node, []):
            del self.env[done]
        self._next = next(self._nodes, None)
