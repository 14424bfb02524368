"""The cost of a network: parameters, multiply-accumulates and bytes per layer, from one run.

Costs are counted from the operations that actually run, so a functional matmul in an attention
block, a fused graph and a quantized `torch.export` graph count just like `nn.Module` layers. A
multiply-accumulate is one product and one sum in a convolution, linear layer or matrix product;
element-wise operations (normalization, activations, additions) count as none, as is customary.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from edgekd.network.fx_names import layer_of
from edgekd.values.tree import Tree, leaves, rows

KINDS = {
    "convolution": "convolution",
    "_convolution": "convolution",
    "addmm": "linear",
    "mm": "linear",
    "bmm": "matmul",
    "baddbmm": "matmul",
    "native_batch_norm": "norm",
    "_native_batch_norm_legit": "norm",
    "_native_batch_norm_legit_no_training": "norm",
    "native_layer_norm": "norm",
    "native_group_norm": "norm",
}
"""The report's names for ATen operations below autograd; others keep their own name."""

MOVES = {"empty", "view", "_unsafe_view", "t", "expand", "clone", "detach", "permute", "transpose"}
"""Operations that only move or view memory and say nothing about a layer's kind."""


@dataclass(frozen=True)
class LayerCost:
    """One layer's share of one run: `kind` is its most expensive operation.

    `macs` and `output_shape` are for the given example, so pass a batch of one. `bytes` is the size
    of its parameters as stored (one per value in an int8 graph). A layer that is used twice has the
    MACs of both runs and its parameters once.
    """

    name: str
    kind: str
    parameters: int
    macs: int
    output_shape: tuple[int, ...]
    bytes: int = 0


@dataclass(frozen=True)
class Totals:
    """A whole network: `bytes` includes parameters and the statistics needed for inference."""

    parameters: int
    macs: int
    bytes: int


@dataclass
class _Tally:
    """The cost of one layer so far."""

    macs: int = 0
    kind: str = ""
    kind_macs: int = -1
    shape: tuple[int, ...] = ()
    weights: dict[int, Tensor] = field(default_factory=dict)


def layer_costs(module: nn.Module, example: Tree) -> list[LayerCost]:
    """The cost of each layer in order of execution, for a module or an exported graph.

    The list has each leaf module, and any other module that holds parameters or costs MACs (a
    matmul in an attention block is listed under the block's name). In an exported graph, which has
    no modules, operations are listed under the module that they came from.
    """
    counter = _Counter()
    with contextlib.ExitStack() as hooks, _in_eval(module), torch.no_grad():
        for hook in _hooks(module, counter):
            hooks.enter_context(hook)
        with _plain_kernels(), counter:
            if isinstance(module, fx.GraphModule):
                _GraphRun(module, counter).run(*leaves(example), enable_io_processing=False)
            else:
                module(example)
    return [
        LayerCost(
            name,
            tally.kind,
            sum(weight.numel() for weight in tally.weights.values()),
            tally.macs,
            tally.shape,
            sum(weight.nbytes for weight in tally.weights.values()),
        )
        for name, tally in counter.tallies.items()
        if tally.macs or tally.weights or name in counter.leaves
    ]


def totals(module: nn.Module, example: Tree) -> Totals:
    """Parameters, multiply-accumulates for the example, and bytes as stored."""
    costs = layer_costs(module, example)
    stored = {
        id(tensor): tensor
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
        if not name.endswith("num_batches_tracked")
    }
    return Totals(
        parameters=max(parameter_count(module), sum(cost.parameters for cost in costs)),
        macs=sum(cost.macs for cost in costs),
        bytes=sum(tensor.nbytes for tensor in stored.values()),
    )


def largest_layer(module: nn.Module, example: Tree) -> int:
    """The most values, inputs and outputs together, of one convolution or linear layer.

    A runtime that computes whole layers needs no fewer at a time, since such a layer can't compute
    in place.
    """
    largest = 0

    def see(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        values = [one for one in (*inputs, output) if isinstance(one, Tensor)]
        largest = max(largest, sum(one.numel() for one in values))

    with contextlib.ExitStack() as hooks, _in_eval(module), torch.no_grad():
        for part in module.modules():
            if isinstance(part, (nn.modules.conv._ConvNd, nn.Linear)):
                hooks.enter_context(part.register_forward_hook(see))
        module(rows(example, slice(0, 1)))
    return largest


def parameter_count(module: nn.Module) -> int:
    """All parameters, each counted once, even if a run does not use them."""
    return sum(parameter.numel() for parameter in module.parameters())


@contextlib.contextmanager
def _in_eval(module: nn.Module) -> Iterator[None]:
    """Set eval mode through the flag alone, because exported graphs refuse the `eval()` method."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextlib.contextmanager
def _plain_kernels() -> Iterator[None]:
    """A context without oneDNN, which runs a recurrent layer as one opaque operation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.backends.mkldnn.flags(enabled=False):
            yield


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Attributes every operation to the layer that is running."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, and asking the compiler to skip this mode would import it (1
        s)."""
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.running: list[str] = [""]
        self.tallies: dict[str, _Tally] = {}
        self.leaves: set[str] = set()

    @property
    def tally(self) -> _Tally:
        return self.tallies.setdefault(self.running[-1], _Tally())

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        macs = _macs(func._overloadpacket, args, kwargs or {}, result)
        first = result[0] if isinstance(result, tuple | list) and result else result
        if not isinstance(first, Tensor):
            return result
        tally = self.tally
        tally.macs += macs
        tally.shape = tuple(first.shape)
        if macs >= tally.kind_macs and name not in MOVES:
            tally.kind, tally.kind_macs = _kind(name, args), macs
        return result


def _macs(packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """MACs by PyTorch's own formulas, which count a product and a sum as two operations."""
    if packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
        query, key, value = args[:3]
        flops = sdpa_flop_count(query.shape, key.shape, value.shape)  # type: ignore[no-untyped-call]
        return int(flops) // 2
    formula: Callable[..., int] | None = flop_registry.get(packet)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=result)) // 2


def _kind(name: str, args: tuple[Any, ...]) -> str:
    if name in ("convolution", "_convolution") and isinstance(args[8], int) and args[8] > 1:
        return "depthwise" if args[8] == args[0].shape[1] else "grouped"
    if "scaled_dot_product" in name:
        return "attention"
    return KINDS.get(name, name)


def _hooks(module: nn.Module, counter: _Counter) -> Iterator[Any]:
    """Hooks that tell the counter which module is running."""
    for name, part in module.named_modules():
        if part is module and isinstance(module, fx.GraphModule):
            continue

        def enter(part: nn.Module, inputs: Any, name: str = name) -> None:
            counter.running.append(name)
            for weight in part.parameters(recurse=False):
                counter.tally.weights[id(weight)] = weight
            if next(part.children(), None) is None:
                counter.leaves.add(name)

        def leave(part: nn.Module, inputs: Any, output: Any) -> None:
            shape = getattr(output, "shape", None)
            if shape is not None and next(part.children(), None) is None:
                counter.tally.shape = tuple(shape)
                counter.tally.kind = counter.tally.kind or type(part).__name__.lower()
            counter.running.pop()

        yield part.register_forward_pre_hook(enter)
        yield part.register_forward_hook(leave)


class _GraphRun(fx.Interpreter):
    """Runs an exported graph node by node, attributing each operation to the layer it came from."""

    def __init__(self, module: fx.GraphModule, counter: _Counter) -> None:
        super().__init__(module)
        self.counter = counter

    def run_node(self, n: fx.Node) -> Any:
        if n.op not in ("call_function", "call_method"):
            return super().run_node(n)
        self.counter.running.append(layer_of(n))
        try:
            result = super().run_node(n)
            first = result[0] if isinstance(result, tuple) else result
            for weight in self._weights(n) if isinstance(first, Tensor) else []:  # not assertions
                self.counter.tally.weights[id(weight)] = weight
                self.counter.tally.shape = tuple(first.shape)
            return result
        finally:
            self.counter.running.pop()

    def _weights(self, node: fx.Node) -> list[Tensor]:
        """The parameters that a node reads, directly or through dequantization."""
        weights = []
        for source in node.all_input_nodes:
            stored = source
            while _dequantizes(stored):
                stored = stored.all_input_nodes[0]
            if stored.op != "get_attr" or _dequantizes(node):
                continue
            tensor = self.fetch_attr(str(stored.target))
            if isinstance(tensor, nn.Parameter) or stored is not source:
                weights.append(tensor)
        return weights


def _dequantizes(node: fx.Node) -> bool:
    return node.op == "call_function" and "quantize" in getattr(node.target, "__name__", "")


def left_of(whole: float, sides: Sequence[Mapping[str, float]], gone: Mapping[str, float]) -> float:
    """What is left of a layer's cost or values when these shares of groups are gone: each side, its
    inputs or its outputs, holds a share of each group that it reads or writes."""
    for side in sides:
        whole *= 1.0 - sum(gone.get(name, 0.0) * share for name, share in side.items())
    return whole
