"""Class tokens of transformers, joined and picked by operators that compute in integers.

- A constant that is repeated for each sample and joined with a value is that value, padded, plus a
  constant; a constant that is added next, such as a position embedding, is part of it. Runtimes
  repeat a constant in float.
- One token of a layer norm's result is the norm of that token: picking it first saves the others'.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.quant import ops
from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.inserting import insert_call, insert_constant, replace_by

aten = torch.ops.aten

_NORMS = {aten.layer_norm.default, aten.rms_norm.default}


def rewrite_tokens(graph: fx.GraphModule) -> None:
    """Rewrite every join with a repeated constant and every token picked behind a norm."""
    for node in list(graph.graph.nodes):
        if node.target is aten.cat.default:
            _add_token(graph, node)
        elif node.target in _NORMS:
            _pick_first(graph, node)
    graph.graph.eliminate_dead_code()


def _add_token(graph: fx.GraphModule, join: fx.Node) -> None:
    parts: list[Any] = list(join.args[0])  # type: ignore[arg-type]
    rank = join.meta["val"].dim()
    given: Any = join.args[1] if len(join.args) > 1 else join.kwargs.get("dim", 0)
    dim = given % rank
    values = [place for place, part in enumerate(parts) if _repeated(part) is None]
    if len(values) != 1 or len(parts) == 1 or dim == 0 or not _has_fixed_sizes(join):
        return
    (place,) = values
    tokens = [_repeated(part) for part in parts]
    pieces = [
        torch.zeros(1, *part.meta["val"].shape[1:]) if token is None else constant_of(graph, token)
        for part, token in zip(parts, tokens, strict=True)
    ]
    constant = torch.cat([piece.detach() for piece in pieces], dim)
    learned = any(isinstance(piece, nn.Parameter) for piece in pieces)
    before, behind = (
        sum(piece.shape[dim] for piece in some) for some in (pieces[:place], pieces[place + 1 :])
    )
    last, summand = _added_next(graph, join, constant)
    if summand is not None:
        learned = learned or isinstance(summand, nn.Parameter)
        constant = constant + summand.detach()
    with graph.graph.inserting_before(last):
        pads = [0, 0] * (rank - 1 - dim) + [before, behind]
        padded = graph.graph.call_function(aten.constant_pad_nd.default, (parts[place], pads, 0.0))
        padded.meta.update(join.meta)  # without a fake call, which would fix the batch size
        value: Tensor = nn.Parameter(constant) if learned else constant
        token = insert_constant(graph, f"{join.name}_tokens", value, join)
        result = insert_call(graph, aten.add.Tensor, (padded, token), join)
    replace_by(last, result)


def _repeated(part: Any) -> fx.Node | None:
    """The constant (1, ...) that a node repeats for each sample."""
    if part.target not in (aten.expand.default, aten.expand_as.default, aten.repeat.default):
        return None
    source: Any = part.args[0]
    if not is_constant(source) or not source.meta["val"].is_floating_point():
        return None
    same = source.meta["val"].shape[1:] == part.meta["val"].shape[1:]
    return source if same and source.meta["val"].shape[0] == 1 else None


def _has_fixed_sizes(node: fx.Node) -> bool:
    return all(isinstance(size, int) for size in node.meta["val"].shape[1:])


def _added_next(
    graph: fx.GraphModule, join: fx.Node, constant: Tensor
) -> tuple[fx.Node, Tensor | None]:
    """The sum with another constant that is all that reads the join, and that constant."""
    user = next(iter(join.users)) if len(join.users) == 1 else None
    if user is None or user.target is not aten.add.Tensor or user.kwargs:
        return join, None
    other: Any = user.args[1] if user.args[0] is join else user.args[0]
    if not is_constant(other):
        return join, None
    summand = constant_of(graph, other)
    if user.meta["val"].shape[1:] != join.meta["val"].shape[1:]:
        return join, None
    floats = summand.is_floating_point()
    fits = floats and (constant + summand.detach()).shape == constant.shape
    return (user, summand) if fits else (join, None)


def _pick_first(graph: fx.GraphModule, norm: fx.Node) -> None:
    x: Any = norm.args[0]
    rank = norm.meta["val"].dim()
    before = rank - len(norm.args[1])  # type: ignore[arg-type]
    picks: list[Any] = list(norm.users)
    if not picks or x.target in ops.WEIGHTED:
        return
    if not all(pick.target is aten.select.int and pick.args[1] % rank < before for pick in picks):
        return
    for pick in picks:
        with graph.graph.inserting_before(pick):
            one = insert_call(graph, aten.select.int, (x, *pick.args[1:]), pick)
            result = insert_call(graph, norm.target, (one, *norm.args[1:]), norm)
            result.kwargs = dict(norm.kwargs)
        replace_by(pick, result)
