"""Dates as people write them, to be translated into ISO 8601 letter by letter."""

import calendar
import string
from collections.abc import Callable, Sequence
from datetime import date, timedelta

import numpy as np
import torch
from torch import Tensor

from edgekd.data.samples import Samples
from edgekd.data.sets import SETS
from edgekd.data.source import Source
from edgekd.data.tasks import NO_LABEL
from edgekd.data.tasks.seq2seq import seq2seq

LETTERS = " " + string.digits + string.ascii_lowercase + ",./-"
PAD, END = 0, 1
"""The tokens before those of `LETTERS`; the decoder starts with PAD, as T5's does."""
LENGTH, WRITTEN = 30, 11
"""Tokens of the longest input and of an ISO date, each with its end."""
FIRST = date(1950, 1, 1)
DAYS = 36_500


@SETS.register(paper="composed of Python's calendar")
def written_dates(train: int = 4000, test: int = 300, seed: int = 0) -> Source:
    """Dates from 1950 to 2049 in seven English ways of writing them ("Thursday, 5th of March
    1998"), and the same date in ISO 8601 (1998-03-05): sequence to sequence, 43 tokens.

    Inputs are `input_ids` and `attention_mask` (N, 30) and `decoder_input_ids` (N, 11). No date is
    in both parts.
    """
    if train + test > DAYS:
        raise ValueError(f"{train + test} different dates, but there are {DAYS:,}")
    random = np.random.default_rng(seed)
    days = [FIRST + timedelta(days=int(day)) for day in random.permutation(DAYS)[: train + test]]
    texts = [
        WAYS[int(way)](day)
        for day, way in zip(days, random.integers(0, len(WAYS), len(days)), strict=True)
    ]
    pairs = list(zip(texts, (day.isoformat() for day in days), strict=True))
    labels = ("pad", "end", *LETTERS)
    return Source(_samples(pairs[:train]), _samples(pairs[train:]), labels=labels)


def text(tokens: Sequence[int]) -> str:
    """Tokens as the text that they stand for."""
    return "".join(LETTERS[token - 2] for token in tokens if token > END)


def tokens_of(written: str, length: int) -> list[int]:
    """A text's tokens and its end, padded to a length."""
    tokens = [LETTERS.index(letter) + 2 for letter in written] + [END]
    return tokens + [PAD] * (length - len(tokens))


def _samples(pairs: Sequence[tuple[str, str]]) -> Samples:
    given = torch.tensor([tokens_of(written, LENGTH) for written, _ in pairs])
    y = torch.tensor([tokens_of(iso, WRITTEN) for _, iso in pairs])
    x: dict[str, Tensor] = {
        "input_ids": given,
        "attention_mask": (given != PAD).long(),
        "decoder_input_ids": torch.cat([torch.full((len(y), 1), PAD), y[:, :-1]], 1),
    }
    return Samples(x, y.where(y != PAD, NO_LABEL), task=seq2seq(end=END, text=text))


def _ordinal(day: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{'th' if 10 < day < 20 else ending}"


def _month(day: date) -> str:
    return calendar.month_name[day.month].lower()


WAYS: tuple[Callable[[date], str], ...] = (
    lambda day: f"{day.day} {_month(day)} {day.year}",
    lambda day: f"{_month(day)} {day.day}, {day.year}",
    lambda day: f"{calendar.day_name[day.weekday()].lower()}, {_month(day)} {day.day}, {day.year}",
    lambda day: f"the {_ordinal(day.day)} of {_month(day)} {day.year}",
    lambda day: f"{_month(day)[:3]} {_ordinal(day.day)} {day.year}",
    lambda day: f"{day.day:02}.{day.month:02}.{day.year}",
    lambda day: f"{day.month}/{day.day}/{day.year}",
)
