"""A small vision Transformer with a class token and a distillation token (DeiT).

Touvron et al. 2021 (https://arxiv.org/abs/2012.12877): both tokens go through every block, each has
a linear head of its own, and the deployed network gives the mean of both heads' logits.
"""

import torch
from torch import Tensor, nn

from edgekd.models.transformer import EncoderBlock


class DistilledTransformer(nn.Module):
    """Images (B, channels, size, size) in patches to logits (B, classes).

    `head` and `distillation_head` give the logits of the class and of the distillation token.
    """

    def __init__(
        self, embed: nn.Module, tokens: int, width: int, depth: int, heads: int, classes: int
    ) -> None:
        super().__init__()
        self.embed = embed
        self.tokens = nn.Parameter(torch.randn(1, 2, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, tokens + 2, width) * 0.02)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads, 2 * width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        self.distillation_head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        tokens = self.tokens.expand(x.shape[0], -1, -1)
        features = self.norm(self.blocks(torch.cat([tokens, patches], dim=1) + self.position))
        logits: Tensor = (self.head(features[:, 0]) + self.distillation_head(features[:, 1])) / 2
        return logits


def distilled_transformer(
    size: int = 28,
    channels: int = 1,
    classes: int = 10,
    patch: int = 4,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
) -> DistilledTransformer:
    """A DeiT for images of `size` x `size` in square patches."""
    if size % patch:
        raise ValueError(f"a size of {size} is not divisible by patches of {patch}")
    embed = nn.Conv2d(channels, width, patch, stride=patch)
    return DistilledTransformer(embed, (size // patch) ** 2, width, depth, heads, classes)
