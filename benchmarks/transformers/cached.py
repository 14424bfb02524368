"""GPT-2 that reads one token at a time: what it knows of the text comes in and goes out as a cache.

A deployed file has no state of its own. Keys and values of every layer are inputs, with a place for
each of the model's positions, and outputs with the new token's written at its place.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgekd.installed import import_torchvision

HERE = Path(__file__).parent


class Step(nn.Module):
    """One step of a `GPT2LMHeadModel`.

    `token` and `position` (B, 1), `keys` and `values` (B, layers, heads, positions, d) -> `logits`
    (B, classes) for the token that follows, and both caches.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.heads = model.config.n_head

    def forward(
        self, token: Tensor, position: Tensor, keys: Tensor, values: Tensor
    ) -> dict[str, Tensor]:
        body = self.model.transformer
        places = torch.arange(keys.shape[3])[None]
        written = (places == position)[:, None, :, None]
        seen = (places <= position)[:, None, None, :]
        x = body.wte(token) + body.wpe(position)
        new_keys, new_values = [], []
        for number, block in enumerate(body.h):
            query, key, value = (
                part.unflatten(2, (self.heads, -1)).transpose(1, 2)
                for part in block.attn.c_attn(block.ln_1(x)).chunk(3, 2)
            )
            key = torch.where(written, key, keys[:, number])
            value = torch.where(written, value, values[:, number])
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
            x = x + block.attn.c_proj(mixed.transpose(1, 2).flatten(2))
            x = x + block.mlp(block.ln_2(x))
            new_keys.append(key)
            new_values.append(value)
        logits = self.model.lm_head(body.ln_f(x))[:, 0]
        return {
            "logits": logits,
            "keys": torch.stack(new_keys, 1),
            "values": torch.stack(new_values, 1),
        }


def step(config: str = "gpt2.json", **changes: Any) -> Step:
    """The step network of a configuration; its weights are those of the whole one."""
    import_torchvision()
    import transformers

    read = transformers.AutoConfig.from_pretrained(str(HERE / config), use_cache=False, **changes)
    return Step(transformers.GPT2LMHeadModel(read))


def empty_cache(config: Any, count: int) -> dict[str, Tensor]:
    """What a text begins with."""
    size = config.n_embd // config.n_head
    shape = (count, config.n_layer, config.n_head, config.n_positions, size)
    return {"keys": torch.zeros(shape), "values": torch.zeros(shape)}


def steps(weights: str, train: int = 300, test: int = 300, **changes: Any) -> dict[str, Any]:
    """Samples of single steps: the cache that the model itself has after some characters of a text,
    the character that it reads then, and as label the one that follows."""
    from texts import letters

    network = step(**changes).eval()
    network.load_state_dict(load_file(HERE / weights), strict=False)
    parts = letters(train=train, test=test)
    return {
        "train": _samples(network, *parts["train"]),
        "test": _samples(network, *parts["test"]),
        "labels": parts["labels"],
        "classes": len(parts["labels"]),
    }


@torch.no_grad()
def _samples(
    network: Step, texts: np.ndarray, following: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A place in each text, drawn once."""
    tokens, length = torch.from_numpy(texts), texts.shape[1]
    chosen = torch.from_numpy(np.random.default_rng(0).integers(1, length, len(texts)))
    cache = empty_cache(network.model.config, len(texts))
    kept = {name: value.clone() for name, value in cache.items()}
    for place in range(length - 1):
        position = torch.full((len(texts), 1), place)
        outputs = network(tokens[:, place : place + 1], position, **cache)
        cache = {name: outputs[name] for name in cache}
        here = (chosen == place + 1)[:, None, None, None, None]
        kept = {name: torch.where(here, cache[name], kept[name]) for name in kept}
    rows = torch.arange(len(texts))
    inputs = {"token": tokens[rows, chosen][:, None], "position": chosen[:, None], **kept}
    labels = following[rows.numpy(), chosen.numpy()]
    return {name: value.numpy() for name, value in inputs.items()}, labels
