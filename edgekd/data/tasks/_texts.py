"""Texts compared with references, by torchmetrics."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from edgekd.data.tasks import Pooled
from edgekd.installed import import_torchvision

Pairs = Sequence[tuple[str, str]]
"""What was written, and what should have been."""


def word_error_rate(pairs: Pairs) -> Pooled:
    """The words to insert, delete or replace, by the number of words of all references."""
    return _rate(pairs, _torchmetrics("functional.text").word_error_rate, str.split)


def character_error_rate(pairs: Pairs) -> Pooled:
    """The same of characters."""
    return _rate(pairs, _torchmetrics("functional.text").char_error_rate, list)


def bleu(pairs: Pairs) -> Pooled:
    """BLEU of up to 4 words over all texts, 0 to 1: Papineni et al. 2002, on sacrebleu's tokens."""
    counts = []
    for found, wanted in pairs:
        score = _bleu()
        score.update([found], [[wanted]])
        lengths = torch.stack([score.preds_len, score.target_len])
        counts.append(torch.cat([score.numerator, score.denominator, lengths]).double())
    return Pooled(torch.stack(counts), _bleu_of)


def _bleu_of(total: Tensor) -> float:
    score = _bleu()
    score.numerator, score.denominator = total[:4].float(), total[4:8].float()
    score.preds_len, score.target_len = total[8].float(), total[9].float()
    score._update_count = 1  # compute() warns about a metric that has seen nothing
    return float(score.compute())


def _bleu() -> Any:
    return _torchmetrics("text").SacreBLEUScore()


def _rate(
    pairs: Pairs, rate: Callable[..., Tensor], parts: Callable[[str], Sequence[str]]
) -> Pooled:
    edits, lengths = [], []
    for found, wanted in pairs:
        length = len(parts(wanted))
        share = float(rate([found], [wanted])) if length else 0.0
        edits.append(share * length if length else float(len(parts(found))))
        lengths.append(float(length))
    return Pooled(torch.tensor([edits, lengths], dtype=torch.float64).T, _share)


def _share(total: Tensor) -> float:
    return float(total[0] / total[1].clamp(min=1))


def _torchmetrics(part: str) -> Any:
    import_torchvision()  # which torchmetrics imports where it is installed
    import importlib

    return importlib.import_module(f"torchmetrics.{part}")
