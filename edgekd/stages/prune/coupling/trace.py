"""A run of the network in which every tensor carries the atoms of its dimensions.

Operations are seen below the modules, as ATen calls, so that functional code, shared layers and
layers that run twice need nothing of their own. Where a reshape or a slice leaves open what is to
shrink, the trace takes a numbered choice, and whoever reads the trace tries another.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from edgekd.stages.prune.coupling.atoms import Atoms, Numbers

Layout = dict[int, Numbers]
"""By dimension of a tensor the atom of each index; dimensions without any are left out."""

SUMMED = {
    "mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "convolution": 0, "native_layer_norm": 0,
    "_fused_rms_norm": 0, "native_group_norm": 0, "sum": 0, "mean": 0, "linalg_vector_norm": 0,
}  # fmt: skip
"""The operations that sum up channels, and which argument has them."""

Rule = Callable[["Trace", "Call"], None]


@dataclass(frozen=True)
class Call:
    """One operation as it ran: `name` is the ATen packet's."""

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    @property
    def out(self) -> Tensor:
        """The first tensor of the result."""
        first = self.result[0] if isinstance(self.result, tuple | list) else self.result
        assert isinstance(first, Tensor)
        return first

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument, given by position or by name."""
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(name, default)


@dataclass
class Site:
    """A place where the trace had to choose: what it concerns, how many choices there were besides
    leaving all as it is, and what kind of place it is, roughly and with its sizes."""

    atoms: Numbers
    choices: int
    kind: str
    sizes: tuple[int, ...]


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows a network's atoms through every operation of one run.

    `summed` has the layout of what each operation in `SUMMED` sums up, in the order of the run;
    `attending` the atoms that attention maps (..., heads, queries, keys) have one of each.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing compiles here, and telling the compiler to stay away imports it: a second."""
        return False

    def __init__(
        self,
        module: nn.Module,
        rules: Mapping[str, Rule],
        choices: Mapping[int, int],
        check: Callable[[str], None] = lambda where: None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.atoms = Atoms()
        self.sites: list[Site] = []
        self.makers: set[tuple[str, int]] = set()
        self.layer = ""
        self.summed: list[Layout] = []
        self.attending: list[Numbers] = []
        self._rules = rules
        self._check = check
        self._choices = choices
        self._layouts: Any = WeakIdKeyDictionary()
        self._uniform: Any = WeakIdKeyDictionary()
        self._squares: Any = WeakIdKeyDictionary()
        self._stored = _stored(module)

    # What rules ask and tell.

    def layout(self, tensor: Any) -> Layout:
        """The atoms of a tensor's dimensions."""
        if not isinstance(tensor, Tensor):
            return {}
        found: Layout | None = self._layouts.get(tensor)
        if found is None and id(tensor) in self._stored:
            name = self._stored[id(tensor)]
            sizes = enumerate(tensor.shape)
            found = {d: self.atoms.of(name, d, size) for d, size in sizes if size > 1}
            self._layouts[tensor] = found
        return found or {}

    def put(self, tensor: Tensor, layout: Layout) -> None:
        """Say which atoms the dimensions of a result have."""
        self._layouts[tensor] = {d: atoms for d, atoms in layout.items() if tensor.shape[d] > 1}

    def is_uniform(self, tensor: Any, dim: int | None = None) -> bool:
        """Whether all values are the same (along one dimension), so that only the size could be
        wrong."""
        if not isinstance(tensor, Tensor) or tensor in self._uniform:
            return True
        return dim is not None and tensor.stride(dim) == 0

    def mark_uniform(self, tensor: Tensor) -> None:
        """Say that all values of a tensor are the same."""
        self._uniform[tensor] = True

    def is_square(self, tensor: Tensor) -> bool:
        """Whether a tensor has squares or norms, whose mean over channels is a statistic to divide
        by."""
        return tensor in self._squares

    def mark_square(self, tensor: Tensor) -> None:
        """Say that a tensor has squares, as in a root mean square, or norms, as in a global
        response normalization."""
        self._squares[tensor] = True

    def freeze(self, atoms: Numbers | None, why: str) -> None:
        """Say that atoms must stay; the layer that runs is part of the reason."""
        if atoms is not None:
            place = f" in '{self.layer}'" if self.layer else ""
            self.atoms.freeze(atoms, f"{why}{place}")

    def choose(self, atoms: Numbers, choices: int, kind: str, sizes: Sequence[int]) -> int:
        """The number of the choice at this place, `choices` where none is left."""
        number = len(self.sites)
        self.sites.append(Site(atoms, choices, f"{kind} {choices}", tuple(sizes)))
        return min(self._choices.get(number, 0), choices)

    def made_by(self, atoms: Numbers) -> None:
        """Note which parameters' dimensions make channels."""
        self.makers |= self.atoms.owners(atoms)

    # The run.

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self._check(self.layer)
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._overloadpacket.__name__
        self._follow(Call(name, func, args, kwargs, result))
        return result

    def _follow(self, call: Call) -> None:
        tensors = [each for each in pytree.tree_leaves((call.args, call.kwargs)) if _is(each)]
        rule = self._rules.get(call.name)
        if call.name in SUMMED:
            self.summed.append(dict(self.layout(call.args[SUMMED[call.name]])))
        if rule is None and torch.Tag.pointwise in call.func.tags:
            rule = self._rules["pointwise"]
        if rule is None and not any(self.layout(each) for each in tensors):
            return
        if rule is not None:
            rule(self, call)
            return
        for tensor in tensors:
            for atoms in self.layout(tensor).values():
                self.freeze(atoms, f"they can't be followed through {call.name}")


def _is(value: Any) -> bool:
    return isinstance(value, Tensor)


def _stored(module: nn.Module) -> dict[int, str]:
    """The names of what is cut: float parameters and buffers that are saved with the network."""
    saved = set(module.state_dict(keep_vars=True))
    stored: dict[int, str] = {}
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if name in saved and value.is_floating_point():
            stored.setdefault(id(value), name)
    return stored


def run_under(mode: TorchDispatchMode, module: nn.Module, example: Any) -> Any:
    """The network's outputs; the mode sees every operation, with no in-place writes among them."""

    def forward(x: Any) -> Any:
        return module(x)

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), plain_kernels(), mode:
        return torch.func.functionalize(forward)(example)


def run(trace: Trace, module: nn.Module, example: Any) -> Any:
    """Run the network under the trace; gives its outputs."""
    with contextlib.ExitStack() as stack:
        for name, part in module.named_modules():
            for hook in _hooks(trace, name, part):
                stack.enter_context(hook)
        outputs = run_under(trace, module, example)
    for leaf in pytree.tree_leaves(outputs):
        for atoms in trace.layout(leaf).values():
            trace.atoms.outputs.append(atoms)
    return outputs


def _hooks(trace: Trace, name: str, part: nn.Module) -> Iterator[Any]:
    above: list[str] = []

    def enter(part: nn.Module, inputs: Any) -> None:
        above.append(trace.layer)
        trace.layer = name

    def leave(part: nn.Module, inputs: Any, output: Any) -> None:
        trace.layer = above.pop()

    yield part.register_forward_pre_hook(enter)
    yield part.register_forward_hook(leave)


@contextlib.contextmanager
def plain_kernels() -> Iterator[None]:
    """Without oneDNN's recurrent layers and fused encoders, which are one opaque operation each."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.backends.mkldnn.flags(enabled=False):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
