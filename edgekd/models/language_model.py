"""A small causal Transformer: logits for the next token at every position.

Vaswani et al. 2017, pre-norm. Tokens are float32 numbers, since every network here takes one
float tensor; the model itself turns them into integers.
"""

import math

import torch
from torch import Tensor, nn

from edgekd.models.transformer import Attention


class CausalAttention(Attention):
    """Attention that looks back only: (B, T, width) -> (B, T, width) for T up to `length`."""

    mask: Tensor

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__(width, heads)
        ahead = torch.triu(torch.ones(length, length), diagonal=1)
        self.register_buffer("mask", ahead * -1e4)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self._split(part(x)) for part in (self.query, self.key, self.value))
        scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(self.head_size)
        mixed = torch.matmul(self.softmax(scores + self.mask), value).transpose(1, 2)
        output: Tensor = self.output(mixed.flatten(2))
        return output


class DecoderBlock(nn.Module):
    """Causal attention and a two-layer perceptron, each normed before and added to its input."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads, length)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.gelu = nn.GELU()
        self.project = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        output: Tensor = x + self.project(self.gelu(self.expand(self.norm2(x))))
        return output


class LanguageModel(nn.Module):
    """Tokens (B, length) as float32 -> logits (B, length, classes)."""

    def __init__(self, classes: int, length: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(classes, width)
        self.position = nn.Parameter(torch.randn(1, length, width) * 0.02)
        self.blocks = nn.Sequential(*(DecoderBlock(width, heads, length) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        # A runtime refuses to look up what isn't in the table, and benchmarks feed any numbers.
        known = x.clamp(0, self.embed.num_embeddings - 1)
        tokens = self.embed(known.to(torch.int32))
        logits: Tensor = self.head(self.norm(self.blocks(tokens + self.position)))
        return logits


def language_model(
    classes: int = 37, length: int = 32, width: int = 32, depth: int = 1, heads: int = 2
) -> LanguageModel:
    """A language model for windows of `length` tokens."""
    return LanguageModel(classes, length, width, depth, heads)
