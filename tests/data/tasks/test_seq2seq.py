"""Sequence to sequence: what a network writes by itself, and how it is compared with references."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.data.sets.written_dates import LETTERS, text, written_dates
from edgekd.data.tasks import Pooled, task_of
from edgekd.data.tasks._texts import bleu, character_error_rate, word_error_rate
from edgekd.data.tasks.seq2seq import Seq2Seq
from edgekd.errors import InputError

END = 1
FIRST = torch.tensor([[0, 7, 7], [0, 8, 8]])
"""The decoder's tokens with teacher forcing: the start and what the network must not see."""


def value(metric: Pooled) -> float:
    return metric.of(metric.parts.sum(0))


def counting(x: dict[str, Tensor]) -> Tensor:
    """A network that writes 2 after the start, then one more each time, and the end after 3; the
    second sample's first token is the end."""
    tokens = x["decoder_input_ids"]
    following = torch.where(tokens == 0, 2, tokens + 1).where(tokens < 3, END)
    following[1, 0] = END
    return 9.0 * F.one_hot(following, 10).float()


def test_every_token_that_is_written_is_fed_back_until_the_end():
    seen: list[Tensor] = []

    def run(x: dict[str, Tensor]) -> Tensor:
        seen.append(x["decoder_input_ids"])
        return counting(x)

    written = Seq2Seq(end=END).written(run, {"decoder_input_ids": FIRST})
    assert written.tolist() == [[2, 3, END], [END, -1, -1]]
    assert seen[0].tolist() == [[0, END, END], [0, END, END]]  # the prompt alone
    assert seen[2].tolist() == [[0, 2, 3], [0, END, END]]


def test_writing_stops_when_every_text_has_ended():
    calls = []

    def run(x: dict[str, Tensor]) -> Tensor:
        calls.append(1)
        return counting({"decoder_input_ids": torch.full_like(x["decoder_input_ids"], 3)})

    Seq2Seq(end=END).written(run, {"decoder_input_ids": FIRST})
    assert len(calls) == 1


def test_a_prompt_of_several_tokens_and_a_mask_over_them_are_used_as_they_are():
    masks = []

    def run(x: dict[str, Tensor]) -> Tensor:
        masks.append(x["decoder_attention_mask"])
        return counting({"decoder_input_ids": x["decoder_input_ids"].clamp(max=3)})

    given = {"decoder_input_ids": FIRST, "decoder_attention_mask": torch.tensor([[1, 1, 0]] * 2)}
    written = Seq2Seq(end=END, prompt=2).written(run, given)
    assert written[:, 0].tolist() == [-1, -1]  # nothing is written over the prompt
    assert bool((masks[0] == 1).all())  # a mask of the target's length would give it away


def test_error_rates_are_all_edits_by_the_length_of_all_references():
    pairs = [("a b c", "a c"), ("d", "d e f g"), ("x", "")]
    # words: 1 inserted, 3 missing, 1 where there are none: 5 edits for 2 + 4 words
    assert value(word_error_rate(pairs)) == pytest.approx(5 / 6)
    # letters: "b " inserted; " e f g" missing; "x" inserted: 9 edits for 3 + 7 letters
    assert value(character_error_rate(pairs)) == pytest.approx(9 / 10)


def test_bleu_is_the_mean_of_n_gram_precisions_with_the_brevity_penalty():
    assert value(bleu([("a b c d e", "a b c d e")])) == pytest.approx(1.0)
    # 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 quadruples, as long as the reference
    found = value(bleu([("a b c d x f", "a b c d e f")]))
    assert found == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25, rel=1e-5)
    # two texts count together; the one that is too short has a brevity penalty: 9 words for 10
    both = value(bleu([("a b c d e", "a b c d e"), ("a b c d", "a b c d e")]))
    assert both == pytest.approx(math.exp(1 - 10 / 9), rel=1e-5)


def test_what_a_network_writes_is_measured_over_test_samples():
    y = torch.tensor([[2, 3, END], [END, -1, -1]])
    task = Seq2Seq(end=END, text=lambda tokens: " ".join("abcdef"[token] for token in tokens))
    metrics = task.rollout_metrics(counting, lambda count: ({"decoder_input_ids": FIRST}, y))
    assert metrics["exact_match"].tolist() == [1.0, 1.0]
    assert value(metrics["word_error_rate"]) == 0.0
    other = torch.tensor([[2, 4, END], [3, END, -1]])
    metrics = task.rollout_metrics(counting, lambda count: ({"decoder_input_ids": FIRST}, other))
    assert metrics["exact_match"].tolist() == [0.0, 0.0]
    assert value(metrics["word_error_rate"]) == pytest.approx(2 / 3)  # "c d" for "c e", "" for "d"


@pytest.mark.parametrize(
    ("x", "fault"),
    [
        (torch.zeros(1, 3), "samples have one input"),
        ({"input_ids": FIRST}, "samples have inputs input_ids"),
        ({"decoder_input_ids": FIRST.float()}, "in torch.float32"),
        ({"decoder_input_ids": FIRST[:, :0]}, "shape (2, 0)"),
    ],
)
def test_inputs_without_the_decoders_tokens_are_faults(x, fault):
    (found,) = Seq2Seq(end=END).input_faults(x, "data")
    assert fault in str(found)
    assert "decoder" in f"{found.allowed} {found.hint}" or "integers (N, L)" in found.allowed


def test_an_end_that_no_target_has_is_a_fault():
    y = torch.tensor([[2, 3, -1]])
    (found,) = Seq2Seq(end=5).target_faults(y, 4, "data")
    assert "end = 5 is not a token" in str(found)
    (found,) = Seq2Seq(end=1).judging_faults(y, "data")
    assert "no target has the token end = 1" in str(found)
    assert Seq2Seq(end=3).judging_faults(y, "data") == []


def test_a_task_without_its_end_or_torchmetrics_is_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="end: required"):
        task_of("seq2seq", "data.task")
    with pytest.raises(InputError, match="prompt must be at least 1"):
        task_of({"name": "seq2seq", "end": 1, "prompt": 0}, "data.task")
    monkeypatch.setattr("edgekd.data.tasks.seq2seq.has_module", lambda name: False)
    with pytest.raises(InputError, match="torchmetrics is not installed") as caught:
        task_of({"name": "seq2seq", "end": 1}, "data.task")
    assert "edgekd[metrics]" in caught.value.hint


def test_written_dates_say_the_same_day_as_their_targets():
    source = written_dates(train=50, test=20)
    x, y = source.train.x, source.train.y
    assert (len(source.labels), len(LETTERS)) == (43, 41)
    years = [text(row.tolist())[:4] for row in y]
    assert all(year in text(row.tolist()) for year, row in zip(years, x["input_ids"], strict=True))
    assert torch.equal(x["decoder_input_ids"][:, 1:], y[:, :-1])
    assert {text(row.tolist()) for row in y}.isdisjoint(text(row.tolist()) for row in source.test.y)
