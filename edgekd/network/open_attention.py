"""`nn.MultiheadAttention` with its projections apart, so that heads can be removed from it.

PyTorch's own module packs the three projections into one parameter and ties their size to the
width around it: with fewer heads it could not be written down.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class OpenAttention(nn.Module):
    """What `nn.MultiheadAttention` computes, called as that is, from four linear layers.

    `num_heads` may be changed together with the projections; `head_size` stays.
    """

    in_proj_bias = None  # an encoder layer asks for it, and takes its plain path without one
    _qkv_same_embed_dim = True

    def __init__(self, width: int, heads: int, bias: bool, batch_first: bool, drop: float) -> None:
        super().__init__()
        self.num_heads, self.head_size = heads, width // heads
        self.batch_first = batch_first
        self.drop = drop
        self.query, self.key = nn.Linear(width, width, bias), nn.Linear(width, width, bias)
        self.value, self.output = nn.Linear(width, width, bias), nn.Linear(width, width, bias)
        self.softmax = nn.Softmax(dim=-1)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(B, L, width) with queries (B, L, width), keys and values (B, S, width); (L, B, width)
        and so on unless `batch_first`. The weights, if asked for, are (B, L, S), or (B, heads, L,
        S) if they are not to be averaged."""
        if not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        q, k = self._split(self.query(query)), self._split(self.key(key))
        scores = q @ k.transpose(2, 3) / math.sqrt(self.head_size)
        if attn_mask is not None:
            scores = _masked(scores, attn_mask, whole=attn_mask.dim() != 3)
        if key_padding_mask is not None:
            scores = _masked(scores, key_padding_mask[:, None, None, :], whole=True)
        weights = F.dropout(self.softmax(scores), self.drop, self.training)
        mixed = (weights @ self._split(self.value(value))).transpose(1, 2).flatten(2)
        output = self.output(mixed)
        if not self.batch_first:
            output = output.transpose(0, 1)
        if not need_weights:
            return output, None
        return output, weights.mean(1) if average_attn_weights else weights

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, heads * head_size) -> (B, heads, T, head_size)."""
        return torch.unflatten(x, 2, (self.num_heads, self.head_size)).transpose(1, 2)


def _masked(scores: Tensor, mask: Tensor, *, whole: bool) -> Tensor:
    """Scores (B, heads, L, S) with a mask that fits them, unless it is (B * heads, L, S)."""
    if not whole:
        # Not by `len`, which would fix the batch size of an export.
        mask = mask.view(scores.shape[0], -1, *mask.shape[1:])
    if mask.dtype == torch.bool:
        return scores.masked_fill(mask, -math.inf)
    return scores + mask


def with_open_attention(module: nn.Module) -> nn.Module:
    """The module itself, or a copy in which attention of PyTorch's own is open. Attention whose
    keys or values have another width, or with extra keys, stays as it is."""
    names = [name for name, part in module.named_modules() if _can_open(part)]
    if not names:
        return module
    opened = copy.deepcopy(module)
    for name in names:
        made = _opened(opened.get_submodule(name))
        if not name:
            return made
        opened.set_submodule(name, made)
    return opened


def _can_open(part: nn.Module) -> bool:
    return (
        isinstance(part, nn.MultiheadAttention)
        and bool(part._qkv_same_embed_dim)
        and part.bias_k is None
        and not part.add_zero_attn
    )


def _opened(part: Any) -> OpenAttention:
    bias = part.in_proj_bias is not None
    made = OpenAttention(part.embed_dim, part.num_heads, bias, part.batch_first, part.dropout)
    with torch.no_grad():
        layers = (made.query, made.key, made.value)
        for layer, weight in zip(layers, part.in_proj_weight.chunk(3), strict=True):
            layer.weight.copy_(weight)
        made.output.weight.copy_(part.out_proj.weight)
        if bias:
            for layer, offset in zip(layers, part.in_proj_bias.chunk(3), strict=True):
                layer.bias.copy_(offset)
            made.output.bias.copy_(part.out_proj.bias)
    for parameter in made.parameters():
        parameter.requires_grad_(part.in_proj_weight.requires_grad)
    return made.to(part.in_proj_weight).train(part.training)
