"""What one step of a teaching compares: a student's logits and layers with its teachers'."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgekd.data.samples import Data
from edgekd.fusion import Fusion, merge
from edgekd.logits import Answers
from edgekd.losses import DepthsLoss, Loss, OutputLoss, ResponseLoss
from edgekd.taps import Taps
from edgekd.tasks import NO_LABEL, Task
from edgekd.teachers import Teacher
from edgekd.terms import Term, bridge, source_of
from edgekd.training import Batch, evaluating

if TYPE_CHECKING:
    from edgekd.distillation import Teaching


class Lesson:
    """The sum of losses of one student against frozen teachers, as `fit` wants it."""

    def __init__(
        self,
        teaching: "Teaching",
        terms: Sequence[Term],
        answers: Answers,
        data: Data,
        fusion: Fusion | None = None,
    ) -> None:
        self.teaching, self.terms, self.answers, self.data = teaching, terms, answers, data
        self.teachers = answers.teachers
        self.fusion = fusion or Fusion()
        self.sources = [
            source_of(term, self.teachers) if term.reads_features else None for term in terms
        ]

    def prepare(self, student: nn.Module) -> None:
        """Make the regressors, from the shapes of one sample's features."""
        for term, source in zip(self.terms, self.sources, strict=True):
            if source is not None and source.module is not None:
                with evaluating(student), evaluating(source.module):
                    bridge(term, student, source.module, self.data.example, self.data.shown)

    @contextmanager
    def tapping(self, student: nn.Module) -> Iterator[None]:
        """Hooks on the student and on every teacher whose features are read."""
        with ExitStack() as stack:
            stack.enter_context(self.answers.answering())
            names = [name for term in self.terms for name in term.student]
            self.student_taps = stack.enter_context(Taps(student, names))
            self.live = _LiveTeachers(stack, self.terms, self.sources)
            yield

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The loss of one batch."""
        teaching = self.teaching
        logits = module(batch.x).float()
        total: Tensor = logits.new_zeros(())
        if teaching.label_weight:
            total = teaching.label_weight * self.data.task.label_loss(
                logits, batch.y, teaching.label_smoothing
            )
        answers = self._answers(batch)
        compared = Compared.of(self.data.task, logits, answers, batch.y)
        shares = None
        if len(answers) > 1:
            shares, own = self._fused(compared.answers, compared.logits, compared.labels)
            total = total if own is None else total + own
        whole = Compared(logits, answers, batch.y)
        for term, source in zip(self.terms, self.sources, strict=True):
            value = self._value(term, source, whole, compared, shares)
            total = total + term.weight * value
        return total

    def _fused(
        self, answers: list[Tensor], logits: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Each teacher's share (K, B) in the targets, and what the fusion itself learns from."""
        stacked = torch.stack(answers)
        weights = torch.tensor([t.weight for t in self.teachers], device=stacked.device)
        shares = self.fusion.shares(stacked, weights, logits.detach(), labels)
        return shares.detach(), self.fusion.own_loss(stacked, shares, labels)

    def _answers(self, batch: Batch) -> list[Tensor]:
        """Each teacher's logits for the batch; teachers with tapped layers run to give them."""
        needed = None in self.sources
        answers = []
        for number, teacher in enumerate(self.teachers):
            found = self.live.run(teacher, batch.shown)
            if needed:
                answers.append(self.answers.of(number, batch) if found is None else found.float())
        return answers

    def _value(
        self,
        term: Term,
        source: Teacher | None,
        whole: "Compared",
        compared: "Compared",
        shares: Tensor | None,
    ) -> Tensor:
        if source is None:
            if isinstance(term.loss, ResponseLoss):
                merged = compared.merged(shares, term.loss)
                value: Tensor = term.loss(compared.logits, merged, compared.labels)
                return value
            if compared.logits is not whole.logits:  # shares are a row's, not a sample's
                shares = torch.tensor([teacher.weight for teacher in self.teachers])
            merged = whole.merged(shares, term.loss)
            if isinstance(term.loss, OutputLoss):
                value = term.loss(whole.logits, merged, whole.labels)
            else:
                value = term.loss(whole.logits, merged)
            return value
        features = self.live.outputs(source)
        mine = [self.student_taps.outputs[name].float() for name in term.student]
        theirs = [features[name].float() for name in term.teacher]
        if isinstance(term.loss, DepthsLoss):
            value = term.loss(mine, theirs)
        else:
            value = term.loss(mine[0], theirs[0])
        return value


@dataclass(frozen=True)
class Compared:
    """What losses on outputs see: the student's, each teacher's, and the targets."""

    logits: Tensor
    answers: list[Tensor]
    labels: Tensor

    @classmethod
    def of(cls, task: Task, outputs: Tensor, answers: list[Tensor], y: Tensor) -> "Compared":
        """A row a decision (`Task.rows`), those without a label left out; the outputs as they are
        where the task has no rows. Where no row has a label, all are `NO_LABEL`."""
        mine = task.rows(outputs)
        if mine is None:
            return cls(outputs, answers, y)
        theirs = [rows for rows in map(task.rows, answers) if rows is not None]
        labels = task.row_labels(y)
        if labels is None:
            return cls(mine, theirs, y.new_full((len(mine),), NO_LABEL, dtype=torch.int64))
        if labels is y:
            return cls(mine, theirs, labels)
        kept = labels != NO_LABEL
        return cls(mine[kept], [rows[kept] for rows in theirs], labels[kept])

    def merged(self, shares: Tensor | None, loss: Loss) -> Tensor:
        """One teacher's answers, or several as one by their shares."""
        if shares is None or len(self.answers) == 1:
            return self.answers[0]
        return merge(self.answers, shares, loss)


class _LiveTeachers:
    """The teachers that must run in every step, because a loss reads their layers."""

    def __init__(
        self, stack: ExitStack, terms: Sequence[Term], sources: Sequence[Teacher | None]
    ) -> None:
        self._networks: dict[int, nn.Module] = {}
        self._taps: dict[int, Taps] = {}
        names: dict[int, list[str]] = {}
        for term, source in zip(terms, sources, strict=True):
            if source is not None and source.module is not None:
                self._networks[id(source)] = source.module
                names.setdefault(id(source), []).extend(term.teacher)
        for key, network in self._networks.items():
            stack.callback(network.to, "cpu")
            self._taps[key] = stack.enter_context(Taps(network, names[key]))

    def run(self, teacher: Teacher, x: Tensor) -> Tensor | None:
        """The logits of a tapped teacher, its layers' outputs kept; None for any other one."""
        network = self._networks.get(id(teacher))
        if network is None:
            return None
        with torch.no_grad():
            logits: Tensor = network.to(x.device)(x)
        return logits

    def outputs(self, teacher: Teacher) -> dict[str, Tensor]:
        return self._taps[id(teacher)].outputs
