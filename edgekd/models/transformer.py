"""A small Transformer encoder for images in patches and for sequences.

Vaswani et al. 2017 and Dosovitskiy et al. 2020 (ViT), pre-norm, with a mean over tokens instead of
a class token. Attention is spelt out in linear layers, matrix products and a softmax, so that
export, head pruning and quantization see simple operators.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention, softmax(q k^T / sqrt(d)) v: (B, T, width) -> (B, T, width).

    `heads` and `head_size` are kept as attributes: head pruning shrinks the projections and sets
    `heads` again.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} is not divisible by {heads} heads")
        self.heads = heads
        self.head_size = width // heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self._split(part(x)) for part in (self.query, self.key, self.value))
        scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(self.head_size)
        mixed = torch.matmul(self.softmax(scores), value).transpose(1, 2)
        output: Tensor = self.output(mixed.flatten(2))
        return output

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, heads * head_size) -> (B, heads, T, head_size)."""
        return torch.unflatten(x, 2, (self.heads, self.head_size)).transpose(1, 2)


class EncoderBlock(nn.Module):
    """Attention and a two-layer perceptron, each normed before and added to its input."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.gelu = nn.GELU()
        self.project = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        output: Tensor = x + self.project(self.gelu(self.expand(self.norm2(x))))
        return output


class Encoder(nn.Module):
    """Embedding by patches, positions, blocks, mean and classifier; output (B, classes).

    Input (B, channels, H, W) for images and (B, channels, L) for sequences: `embed` is the strided
    convolution that makes (B, width, ...) of them.
    """

    def __init__(
        self, embed: nn.Module, tokens: int, width: int, depth: int, heads: int, classes: int
    ) -> None:
        super().__init__()
        self.embed = embed
        self.position = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads, 2 * width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        features = self.norm(self.blocks(tokens + self.position))
        logits: Tensor = self.classifier(features.mean(1))
        return logits


def transformer(
    size: int = 28,
    channels: int = 1,
    classes: int = 10,
    patch: int = 4,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
    kind: Literal["image", "sequence"] = "image",
) -> Encoder:
    """An encoder for images of `size` x `size`, or sequences that long, in tokens of `patch`."""
    if size % patch:
        raise ValueError(f"a size of {size} is not divisible by patches of {patch}")
    if kind == "image":
        image = nn.Conv2d(channels, width, patch, stride=patch)
        return Encoder(image, (size // patch) ** 2, width, depth, heads, classes)
    sequence = nn.Conv1d(channels, width, patch, stride=patch)
    return Encoder(sequence, size // patch, width, depth, heads, classes)
