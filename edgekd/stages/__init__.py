"""What a stage is: a value read from a recipe's table that turns one candidate into the next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor

from edgekd.data.samples import Data
from edgekd.errors import EdgekdError
from edgekd.training.teachers import Teacher
from edgekd.values.candidate import Candidate
from edgekd.values.target import Target

Progress = Callable[[str, int, int], None]
"""Called as progress(what, done, total); the command line draws a bar from it."""


@dataclass(frozen=True)
class Context:
    """What a stage may use besides the candidate.

    `work` is the stage's own folder: epoch checkpoints go there, and a run that was killed finds
    them again. `cache` is shared by runs: teachers' logits are kept there by content. `folder` is
    where the recipe's relative paths start from.
    """

    target: Target
    data: Data
    teachers: Sequence[Teacher]
    work: Path
    seed: int = 0
    cache: Path | None = None
    calibration: Tensor | None = None
    folder: Path = Path()
    progress: Progress = field(default=lambda what, done, total: None)


class Stage(Protocol):
    """`distill`, `prune`, `factorize` and `quantize` are such, each a frozen `Value`.

    `target_facts` are the fields of the target that the result depends on; targets that agree in
    them share the stage's result.
    """

    kind: str
    target_facts: ClassVar[tuple[str, ...]] = ()

    def check(self, candidate: Candidate, context: Context, where: str) -> list[EdgekdError]:
        """Every reason why this stage can't work on such a model; nothing is trained or changed."""

    def content(self, folder: Path) -> str:
        """A hash of what the files that its table names hold, relative to the recipe's folder."""

    def cost(self, context: Context) -> str:
        """What the plan prints of it: '12 epochs of 60,000 samples'."""

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """The next candidate. Deterministic given `context.seed`; the input is left as it was."""
