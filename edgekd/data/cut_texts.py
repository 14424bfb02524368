"""How many texts a tokenizer cuts: what is left out is told."""

from collections.abc import Iterator, Mapping
from typing import Any

from edgekd.data.draws import callers_randomness
from edgekd.data.prepare import Encoder, Prepare
from edgekd.data.probe import spread
from edgekd.data.structure import split_sample

LOOKED_AT = 2000
"""Texts of each part, spread evenly over it, that are looked at."""


def cut_texts(parts: Mapping[str, Any], prepare: Prepare | None) -> Iterator[str]:
    """A note on each map-style data set of texts, some of which are longer than the tokenizer's
    length."""
    if not isinstance(prepare, Encoder):
        return
    for name, part in parts.items():
        if not hasattr(part, "__getitem__") or not hasattr(part, "__len__"):
            continue
        rows = spread(len(part), LOOKED_AT)
        with callers_randomness():
            texts = [split_sample(part[row], name)[0] for row in rows]
        cut = sum(prepare.cuts(text) for text in texts if isinstance(text, str))
        if cut:
            of = f"{len(rows):,} texts" + (" looked at" if len(rows) < len(part) else "")
            yield (
                f"{name}: {cut:,} of {of} are longer than {prepare.length:,} tokens, and are cut "
                "to that length (data.preprocess.tokenizer)"
            )
