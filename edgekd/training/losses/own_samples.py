"""On-policy distillation: a generator learns on the sequences that it writes itself."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.network.evaluation import evaluating
from edgekd.registry import LOSSES
from edgekd.training.losses import OutputLoss, Shape, above_zero
from edgekd.training.losses._rows import divergence
from edgekd.values.tree import Tree, leaf_names


@LOSSES.register(paper="https://arxiv.org/abs/2306.08543")
class OwnSamples(OutputLoss):
    """KL(p_s || p_t) at each token that the student itself has written, the mean over the tokens.

    Gu et al. 2023 (MiniLLM), equation 1, by the gradient of each token's divergence (their
    single-step part; Agarwal et al. 2023, GKD, on policy). Outputs are logits (B, L, classes) of a
    language model. The student goes on after the first `prompt` tokens of the input (B, L) and
    draws each token at `temperature`; no gradient passes through the drawing. With the chance
    `mixed` a token is drawn by the teacher instead, which keeps a poor student near sensible
    sequences (section 2.2, theirs: 0.2). Each step writes anew, so it costs L - `prompt` runs of
    the student.
    """

    needs = ("inputs", "student_network", "teacher_network")

    def __init__(self, prompt: int = 1, temperature: float = 1.0, mixed: float = 0.0) -> None:
        if prompt < 1:
            raise ValueError(f"prompt must be at least 1 token, found {prompt}")
        if not 0 <= mixed <= 1:
            raise ValueError(f"mixed must be a chance from 0 to 1, found {mixed}")
        above_zero(temperature=temperature)
        super().__init__()
        self.prompt, self.temperature, self.mixed = prompt, temperature, mixed

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        if len(outputs) != 2:
            raise ValueError(f"needs logits (length, classes), found outputs of shape {outputs}")
        if self.prompt >= outputs[0]:
            raise ValueError(f"a prompt of {self.prompt} leaves none of {outputs[0]} tokens")

    def reads(self, inputs: Tree) -> None:
        """`ValueError` for several inputs: a language model has one, of tokens."""
        if not isinstance(inputs, Tensor):
            raise ValueError(
                f"needs one input of tokens, found {', '.join(leaf_names(inputs))}; for an encoder "
                "and a decoder use 'sequence'"
            )

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        targets: Tensor,
        *,
        inputs: Tensor,
        student_network: nn.Module,
        teacher_network: nn.Module,
    ) -> Tensor:
        tokens = self._written(inputs, student_network, teacher_network)
        mine = self._judged(student_network(tokens))
        with torch.no_grad():
            theirs = self._judged(teacher_network(tokens))
        return divergence(mine, theirs).mean()

    def _judged(self, logits: Tensor) -> Tensor:
        """Log-probabilities (R, classes) where the tokens behind the prompt were drawn."""
        return F.log_softmax(logits[:, self.prompt - 1 : -1].flatten(0, 1), dim=1)

    @torch.no_grad()
    def _written(self, inputs: Tensor, student: nn.Module, teacher: nn.Module) -> Tensor:
        tokens = inputs.clone()
        with evaluating(student):
            for place in range(self.prompt, tokens.shape[1]):
                following = self._drawn(student(tokens)[:, place - 1])
                if self.mixed:
                    theirs = self._drawn(teacher(tokens)[:, place - 1])
                    by_teacher = torch.rand(len(tokens), device=tokens.device) < self.mixed
                    following = torch.where(by_teacher, theirs, following)
                tokens[:, place] = following.to(tokens.dtype)
        return tokens

    def _drawn(self, logits: Tensor) -> Tensor:
        probabilities = (logits.float() / self.temperature).softmax(1)
        return torch.multinomial(probabilities, 1).squeeze(1)
