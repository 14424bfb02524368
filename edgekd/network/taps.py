"""Reading a layer's output during a forward pass, by the layer's name.

An `nn.Module` is tapped by a forward hook. An exported graph has no layers, only their names in the
nodes' metadata: there an identity is inserted after the layer's last node and hooked.
`NAME.weights` reads the attention weights (B, heads, L, L) of an `nn.MultiheadAttention`, or of
attention that returns them after its output, as transformers' does with
`attn_implementation = "eager"`. Everything is removed when the context ends.
"""

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.utils.hooks import RemovableHandle

from edgekd.errors import InputError, nearest
from edgekd.network.fx_names import module_paths, plain_path

# What tools put into a graph: ours, and torchao's observers and fake quantizers.
NOT_LAYERS = ("_edgekd_tap", "activation_post_process", "_guards_fn")

WEIGHTS = ".weights"


class _Tap(nn.Identity):
    """The identity inserted into a graph. It is impure, so that dead-code elimination keeps it."""

    _is_impure = True


class Taps:
    """A context in which `outputs` holds the last output of each named layer.

    Only outputs computed by the thread that opened the context are kept, so that two training runs
    can share a teacher. Raises `InputError` for a layer that isn't there.
    """

    def __init__(self, module: nn.Module, names: Iterable[str], where: str = "") -> None:
        self.module = module
        self.names = tuple(dict.fromkeys(names))
        self.outputs: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._inserted: list[tuple[Node, str]] = []
        known = layer_names(module)
        for name in self.names:
            if name not in known:
                raise no_such_layer(name, known, where)

    def __enter__(self) -> "Taps":
        self._thread = threading.get_ident()
        weights = () if isinstance(self.module, GraphModule) else _attentions(self.module)
        for number, name in enumerate(self.names):
            if isinstance(self.module, GraphModule):
                tapped = self._insert(self.module, name, number)
            elif name in weights:
                tapped = self.module.get_submodule(name.removesuffix(WEIGHTS))
                if isinstance(tapped, nn.MultiheadAttention):
                    asking = tapped.register_forward_pre_hook(_ask_for_weights, with_kwargs=True)
                    self._handles.append(asking)
            else:
                tapped = self.module.get_submodule(name)
            self._handles.append(tapped.register_forward_hook(self._keep(name, weights)))
        if isinstance(self.module, GraphModule) and self._inserted:
            self.module.recompile()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        if isinstance(self.module, GraphModule) and self._inserted:
            for node, target in self._inserted:
                node.graph.erase_node(node)
                self.module.delete_submodule(target)
            self.module.recompile()
        self._handles.clear()
        self._inserted.clear()
        self.outputs.clear()

    def _keep(self, name: str, weights: Iterable[str] = ()) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if threading.get_ident() != self._thread:
                return
            if name in weights:
                self.outputs[name] = _attention_weights(output, name)
                return
            # What a layer returns besides its output comes after it: states, caches, weights.
            several = isinstance(output, tuple) and output and isinstance(output[0], Tensor)
            self.outputs[name] = output[0] if several else output

        return hook

    def _insert(self, graph_module: GraphModule, name: str, number: int) -> nn.Module:
        node = _last_node(graph_module, name)
        target = f"_edgekd_tap_{id(self)}_{number}"
        graph_module.add_submodule(target, _Tap())
        with graph_module.graph.inserting_after(node):
            self._inserted.append((graph_module.graph.call_module(target, (node,)), target))
        return graph_module.get_submodule(target)


def layer_names(module: nn.Module) -> list[str]:
    """Every name that can be tapped, in the order of the network."""
    if not isinstance(module, GraphModule):
        return [name for name, _ in module.named_modules() if name] + _attentions(module)
    names: dict[str, None] = {}
    for node in module.graph.nodes:
        for path in _paths(node):
            parts = path.split(".")
            names.update(dict.fromkeys(".".join(parts[: n + 1]) for n in range(len(parts))))
    return list(names)


def layer_kinds(module: nn.Module) -> dict[str, str]:
    """Each layer's class name, in the order of the network."""
    if not isinstance(module, GraphModule):
        return {name: type(part).__name__ for name, part in module.named_modules() if name}
    kinds = dict.fromkeys(layer_names(module), "")
    for node in module.graph.nodes:
        for entry in (node.meta.get("nn_module_stack") or {}).values():
            if isinstance(entry, tuple) and len(entry) > 1:
                name = getattr(entry[1], "__name__", str(entry[1])).rpartition(".")[2]
                kinds.update({path: name for path in [plain_path(entry[0])] if path})
    return kinds


def _attentions(module: nn.Module) -> list[str]:
    """The taps of the attention weights of every layer that may return them: the innermost ones
    whose class is called attention, unless a softmax in them can be tapped."""
    parts = list(module.named_modules())
    return [f"{name}{WEIGHTS}" for name, part in parts if name and _may_return_weights(part)]


def _may_return_weights(part: nn.Module) -> bool:
    if isinstance(part, nn.MultiheadAttention):
        return True
    inner = [each for each in part.modules() if each is not part]
    if any(isinstance(each, nn.Softmax) or _is_attention(each) for each in inner):
        return False
    return _is_attention(part) and bool(inner)


def _is_attention(part: nn.Module) -> bool:
    return "Attention" in type(part).__name__


def _attention_weights(output: Any, name: str) -> Tensor:
    """The weights that attention returns after its output; `InputError` where there are none."""
    others = output[1:] if isinstance(output, tuple) else ()
    found = [each for each in others if isinstance(each, Tensor) and each.dim() == 4]
    if found:
        return found[-1]
    raise InputError(
        f"'{name.removesuffix(WEIGHTS)}' returns no attention weights (B, heads, L, L)",
        where=name,
        hint="for a network of transformers: arguments = { attn_implementation = 'eager' }",
    )


def _ask_for_weights(module: nn.Module, inputs: Any, keywords: dict[str, Any]) -> Any:
    """Attention that always returns its weights, per head, whatever its caller asked for."""
    return inputs, {**keywords, "need_weights": True, "average_attn_weights": False}


def is_within(layer: str, names: Iterable[str]) -> bool:
    """Whether a layer has one of these names, or is inside a module that has."""
    return any(layer == name or layer.startswith(f"{name}.") for name in names)


def no_such_layer(name: str, known: list[str], where: str) -> InputError:
    """The error for a layer that isn't there, with the nearest name."""
    short = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
    return InputError(f"no layer '{name}'", where=where, allowed=short, hint=nearest(name, known))


def _paths(node: Node) -> list[str]:
    """The names of the layers that a node belonged to before the export."""
    if node.op not in ("call_function", "call_module", "call_method"):
        return []
    paths = module_paths(node)
    if node.op == "call_module" and not str(node.target).startswith(NOT_LAYERS):
        paths.append(plain_path(node.target))
    return paths


def _last_node(graph_module: GraphModule, name: str) -> Node:
    last: Node | None = None
    for node in graph_module.graph.nodes:
        inside = any(is_within(path, [name]) for path in _paths(node))
        value = node.meta.get("val", node.meta.get("tensor_meta"))
        if inside and not isinstance(value, (tuple, list)):
            last = node
    if last is None:
        raise no_such_layer(name, layer_names(graph_module), "graph")
    return last
