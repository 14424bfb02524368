"""Sequence to sequence: translation, speech recognition, captions by an encoder and a decoder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgekd.data.tasks import NO_LABEL, Direction, FirstSamples, Pooled, Run
from edgekd.data.tasks._functions import Function, function_identity, function_of
from edgekd.data.tasks._texts import bleu, character_error_rate, word_error_rate
from edgekd.data.tasks.tokens import Tokens
from edgekd.errors import EdgekdError, InputError, MissingPackage
from edgekd.installed import has_module
from edgekd.registry import TASKS
from edgekd.values.tree import Tree

DECODER_MASK = "decoder_attention_mask"


@dataclass(frozen=True, eq=False, repr=False)
class Seq2Seq(Tokens):
    """The decoder's next token, and whole texts written token by token; see `seq2seq`."""

    end: int
    decoder: str = "decoder_input_ids"
    prompt: int = 1
    text: Callable[[Sequence[int]], str] | None = None
    sentences: int = 200
    directions: ClassVar[Mapping[str, Direction]] = {
        **Tokens.directions,
        "word_error_rate": "lower",
        "character_error_rate": "lower",
        "bleu": "higher",
        "exact_match": "higher",
    }
    rollout_unit: ClassVar[str] = "test samples, decoded greedily by the file"

    def __repr__(self) -> str:
        """What results depend on: the function with the content of its file."""
        named = f"{self.end}, {self.decoder!r}, {self.prompt}, {self.sentences}, {self.output!r}"
        return f"Seq2Seq({named}, {function_identity(self.text)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seq2Seq) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def input_faults(self, x: Tree, where: str) -> list[EdgekdError]:
        """Inputs without the decoder's tokens (N, L), or with a shorter length than the prompt."""
        if not isinstance(x, Mapping) or self.decoder not in x:
            found = f"inputs {', '.join(map(str, x))}" if isinstance(x, Mapping) else "one input"
            allowed = f"a dict with '{self.decoder}': the start token and the target, shifted"
            hint = "task = { name = 'seq2seq', decoder = ... } names another input"
            return [InputError(f"samples have {found}", where=where, allowed=allowed, hint=hint)]
        tokens = x[self.decoder]
        if tokens.ndim != 2 or tokens.is_floating_point() or tokens.shape[1] < self.prompt:
            message = f"'{self.decoder}' has shape {tuple(tokens.shape)} in {tokens.dtype}"
            allowed = f"integers (N, L) with L of at least {self.prompt}"
            return [InputError(message, where=where, allowed=allowed)]
        return []

    def target_faults(self, y: Tensor, classes: int, where: str) -> list[EdgekdError]:
        """Labels that aren't (N, L) integers from -1 to below `classes`, and an end beyond them."""
        faults = super().target_faults(y, classes, where)
        if not faults and self.end >= classes:
            message = f"end = {self.end} is not a token"
            faults.append(InputError(message, where=where, allowed=f"0 to {classes - 1}"))
        return faults

    def judging_faults(self, y: Tensor, where: str) -> list[EdgekdError]:
        """Targets of which none ends."""
        if bool((y == self.end).any()):
            return []
        message = f"no target has the token end = {self.end}"
        hint = "each target ends with it: a tokenizer's eos_token_id"
        return [InputError(message, where=where, hint=hint)]

    def written(self, run: Run, x: Mapping[str, Tensor]) -> Tensor:
        """(N, L) the tokens that a network writes greedily, each fed back to it, at the positions
        of the targets; `NO_LABEL` after the end. The inputs' own tokens after the prompt and a mask
        over them are not used."""
        given = x[self.decoder]
        tokens = torch.full_like(given, self.end)  # what is ahead is hidden by the causal mask
        tokens[:, : self.prompt] = given[:, : self.prompt]
        whole = {DECODER_MASK: torch.ones_like(x[DECODER_MASK])} if DECODER_MASK in x else {}
        written = torch.full_like(given, NO_LABEL)
        ended = torch.zeros(len(given), dtype=torch.bool)
        for place in range(self.prompt - 1, given.shape[1]):
            logits = run({**x, **whole, self.decoder: tokens.clone()})
            following = logits[:, place].argmax(1).to(tokens.dtype)
            written[:, place] = following.where(~ended, NO_LABEL)
            ended |= following == self.end
            if bool(ended.all()):
                break
            if place + 1 < given.shape[1]:
                tokens[:, place + 1] = following.where(~ended, self.end)
        return written

    def texts(self, tokens: Tensor) -> list[str]:
        """Each row of tokens (N, L) as a text, without the prompt's places, the end and gaps."""
        kept = [
            [token for token in row if token not in (NO_LABEL, self.end)]
            for row in tokens[:, self.prompt - 1 :].tolist()
        ]
        return [self.text(row) if self.text else " ".join(map(str, row)) for row in kept]

    def rollout_metrics(self, run: Run, first: FirstSamples) -> dict[str, Tensor | Pooled]:
        """`word_error_rate`, `character_error_rate`, `bleu` and `exact_match` of what the file
        writes by itself."""
        x, y = first(self.sentences)
        pairs = list(zip(self.texts(self.written(run, x)), self.texts(y), strict=True))
        same = [mine == theirs for mine, theirs in pairs]
        return {
            "word_error_rate": word_error_rate(pairs),
            "character_error_rate": character_error_rate(pairs),
            "bleu": bleu(pairs),
            "exact_match": torch.tensor(same, dtype=torch.float64),
        }


@TASKS.register(paper="https://arxiv.org/abs/1409.3215")
def seq2seq(
    end: int,
    decoder: str = "decoder_input_ids",
    prompt: int = 1,
    text: Function | None = None,
    sentences: int = 200,
    output: str | int | None = None,
) -> Seq2Seq:
    """An encoder and a decoder that writes: translation, speech recognition, captions.

    Inputs are a dict, in which `decoder` names the decoder's tokens (N, L): the start token (or
    `prompt` tokens), then the target, shifted by one place (teacher forcing). Targets (N, L) are
    the tokens that follow, `end` after the last, -1 for none. The score is that of `tokens`.

    The deployed file also writes up to `sentences` test samples by itself, greedily and token by
    token, and the report has their word and character error rates, BLEU (Papineni et al. 2002, with
    sacrebleu's tokens) and exact matches. `text` is `package.module:callable`, looked up beside the
    recipe, or a callable: it turns a list of tokens into a text; without it every token is a word.
    """
    if not has_module("torchmetrics"):
        raise MissingPackage("torchmetrics", "metrics", where="data.task: seq2seq")
    for name, value, least in (("end", end, 0), ("prompt", prompt, 1), ("sentences", sentences, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, found {value}")
    return Seq2Seq(
        end=end,
        decoder=decoder,
        prompt=prompt,
        text=function_of(text, "text"),
        sentences=sentences,
        output=output,
    )


seq2seq.example = {"end": 1}  # type: ignore[attr-defined]
