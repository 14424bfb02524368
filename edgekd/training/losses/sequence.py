"""Sequence-level distillation: the student learns the sequences that the teacher writes."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import OutputLoss, Shape

BLANK = 0


@LOSSES.register(paper="https://arxiv.org/abs/1606.07947")
class Sequence(OutputLoss):
    """-log p_s(y), y the teacher's own best sequence for the same input, the mean over tokens.

    Kim and Rush 2016, equation 6, with greedy decoding. Outputs are logits (B, L, classes).
    `generate`: a language model; the teacher goes on after the first `prompt` tokens of the input
    (B, L), once for each sample, and the student predicts each of the tokens so written from those
    before it. `ctc`: y is the best path without repeats and blanks, its CTC loss over its length.
    `frames`: the teacher's best class of each frame. For the token-level loss beside it use kl.
    Never zero: the least is the student's certainty.
    """

    needs = ("inputs", "index", "student_network", "teacher_network")
    tokens: Tensor
    written: Tensor

    def __init__(
        self, decode: Literal["generate", "ctc", "frames"] = "generate", prompt: int = 1
    ) -> None:
        if prompt < 1:
            raise ValueError(f"prompt must be at least 1 token, found {prompt}")
        super().__init__()
        self.decode, self.prompt = decode, prompt
        self.length = 0

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        if len(outputs) != 2:
            raise ValueError(f"needs logits (length, classes), found outputs of shape {outputs}")
        self.length = outputs[0]
        if self.decode == "generate" and self.prompt >= self.length:
            raise ValueError(f"a prompt of {self.prompt} leaves none of {self.length} tokens")

    def remember(self, samples: int) -> None:
        if self.decode == "generate":
            self.register_buffer("tokens", torch.zeros(samples, self.length, dtype=torch.int64))
            self.register_buffer("written", torch.zeros(samples, dtype=torch.bool))

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        targets: Tensor,
        *,
        inputs: Tensor,
        index: Tensor,
        student_network: nn.Module,
        teacher_network: nn.Module,
    ) -> Tensor:
        if self.decode == "generate":
            return self._generated(inputs, index, student_network, teacher_network)
        best = teacher.argmax(2)
        if self.decode == "frames":
            return F.cross_entropy(student.flatten(0, 1), best.flatten())
        kept = (best != BLANK) & (best != F.pad(best[:, :-1], (1, 0), value=BLANK))
        frames = torch.full((len(student),), student.shape[1], dtype=torch.int64)
        logs = F.log_softmax(student, 2).transpose(0, 1)
        return F.ctc_loss(logs, best[kept], frames, kept.sum(1), BLANK, zero_infinity=True)

    def _generated(
        self, inputs: Tensor, index: Tensor, student: nn.Module, teacher: nn.Module
    ) -> Tensor:
        self._write(inputs, index, teacher)
        tokens = self.tokens[index]
        logits = student(tokens.to(inputs.dtype))[:, self.prompt - 1 : -1]
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, self.prompt :].flatten())

    def _write(self, inputs: Tensor, index: Tensor, teacher: nn.Module) -> None:
        """Let the teacher go on from the prompts of those samples that it has not written yet."""
        new = ~self.written[index]
        if not bool(new.any()):
            return
        tokens = inputs[new].clone()
        with torch.no_grad():
            for place in range(self.prompt, self.length):
                tokens[:, place] = teacher(tokens)[:, place - 1].argmax(1).to(tokens.dtype)
        self.tokens[index[new]] = tokens.long()
        self.written[index[new]] = True
