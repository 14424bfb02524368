"""transformers' language models, small and with random weights: followed, pruned, factorized."""

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd.installed import has_module, import_torchvision
from edgekd.stages.factorize.sites import find_sites
from edgekd.stages.prune.blocks import residual_blocks
from edgekd.stages.prune.channels import channel_groups, remove_channels
from edgekd.stages.prune.groups import Group
from edgekd.stages.prune.weights import kernels

if not has_module("transformers"):
    pytest.skip("transformers is not installed", allow_module_level=True)
import_torchvision()  # which transformers imports where it is installed
import transformers  # noqa: E402

pytestmark = pytest.mark.slow
torch.set_num_threads(1)


class Logits(nn.Module):
    """A language model from ids, which come as floats, to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x.long()).logits
        return logits


def llama() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=100, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=64, use_cache=False,
    )  # fmt: skip
    return Logits(transformers.LlamaForCausalLM(config)).eval()


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=100, n_embd=64, n_layer=2, n_head=4, n_positions=32, use_cache=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return Logits(transformers.GPT2LMHeadModel(config)).eval()


IDS = torch.arange(24).remainder(100).float().view(2, 12)


def silenced(module: nn.Module, group: Group, unit: tuple[int, ...], columns: str) -> Tensor:
    """What the network gives with zeros where one layer reads these channels."""
    with torch.no_grad():
        layer: Any = module.get_submodule(columns)
        dim = 0 if type(layer).__name__ == "Conv1D" else 1
        layer.weight.index_fill_(dim, torch.tensor(unit), 0.0)
        outputs: Tensor = module(IDS)
    return outputs


def test_a_llama_with_grouped_queries_is_followed_in_seconds_and_loses_heads() -> None:
    module = llama()
    start = time.monotonic()
    groups = {group.name: group for group in channel_groups(module, IDS[:1])}
    assert time.monotonic() - start < 30
    assert not any(group.reason for group in groups.values())
    heads = groups["model.model.layers.0.self_attn.q_proj"]
    hidden = groups["model.model.layers.1.mlp.gate_proj"]
    # Two of eight queries share one of four keys, and go with it.
    assert [len(unit) for unit in heads.units] == [16] * 4
    assert len(hidden.units) == 96
    for group, columns in (
        (heads, "model.model.layers.0.self_attn.o_proj"),
        (hidden, "model.model.layers.1.mlp.down_proj"),
    ):
        smaller = remove_channels(module, IDS, {group.name: group.units[1]}, [group])
        assert torch.allclose(
            smaller(IDS), silenced(llama(), group, group.units[1], columns), atol=1e-5
        )


def test_gpt2s_layers_by_columns_are_seen_by_every_stage() -> None:
    module = gpt2()
    groups = {group.name: group for group in channel_groups(module, IDS[:1])}
    hidden = groups["model.transformer.h.0.mlp.c_fc"]
    assert len(hidden.units) == 256
    smaller = remove_channels(module, IDS, {hidden.name: [3, 9]}, [hidden])
    columns = "model.transformer.h.0.mlp.c_proj"
    assert torch.allclose(smaller(IDS), silenced(gpt2(), hidden, (3, 9), columns), atol=1e-5)
    heads = groups["model.transformer.h.0.attn.c_attn"]
    assert heads.heads
    assert [len(unit) for unit in heads.units] == [48] * 4  # its query, key and value
    fewer = remove_channels(module, IDS, {heads.name: heads.units[2]}, [heads])
    attention = fewer.model.transformer.h[0].attn
    assert (attention.num_heads, attention.split_size) == (3, 48)
    columns = tuple(range(32, 48))
    expected = silenced(gpt2(), heads, columns, "model.transformer.h.0.attn.c_proj")
    assert torch.allclose(fewer(IDS), expected, atol=1e-5)
    sites, left = find_sites(module, IDS[:1], "svd", "auto", lambda name: False)
    assert len(sites) == 9  # four in each block, and the head
    assert not left
    assert len(kernels(module, lambda name: False)) == 9


def test_blocks_of_a_llama_are_called_with_keywords_and_stay() -> None:
    """An identity in their place could not be called like that."""
    assert residual_blocks(llama(), IDS[:1]) == []
