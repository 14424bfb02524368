"""Channels and whole heads go from layers that edgekd did not write, in the forms in which the
libraries write them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.stages.prune.channels import channel_groups, remove_channels
from edgekd.stages.prune.stored_sizes import resize_attention

torch.set_num_threads(1)
WIDTH, HEADS, SIZE = 24, 4, 6


class Fused(nn.Module):
    """One layer for queries, keys and values, and every number stored, as timm has it."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = HEADS, SIZE, HEADS * SIZE
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, length, self.attn_dim))


class Window(nn.Module):
    """A learned bias for each head, and a last size left open, as Swin has it."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.bias = nn.Parameter(torch.randn(HEADS, 5, 5))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attention = (q @ k.transpose(-2, -1) + self.bias.unsqueeze(0)).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(batch, length, -1))


class Separate(nn.Module):
    """Separate layers and a stored number of heads, as T5 and Whisper have it."""

    def __init__(self) -> None:
        super().__init__()
        self.n_heads, self.size, self.inner_dim = HEADS, SIZE, WIDTH
        self.q, self.k = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.v, self.o = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], x.shape[1], self.n_heads, self.size)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = torch.softmax(q @ k.transpose(2, 3), -1) @ v
        return self.o(mixed.transpose(1, 2).reshape(x.shape[0], x.shape[1], self.inner_dim))


class Split(nn.Module):
    """One layer split by a stored size, as GPT-2 has it."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.split_size = HEADS, WIDTH
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.c_attn(x).split(self.split_size, dim=2)
        shape = (x.shape[0], x.shape[1], -1, SIZE)
        q, k, v = (part.view(shape).transpose(1, 2) for part in parts)
        mixed = torch.softmax(q @ k.transpose(2, 3), -1) @ v
        return self.c_proj(mixed.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


class Block(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.embed, self.attn, self.head = nn.Linear(8, WIDTH), attention, nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head((x + self.attn(x)).mean(1))


@pytest.mark.parametrize("kind", [Fused, Window, Separate, Split])
def test_a_whole_head_goes_and_the_others_compute_what_they_did(kind):
    torch.manual_seed(0)
    module, x = Block(kind()).eval(), torch.randn(2, 5, 8)
    groups = channel_groups(module, x[:1], heads=True)
    (heads,) = [group for group in groups if group.heads]
    assert len(heads.units) == HEADS
    smaller = remove_channels(module, x, {heads.name: heads.units[1]}, groups)
    output = "proj" if hasattr(module.attn, "proj") else "c_proj"
    last = module.attn.o if kind is Separate else getattr(module.attn, output)
    with torch.no_grad():
        last.weight[:, SIZE : 2 * SIZE] = 0.0  # what the second head adds
    torch.testing.assert_close(smaller(x), module(x))
    assert last.in_features == WIDTH
    small = smaller.attn
    assert {name: vars(small)[name] for name in vars(module.attn) if "heads" in name} == {
        name: HEADS - 1 for name in vars(module.attn) if "heads" in name
    }


@pytest.mark.parametrize("kind", [Fused, Window, Separate, Split])
def test_the_width_around_an_attention_is_still_its_own_group(kind):
    torch.manual_seed(0)
    module, x = Block(kind()).eval(), torch.randn(1, 5, 8)
    groups = channel_groups(module, x, heads=True)
    (stream,) = [group for group in groups if "embed" in group.layers]
    assert len(stream.units) == WIDTH
    smaller = remove_channels(module, x, {stream.name: [0, 5]}, groups)
    assert smaller.embed.out_features == WIDTH - 2
    assert smaller(x).shape == (1, 3)


def test_counts_stay_where_no_projection_shrinks():
    block = Fused()
    resize_attention(block, {"proj": (24, 12)})
    resize_attention(block, {"qkv": (72, 72)})
    assert (block.num_heads, block.attn_dim) == (HEADS, WIDTH)
    resize_attention(block, {"qkv": (72, 54), "proj": (24, 12)})
    assert (block.num_heads, block.attn_dim) == (3, 18)
    resize_attention(block, {"qkv": (54, 53)})  # no whole number of heads
    assert (block.num_heads, block.attn_dim) == (3, 18)


def test_the_shape_in_which_a_scale_is_viewed_goes_with_its_channels():
    class Scale(nn.Module):
        """A factor for each channel, viewed in a shape that it stored, as PoolFormer has it."""

        def __init__(self) -> None:
            super().__init__()
            self.shape = (8, 1, 1)
            self.scale = nn.Parameter(torch.rand(8))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale.view(self.shape)

    module = nn.Sequential(nn.Conv2d(3, 8, 3), Scale(), nn.Conv2d(8, 2, 3)).eval()
    x = torch.randn(1, 3, 8, 8)
    groups = channel_groups(module, x)
    smaller = remove_channels(module, x, {groups[0].name: [1, 4, 6]}, groups)
    assert smaller[1].shape == (5, 1, 1)
    with torch.no_grad():
        module[2].weight[:, [1, 4, 6]] = 0.0
    torch.testing.assert_close(smaller(x), module(x))


def test_channels_go_through_a_global_response_normalization():
    class Response(nn.Module):
        """Each channel's norm over positions, divided by their mean, as ConvNeXt V2 has it."""

        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8))

        def forward(self, x: Tensor) -> Tensor:
            norm = x.norm(p=2, dim=(1, 2), keepdim=True)
            scaled = x * (norm / (norm.mean(dim=-1, keepdim=True) + 1e-6))
            return x + torch.addcmul(self.bias, self.weight, scaled)

    module = nn.Sequential(nn.Linear(3, 8), Response(), nn.Linear(8, 2)).eval()
    x = torch.randn(1, 4, 4, 3)
    groups = channel_groups(module, x)
    (hidden,) = [group for group in groups if group.can_go]
    assert len(hidden.units) == 8
    smaller = remove_channels(module, x, {hidden.name: [2, 5]}, groups)
    assert smaller[1].weight.shape == (6,)


class Stacked(nn.Module):
    """Attentions with small weights, whose scores are almost equal and all but average."""

    def __init__(self) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(Fused() for _ in range(3))
        for parameter in self.parameters():
            parameter.data.mul_(0.02)

    def forward(self, x: Tensor) -> Tensor:
        for attention in self.attentions:
            x = x + attention(x)
        return x


def test_a_wrong_cut_that_hardly_changes_the_outputs_is_not_taken_for_right() -> None:
    """Half of each head's size, read as half of the heads, differs by 1e-8."""
    torch.manual_seed(0)
    module, x = Stacked().eval(), torch.randn(1, 5, WIDTH)
    groups = [group for group in channel_groups(module, x) if "qkv" in group.name]
    assert [len(group.units) for group in groups] == [HEADS] * 3


class Split(nn.Module):
    """A split into pieces of a width that it stores, which no cut changes, as Res2Net has it."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 1), nn.Conv2d(4, 4, 1)
        self.conv3, self.width = nn.Conv2d(8, 8, 1), 4
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            return x + self.conv3(self.conv1(x).relu())
        one, other = torch.split(self.conv1(x), self.width, 1)
        return x + self.conv3(torch.cat([self.conv2(one), other], 1))


@pytest.mark.parametrize("order", [(0, 0, 1, 0), (1, 0, 0, 0), (1, 1, 0, 1)])
def test_blocks_with_the_names_of_one_that_failed_are_each_judged(order: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    blocks = [Split(first=bool(each)) for each in order]
    module, x = (
        nn.Sequential(nn.Conv2d(3, 8, 1), *blocks, nn.Conv2d(8, 2, 1)),
        torch.randn(1, 3, 4, 4),
    )
    groups = channel_groups(module.eval(), x)
    for group in groups:
        if group.can_go:  # whatever goes, the network runs
            remove_channels(module, x, {group.name: list(group.units[0])}, groups)
    free = {group.name for group in groups if group.can_go}
    assert {f"{number}.conv1" for number, each in enumerate(order, 1) if each} <= free


class CrossCovariance(nn.Module):
    """Attention between channels, joined to the width of its input, as EdgeNeXt has it."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 4, 1)
        q, k, v = qkv.unbind(0)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        joined = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).permute(0, 3, 1, 2)
        return x + self.proj(joined.reshape(batch, length, width))


def test_a_cut_that_fits_at_a_half_alone_is_not_taken_for_right() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, WIDTH), CrossCovariance(), nn.Linear(WIDTH, 2)).eval()
    x = torch.randn(1, 5, 3)
    groups = channel_groups(module, x)
    for group in groups:
        if group.can_go:
            remove_channels(module, x, {group.name: list(group.units[0])}, groups)
    assert not any(group.can_go for group in groups if "qkv" in group.name)
