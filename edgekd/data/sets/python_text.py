"""Real text without a download: the language reference that Python carries for `help()`."""

import string

import numpy as np
import torch

from edgekd.data.samples import Samples
from edgekd.data.sets import SETS
from edgekd.data.source import Source
from edgekd.data.tasks.tokens import Tokens

LETTERS = "\n " + string.ascii_lowercase + ".,()'-:="
"""Upper case is lowered; every other character is the last class, `other`."""


@SETS.register(paper="The Python Language Reference, pydoc_data.topics")
def python_text(
    length: int = 32, train: int = 2000, test: int = 300, most: int = 300_000
) -> Source:
    """Windows of `length` characters, each character's label the one that follows: a language
    model's data, 37 classes. Inputs are class numbers as float32; the last tenth of the text is
    the test set."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))[:most].lower()
    known = {letter: number for number, letter in enumerate(LETTERS)}
    codes = np.array([known.get(letter, len(LETTERS)) for letter in text], np.int64)
    edge = len(codes) * 9 // 10
    return Source(
        train=_windows(codes[:edge], length, train),
        test=_windows(codes[edge:], length, test),
        labels=(*LETTERS, "other"),
    )


def _windows(codes: np.ndarray, length: int, count: int) -> Samples:
    """At most `count` windows, evenly spread."""
    last = len(codes) - length - 1
    if last < count:
        raise ValueError(f"{count} windows of {length} characters need more text than is available")
    starts = np.linspace(0, last, count).astype(np.int64)
    windows = codes[starts[:, None] + np.arange(length + 1)]
    x, y = torch.from_numpy(windows[:, :-1].astype(np.float32)), torch.from_numpy(windows[:, 1:])
    return Samples(x, y, task=Tokens())
