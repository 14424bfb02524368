"""Sequence-level distillation: the student learns the sequences that the teacher writes."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.data.tasks import NO_LABEL
from edgekd.data.tasks.ctc import edits
from edgekd.data.tasks.seq2seq import DECODER_MASK
from edgekd.registry import LOSSES
from edgekd.training.losses import OutputLoss, Shape, not_negative
from edgekd.values.tree import Tree, leaf_names, leaves, mapped

BLANK = 0


@LOSSES.register(paper="https://arxiv.org/abs/1606.07947")
class Sequence(OutputLoss):
    """-log p_s(y), y the teacher's own best sequence for the same input, the mean over tokens.

    Kim and Rush 2016, equation 6, with greedy decoding. Outputs are logits (B, L, classes).
    `generate`: a language model; the teacher goes on after the first `prompt` tokens of the input
    (B, L), once for each sample, and the student predicts each of the tokens so written from those
    before it. With an encoder and a decoder the inputs are a dict, in which `decoder` names the
    tokens (B, L), `prompt` of them first, and the teacher writes until `end`. What it writes is
    left out if its token error rate against the sample's targets is above `most_errors` (the
    filter of Distil-Whisper, Gandhi et al. 2023, section 4). `ctc`: y is the best path without
    repeats and blanks, its CTC loss over its length.
    `frames`: the teacher's best class of each frame. For the token-level loss beside it use kl.
    Never zero: the least is the student's certainty.
    """

    needs = ("inputs", "index", "student_network", "teacher_network")
    tokens: Tensor
    written: Tensor

    def __init__(
        self,
        decode: Literal["generate", "ctc", "frames"] = "generate",
        prompt: int = 1,
        decoder: str = "decoder_input_ids",
        end: int | None = None,
        most_errors: float | None = None,
    ) -> None:
        if prompt < 1:
            raise ValueError(f"prompt must be at least 1 token, found {prompt}")
        if most_errors is not None:
            not_negative(most_errors=most_errors)
        super().__init__()
        self.decode, self.prompt = decode, prompt
        self.decoder, self.end, self.most_errors = decoder, end, most_errors
        self.length = 0

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        if len(outputs) != 2:
            raise ValueError(f"needs logits (length, classes), found outputs of shape {outputs}")
        self.length = outputs[0]
        if self.decode == "generate" and self.prompt >= self.length:
            raise ValueError(f"a prompt of {self.prompt} leaves none of {self.length} tokens")

    def remember(self, samples: int) -> None:
        if self.decode == "generate":
            shape = (samples, self.length + 1)
            self.register_buffer("tokens", torch.full(shape, NO_LABEL, dtype=torch.int64))
            self.register_buffer("written", torch.zeros(samples, dtype=torch.bool))

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        targets: Tensor,
        *,
        inputs: Tree,
        index: Tensor,
        student_network: nn.Module,
        teacher_network: nn.Module,
    ) -> Tensor:
        if self.decode == "generate":
            self._write(inputs, index, targets, teacher_network)
            return self._learned(inputs, index, student_network)
        best = teacher.argmax(2)
        if self.decode == "frames":
            return F.cross_entropy(student.flatten(0, 1), best.flatten())
        kept = (best != BLANK) & (best != F.pad(best[:, :-1], (1, 0), value=BLANK))
        frames = torch.full((len(student),), student.shape[1], dtype=torch.int64)
        logs = F.log_softmax(student, 2).transpose(0, 1)
        return F.ctc_loss(logs, best[kept], frames, kept.sum(1), BLANK, zero_infinity=True)

    def _learned(self, inputs: Tree, index: Tensor, student: nn.Module) -> Tensor:
        """The cross-entropy of the tokens that the teacher has written; 0 where it wrote none."""
        tokens = self.tokens[index]
        read, ahead = self._read(inputs), int(isinstance(inputs, Mapping))
        given = tokens[:, : self.length]
        given = given.where(given != NO_LABEL, self._filling).to(read.dtype)
        logits: Tensor = student(self._with(inputs, given))[
            :, self.prompt - 1 : self.length - 1 + ahead
        ]
        follows = tokens[:, self.prompt : self.length + ahead]
        if not bool((follows != NO_LABEL).any()):
            return logits.sum() * 0.0
        flat: Tensor = logits.flatten(0, 1).float()
        return F.cross_entropy(flat, follows.flatten(), ignore_index=NO_LABEL)

    @torch.no_grad()
    def _write(self, inputs: Tree, index: Tensor, targets: Tensor, teacher: nn.Module) -> None:
        """Let the teacher go on from the prompts of those samples that it has not written yet."""
        new = ~self.written[index]
        if not bool(new.any()):
            return
        inputs = mapped(lambda leaf: leaf[new], inputs)
        tokens = self._read(inputs).clone()
        ahead = int(isinstance(inputs, Mapping))
        kept = torch.full((len(tokens), self.length + 1), NO_LABEL, device=tokens.device)
        kept[:, : self.prompt] = tokens[:, : self.prompt]
        if ahead:  # what is ahead is hidden by the causal mask
            tokens[:, self.prompt :] = self._filling
        ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        for place in range(self.prompt, self.length + ahead):
            following = teacher(self._with(inputs, tokens))[:, place - 1].argmax(1)
            kept[:, place] = following.where(~ended, NO_LABEL)
            if place < self.length:
                tokens[:, place] = following.where(~ended, self._filling).to(tokens.dtype)
            if self.end is not None:
                ended |= following == self.end
            if bool(ended.all()):
                break
        if self.most_errors is not None:
            self._drop(kept, targets[new])
        self.tokens[index[new]] = kept
        self.written[index[new]] = True

    def _drop(self, kept: Tensor, targets: Tensor) -> None:
        """Leave nothing of what the teacher wrote with too many errors; a sample without targets
        has none to count."""
        for mine, theirs in zip(kept, targets.tolist(), strict=True):
            truth = [token for token in theirs if token != NO_LABEL]
            text = [token for token in mine[self.prompt :].tolist() if token != NO_LABEL]
            if truth and edits(text, truth) > float(self.most_errors or 0) * len(truth):
                mine[self.prompt :] = NO_LABEL

    @property
    def _filling(self) -> int:
        return 0 if self.end is None else self.end

    def reads(self, inputs: Tree) -> None:
        """`ValueError` for several inputs of which none is the decoder's."""
        if self.decode == "generate" and not isinstance(inputs, Tensor):
            known = list(inputs) if isinstance(inputs, Mapping) else leaf_names(inputs)
            if self.decoder not in known:
                raise ValueError(
                    f"no input '{self.decoder}' to go on from, found {', '.join(known)}; "
                    "set the loss's decoder to the name of the one with tokens"
                )

    def _read(self, inputs: Tree) -> Tensor:
        """The tokens (B, L) that the network reads and goes on from."""
        return leaves(inputs if isinstance(inputs, Tensor) else inputs[self.decoder])[0]

    def _with(self, inputs: Tree, tokens: Tensor) -> Tree:
        """The inputs with other tokens, none of which a mask hides."""
        if not isinstance(inputs, Mapping):
            return tokens
        masks = [name for name in inputs if name == DECODER_MASK]
        whole = {name: torch.ones_like(inputs[name]) for name in masks}
        return {**inputs, **whole, self.decoder: tokens}
