"""What a module of any library remembers about its sizes, kept true when channels go.

An attention block's `forward` often reshapes with numbers that it stored: `num_heads`, or their
total width. Only the known names below are changed, and only in step with the block's own input
projections; that the block then computes the right thing is verified like every cut.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from torch import nn

HEADS = ("num_heads", "n_heads", "n_head", "heads", "num_attention_heads", "num_key_value_heads")
WIDTHS = ("attn_dim", "all_head_size", "inner_dim", "split_size", "embed_dim", "attn_out_dim")
PROJECTION = re.compile(
    r"(to_|w_|c_|in_)?(q|k|v|qkv|kv|qk|query|key|value|attn|proj_?[qkv])(_?(proj|lin|linear))?"
)
"""The names of the layers that make queries, keys and values."""

Sizes = Mapping[str, tuple[int, int]]
"""How many outputs a block's own layers had, by name, and have now."""


def outputs_of(layer: Any) -> int:
    """How many outputs a layer says that it has; 0 for other modules."""
    sizes = (getattr(layer, name, None) for name in ("out_features", "out_channels", "nf"))
    return next((size for size in sizes if isinstance(size, int)), 0)


def resize_attention(block: nn.Module, sizes: Sizes) -> None:
    """Scale a block's counts of heads, and their widths, as its projections were."""
    projections = {name: pair for name, pair in sizes.items() if PROJECTION.fullmatch(name)}
    shares = {Fraction(after, before) for before, after in projections.values() if before}
    if len(shares) != 1 or shares == {Fraction(1)}:
        return
    share = shares.pop()
    widths = {before // parts for before, _ in projections.values() for parts in (1, 2, 3)}
    for name in (*HEADS, *WIDTHS):
        count = vars(block).get(name)
        if not isinstance(count, int) or (name in WIDTHS and count not in widths):
            continue
        scaled = count * share
        if scaled.denominator == 1:
            setattr(block, name, int(scaled))


def resize_shapes(module: nn.Module, before: int, after: int) -> None:
    """Change the shapes, such as (C, 1, 1), in which a module that owns a vector of C views it."""
    for name, value in vars(module).items():
        if not (
            isinstance(value, tuple)
            and sorted(value, key=str) == sorted([before, *[1] * (len(value) - 1)], key=str)
        ):
            continue
        vars(module)[name] = tuple(after if size == before else size for size in value)
