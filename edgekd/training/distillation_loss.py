"""The loss of one distillation step: a student's logits and layers against its teachers'."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.data.tasks import NO_LABEL, Task
from edgekd.network.evaluation import evaluating
from edgekd.network.taps import Taps
from edgekd.training.context import Context
from edgekd.training.fusion import Fusion, merge
from edgekd.training.logits import TeacherLogits, eval_mode
from edgekd.training.loop import Batch
from edgekd.training.losses import DepthsLoss, FeatureLoss, Loss, OutputLoss, ResponseLoss
from edgekd.training.sample_weights import disagreement, inverse_frequency, weighted_cross_entropy
from edgekd.training.schedules import TrainStep
from edgekd.training.teachers import Teacher
from edgekd.training.teachers.module import ModuleTeacher
from edgekd.training.teachers.outputs import Outputs
from edgekd.training.temperature import teacher_temperature
from edgekd.training.terms import Term, bridge, fit_outputs, source_of
from edgekd.values.tree import OutputName, Tree, as_float, leaf, leaves


class DistillationLoss:
    """The sum of losses of one student against frozen teachers, in the form that `fit` expects."""

    def __init__(
        self,
        context: Context,
        terms: Sequence[Term],
        teacher_logits: TeacherLogits,
        fusion: Fusion | None = None,
    ) -> None:
        self.teaching, self.data = context.teaching, context.data
        self.terms, self.teacher_logits = terms, teacher_logits
        self.teachers = teacher_logits.teachers
        self.temperatures = [1.0] * len(self.teachers)
        self.fusion = fusion or Fusion()
        self.label_schedule = self.teaching.make_label_schedule()
        if self.teaching.sample_weights == "inverse-frequency":
            rows = self.data.task.row_labels(self.data.train.y)
            assert rows is not None
            self.frequency = inverse_frequency(rows[rows != NO_LABEL], self.data.classes)
        self.sources = [
            source_of(term, self.teachers) if term.reads_features else None for term in terms
        ]

    def calibrate(self) -> None:
        """Find the temperature at which each teacher is calibrated."""
        with eval_mode(self.teachers):
            self.temperatures = [teacher_temperature(t, self.data) for t in self.teachers]

    def prepare(self, student: nn.Module) -> None:
        """Make the regressors and memories, from the shapes of one sample's features."""
        for term, source in zip(self.terms, self.sources, strict=True):
            if source is not None and source.module is not None:
                with evaluating(student), evaluating(source.module):
                    bridge(term, student, source.module, self.data.example, self.data.shown)
            elif not isinstance(term.loss, ResponseLoss):
                fit_outputs(term, student, self.data)
            if not isinstance(term.loss, ResponseLoss):
                term.loss.remember(len(self.data.train))

    @contextmanager
    def tapping(self, student: nn.Module) -> Iterator[None]:
        """Hooks on the student and on every teacher whose features are read."""
        with ExitStack() as stack:
            stack.enter_context(eval_mode(self.teachers))
            names = [name for term in self.terms for name in term.tapped]
            self.student_taps = stack.enter_context(Taps(student, names))
            self.live = _LiveTeachers(stack, self.terms, self.sources)
            yield

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The loss of one batch."""
        self.student_taps.outputs.clear()  # of the batch before
        outputs = as_float(module(batch.x))
        logits = self.data.task.main(outputs)
        features: dict[str | None, Tensor] = {None: logits, **self.student_taps.outputs}  # type: ignore[dict-item]
        answers = self._answers(batch)
        compared = Compared.of(self.data.task, logits, answers, batch.y)
        whole = Compared(logits, answers, batch.y)
        seen = _Seen(batch, outputs, whole, compared, self._weights(compared), features, module)
        labels = total = self._labels(seen)
        if len(answers) > 1:
            seen.shares, own = self._fused(compared.answers, compared.logits, compared.labels)
            total = total if own is None else total + own
        step = seen.train_step
        for term, source in zip(self.terms, self.sources, strict=True):
            term.set_to(step)
            if source is not None and not features.keys() >= set(term.student):
                continue  # training leaves out layers now and then (layer drop)
            value = self._value(term, source, seen)
            total = total + term.weighted(value, step, labels, seen.features)
        return total

    def _weights(self, compared: "Compared") -> Tensor | None:
        """(R,) with mean one, or None if all rows count equally."""
        weighting = self.teaching.sample_weights
        if weighting == "equal":
            return None
        if weighting == "inverse-frequency":
            labels = compared.labels
            known = self.frequency.to(labels.device)[labels.clamp(min=0)]
            return torch.where(labels == NO_LABEL, 1.0, known)
        return disagreement(compared.logits, torch.stack(compared.answers).mean(0))

    def _labels(self, seen: "_Seen") -> Tensor:
        """The task's own loss, or the rows' weighted cross-entropy, by its weight in this step."""
        teaching, outputs = self.teaching, seen.whole.logits
        weight: float | Tensor = teaching.label_weight
        if self.label_schedule is not None:
            weight = self.label_schedule(seen.train_step)
        if not teaching.label_weight:
            return leaves(outputs)[0].new_zeros(())
        if seen.weights is None:
            value = self.data.task.label_loss(outputs, seen.batch.y, teaching.label_smoothing)
        else:
            rows, labels = seen.compared.logits, seen.compared.labels
            smoothing = teaching.label_smoothing
            value = weighted_cross_entropy(rows, labels, seen.weights, smoothing)
        return weight * value

    def _fused(
        self, answers: list[Tensor], logits: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Each teacher's share (K, B) in the targets, and the fusion's own loss."""
        stacked = torch.stack(answers)
        weights = torch.tensor([t.weight for t in self.teachers], device=stacked.device)
        shares = self.fusion.shares(stacked, weights, logits.detach(), labels)
        return shares.detach(), self.fusion.own_loss(stacked, shares, labels)

    def _answers(self, batch: Batch) -> list[Tensor]:
        """Each teacher's logits for the batch; teachers with tapped layers are run for them."""
        compared = [
            term.output is None and source is None
            for term, source in zip(self.terms, self.sources, strict=True)
        ]
        needed = any(compared) or self.teaching.sample_weights == "disagreement"
        answers = []
        for number, teacher in enumerate(self.teachers):
            temperature = self.temperatures[number]
            logits = self.live.run(teacher, batch.shown, temperature)
            if needed:
                if logits is None:
                    logits = self.teacher_logits.of(number, batch) / temperature
                answers.append(logits)
        return answers

    def _other_output(self, term: Term, seen: "_Seen") -> "_Seen":
        """What the losses see of an output that is not the task's. Its rows have no labels."""
        assert term.output is not None
        key = (term.output, term.teacher_output)
        if key not in seen.others:
            mine = leaf(seen.outputs, term.output, f"{term.where}: student")
            answers = [
                self.teacher_logits.of(number, seen.batch, term.teacher_output)
                for number in range(len(self.teachers))
            ]
            whole = Compared(mine, answers, seen.whole.labels)
            compared = Compared.of(self.data.task, mine, answers, None)
            features = {**seen.features, None: mine}
            shares = torch.tensor([teacher.weight for teacher in self.teachers])
            seen.others[key] = replace(
                seen, whole=whole, compared=compared, weights=None, features=features, shares=shares
            )
        return seen.others[key]

    def _network(self, batch: Batch) -> nn.Module | None:
        """The first teacher's network, for a loss that has to run it."""
        network = self.teachers[0].module if self.teachers else None
        return None if network is None else network.to(batch.device)

    def _value(self, term: Term, source: Teacher | None, seen: "_Seen") -> Tensor:
        loss = term.loss
        if term.output is not None:
            seen = self._other_output(term, seen)
        if source is None:
            compared, whole, shares = seen.compared, seen.whole, seen.shares
            if isinstance(loss, ResponseLoss):
                merged = compared.merged(shares, loss)
                value: Tensor = loss(compared.logits, merged, compared.labels, seen.weights)
                return value
            if compared.logits is not whole.logits:  # shares are a row's, not a sample's
                shares = torch.tensor([teacher.weight for teacher in self.teachers])
            merged = whole.merged(shares, loss)
            wanted = seen.wanted(loss.needs, merged, self._network(seen.batch))
            if isinstance(loss, OutputLoss):
                value = loss(whole.logits, merged, whole.labels, **wanted)
            elif isinstance(loss, DepthsLoss):
                value = loss([whole.logits], [merged], **wanted)
            else:
                value = loss(whole.logits, merged, **wanted)
            return value
        assert isinstance(loss, FeatureLoss | DepthsLoss)
        features = self.live.outputs(source)
        mine = [seen.features[name].float() for name in term.student]
        theirs = [features[name].float() for name in term.teacher]
        wanted = seen.wanted(loss.needs, self.live.answers.get(id(source)), source.module)
        if isinstance(loss, DepthsLoss):
            value = loss(mine, theirs, **wanted)
        else:
            value = loss(mine[0], theirs[0], **wanted)
        return value


@dataclass
class _Seen:
    """The inputs of one step's losses."""

    batch: Batch
    outputs: Tree
    whole: "Compared"
    compared: "Compared"
    weights: Tensor | None
    features: Mapping[str | None, Tensor]
    student: nn.Module
    shares: Tensor | None = None
    others: "dict[tuple[OutputName, OutputName], _Seen]" = field(default_factory=dict)

    @property
    def train_step(self) -> TrainStep:
        """The inputs of a schedule."""
        answers = self.compared.answers
        mean = torch.stack(answers).mean(0) if answers else None
        return train_step_of(self.batch, len(self.batch.index), mean)

    def wanted(
        self, needs: Sequence[str], teacher_outputs: Tensor | None, teacher: nn.Module | None
    ) -> dict[str, Any]:
        """The extra inputs that a loss asks for (`edgekd.training.losses.NEEDS`)."""
        known = {
            "targets": self.batch.y,
            "index": self.batch.index,
            "inputs": self.batch.x,
            "shown": self.batch.shown,
            "student_outputs": self.whole.logits,
            "teacher_outputs": teacher_outputs,
            "student_network": self.student,
            "teacher_network": teacher,
        }
        return {name: known[name] for name in needs}


def train_step_of(batch: Batch, samples: int, teacher: Tensor | None = None) -> TrainStep:
    """The inputs of a schedule in a step with that many samples in this process."""
    return TrainStep(batch.step, batch.steps, batch.total, samples * batch.processes, teacher)


@dataclass(frozen=True)
class Compared:
    """The inputs of losses on outputs: the student's, each teacher's, and the targets."""

    logits: Any
    answers: list[Any]
    labels: Any

    @classmethod
    def of(cls, task: Task, outputs: Any, answers: list[Any], y: Tree | None) -> "Compared":
        """One row per decision (`Task.rows`), without rows that have no label; the outputs as they
        are if the task has no rows. If no row has a label, all labels are `NO_LABEL`."""
        mine = task.rows(outputs) if isinstance(outputs, Tensor) else None
        if mine is None:
            return cls(outputs, answers, y)
        theirs = [rows for rows in map(task.rows, answers) if rows is not None]
        labels = None if y is None else task.row_labels(y)
        if labels is None:
            return cls(mine, theirs, mine.new_full((len(mine),), NO_LABEL, dtype=torch.int64))
        if labels is y:
            return cls(mine, theirs, labels)
        kept = labels != NO_LABEL
        return cls(mine[kept], [rows[kept] for rows in theirs], labels[kept])

    def merged(self, shares: Tensor | None, loss: Loss) -> Tensor:
        """One teacher's logits, or several combined by their shares."""
        if shares is None or len(self.answers) == 1:
            only: Tensor = self.answers[0]
            return only
        return merge(self.answers, shares, loss)


class _LiveTeachers:
    """The teachers that must run in every step, because a loss reads their layers."""

    def __init__(
        self, stack: ExitStack, terms: Sequence[Term], sources: Sequence[Teacher | None]
    ) -> None:
        self._networks: dict[int, nn.Module] = {}
        self._taps: dict[int, Taps] = {}
        self._outputs: dict[int, dict[str, Tensor]] = {}
        self.answers: dict[int, Tensor] = {}
        names: dict[int, list[str]] = {}
        for term, source in zip(terms, sources, strict=True):
            if source is not None and source.module is not None:
                self._networks[id(source)] = source.module
                names.setdefault(id(source), []).extend(term.teacher)
        for key, network in self._networks.items():
            stack.callback(network.to, "cpu")
            self._taps[key] = stack.enter_context(Taps(network, names[key]))

    def run(self, teacher: Teacher, x: Tree, temperature: float) -> Tensor | None:
        """The logits of a tapped teacher divided by its temperature, with its layers' outputs
        stored; None for any other teacher."""
        network = self._networks.get(id(teacher))
        if network is None:
            return None
        outputs = teacher.outputs if isinstance(teacher, ModuleTeacher) else Outputs()
        with torch.no_grad():
            logits: Tensor = outputs.logits(network.to(leaves(x)[0].device)(x)) / temperature
        self.answers[id(teacher)] = logits
        # A copy: a loss may run the teacher again on other inputs, and the taps see that too.
        self._outputs[id(teacher)] = dict(self._taps[id(teacher)].outputs)
        return logits

    def outputs(self, teacher: Teacher) -> dict[str, Tensor]:
        """The outputs of the tapped layers for this step's batch."""
        return self._outputs[id(teacher)]
