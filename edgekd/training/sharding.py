"""Networks divided over the processes of a training (FSDP), so that each holds a share of them.

PyTorch's `fully_shard`: each process keeps its share of every parameter, of its gradient and of the
optimizer's state. A block is put together when it is run and divided again after it. Zhao et al.
2023, https://arxiv.org/abs/2304.11277.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.network.evaluation import evaluating
from edgekd.values.tree import Tree, leaves, moved


class Sharding:
    """The networks of one training that are divided, and the most that a process held of them."""

    def __init__(self) -> None:
        self.peak_bytes: dict[str, int] = {}
        self.whole_bytes: dict[str, int] = {}

    @property
    def note(self) -> str:
        """What was held, in words; empty in a single process."""
        if not self.peak_bytes:
            return ""
        parts = [
            f"{name} at most {peak / 1e6:,.2f} of {self.whole_bytes[name] / 1e6:,.2f} MB"
            for name, peak in self.peak_bytes.items()
        ]
        return f"parameters in each of {world_size()} processes: {', '.join(parts)}"

    @contextmanager
    def divided(self, name: str, module: nn.Module, example: Tree) -> Iterator[None]:
        """A context in which the processes share the network, which all of them must run equally
        often; it is whole on the CPU in each of them afterwards. One process keeps it whole. An
        exception leaves it divided: the other processes may be elsewhere, so nothing can be put
        together, and `torchrun` ends them."""
        if world_size() == 1:
            yield
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        device = next(module.parameters()).device
        mesh = init_device_mesh(device.type, (world_size(),))
        blocks = blocks_of(module, moved(example, device))
        changed = [*blocks, module]
        before = [_Before.of(part) for part in changed]
        self.whole_bytes[name] = held_bytes(module)
        for part in changed:
            fully_shard(part, mesh=mesh)
        self.peak_bytes[name] = held_bytes(module)
        watches = [part.register_forward_pre_hook(self._watch(name, module)) for part in changed]
        watches += [
            part.register_forward_hook(self._watch_gradient(name, module)) for part in changed
        ]
        yield
        for watch in watches:
            watch.remove()
        _make_whole(module, before)

    def _watch(self, name: str, module: nn.Module) -> Any:
        def look(*_: Any) -> None:
            self.peak_bytes[name] = max(self.peak_bytes[name], held_bytes(module))

        return look

    def _watch_gradient(self, name: str, module: nn.Module) -> Any:
        """Looks again when a block's gradient arrives, and the block was put together for it."""
        look = self._watch(name, module)

        def hook(part: nn.Module, inputs: Any, output: Any) -> None:
            for leaf in leaves(output):
                if isinstance(leaf, Tensor) and leaf.requires_grad:
                    leaf.register_hook(look)  # type: ignore[no-untyped-call]

        return hook


def world_size() -> int:
    """How many processes train together."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if together else 1


def blocks_of(module: nn.Module, example: Tree) -> list[nn.Module]:
    """The parts that are put together one at a time: what lists and sequences of the network have
    in them, as far as one run on `example` calls each of them once and no other part shares a
    parameter with it. Of parts within each other it is the outer one."""
    calls: dict[nn.Module, int] = {}
    names: dict[nn.Module, str] = {}
    for name, part in module.named_modules():
        for place, child in part.named_children():
            listed = isinstance(part, nn.ModuleList)
            chained = isinstance(part, nn.Sequential) and not isinstance(child, LISTS)
            if (listed or chained) and any(True for _ in child.parameters()):
                calls[child], names[child] = 0, f"{name}.{place}".removeprefix(".")

    def count(part: nn.Module, *_: Any) -> None:
        calls[part] += 1

    handles = [part.register_forward_pre_hook(count) for part in calls]
    try:
        with evaluating(module), torch.no_grad():
            module(example)
    finally:
        for handle in handles:
            handle.remove()
    found = [part for part in calls if calls[part] == 1 and not _shares(part, module)]
    inner = {
        part for part in found if any(names[part].startswith(f"{names[outer]}.") for outer in found)
    }
    return [part for part in found if part not in inner]


LISTS = (nn.ModuleList, nn.Sequential)


def _shares(part: nn.Module, whole: nn.Module) -> bool:
    """Whether a parameter of the part stands elsewhere too."""
    own = {id(value) for value in part.parameters()}
    within = set(part.modules())
    return any(
        id(value) in own
        for other in whole.modules()
        if other not in within
        for value in other.parameters(recurse=False)
    )


def held_bytes(module: nn.Module) -> int:
    """The bytes of parameters that this process holds now: shares, and what is put together."""
    total, seen = 0, set[int]()
    for value in module.parameters():
        if id(value) not in seen:
            seen.add(id(value))
            total += local(value).nbytes
    return total


def is_divided(value: Tensor) -> bool:
    """Whether processes share a tensor."""
    return hasattr(value, "to_local")


def local(value: Tensor) -> Tensor:
    """This process's share of a tensor, or a tensor that is not divided."""
    share = getattr(value, "to_local", None)
    mine: Tensor = value if share is None else share()
    return mine.detach()


def clip_gradients(module: nn.Module, most: float) -> None:
    """`clip_grad_norm_` where some parameters are divided: one norm of all gradients."""
    squares = torch.zeros(2)
    gradients = [value.grad for value in module.parameters() if value.grad is not None]
    for gradient in gradients:
        square = local(gradient).square().sum().cpu()
        squares[int(is_divided(gradient))] += square
    torch.distributed.all_reduce(squares[1:])
    share = most / (float(squares.sum().sqrt()) + 1e-6)
    if share < 1:
        for gradient in gradients:
            local(gradient).mul_(share)


def local_state(module: nn.Module) -> dict[str, Tensor]:
    """This process's share of a network's state."""
    state = module.state_dict().items()
    return {name: local(value) for name, value in state if isinstance(value, Tensor)}


def load_local_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Write this process's share of a network's state back."""
    if not any(map(is_divided, module.parameters())):
        module.load_state_dict(dict(state))
        return
    with torch.no_grad():
        for name, value in local_state(module).items():
            value.copy_(state[name])


def like_parameter(value: Tensor, parameter: Any) -> Tensor:
    """A share as a divided tensor, if the parameter is divided and has a share of that shape."""
    if not is_divided(parameter) or value.shape != local(parameter).shape:
        return value
    from torch.distributed.tensor import DTensor

    made: Tensor = DTensor.from_local(
        value,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
    return made


def average_gradients(modules: Sequence[nn.Module]) -> None:
    """The mean over processes of gradients of networks that each process holds whole."""
    for module in modules:
        for value in module.parameters():
            if value.grad is not None:
                torch.distributed.all_reduce(value.grad)
                value.grad /= world_size()


def common_epoch(epochs: Sequence[int]) -> int:
    """The last finished epoch of which every process has a checkpoint; 0 for none."""
    if world_size() == 1:
        return max(epochs, default=0)
    every: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(every, sorted(epochs))
    return max(set.intersection(*(set(each) for each in every)), default=0)


@dataclass(frozen=True)
class _Before:
    """What a part was like before it was divided: its class, its attributes and its hooks."""

    part: nn.Module
    kind: type
    attributes: frozenset[str]
    hooks: frozenset[int]

    @classmethod
    def of(cls, part: nn.Module) -> "_Before":
        hooks = frozenset((*part._forward_pre_hooks, *part._forward_hooks))
        return cls(part, type(part), frozenset(vars(part)), hooks)

    def restore(self) -> None:
        """Take away what `fully_shard` added."""
        self.part.__class__ = self.kind
        for name in vars(self.part).keys() - self.attributes:
            delattr(self.part, name)
        for hooks in (
            self.part._forward_pre_hooks,
            self.part._forward_hooks,
            self.part._forward_pre_hooks_with_kwargs,
            self.part._forward_hooks_with_kwargs,
        ):
            for key in hooks.keys() - self.hooks:
                del hooks[key]


def _make_whole(module: nn.Module, before: Sequence[_Before]) -> None:
    """Put every parameter together in each process, and take away what divided the network."""
    for each in before:
        each.part.reshard()  # type: ignore[operator]
    made: dict[int, nn.Parameter] = {}
    for part in module.modules():
        parameters: dict[str, Any] = part._parameters
        for name, value in parameters.items():
            if value is not None and is_divided(value):
                if id(value) not in made:
                    whole = value.detach().full_tensor().cpu()
                    made[id(value)] = nn.Parameter(whole, requires_grad=value.requires_grad)
                parameters[name] = made[id(value)]
    for each in before:
        each.restore()
