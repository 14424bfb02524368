"""Distillation: a scheme trains the candidate; its structure does not change."""

import copy
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from edgekd.errors import EdgekdError, InputError
from edgekd.network.evaluation import evaluating
from edgekd.registry import STAGES
from edgekd.stages import Context, TrainingStage
from edgekd.stages.distill.schemes import Scheme, scheme_of
from edgekd.values.candidate import Candidate
from edgekd.values.tree import leaves


@STAGES.register(paper="https://arxiv.org/abs/1503.02531")
class Distill(TrainingStage):
    """Train the student with one or more teachers, using losses on logits and on layers.

    `scheme` says how they work together: a scheme's name, or a table with its `name` and
    parameters; `edgekd methods scheme` lists the schemes.
    """

    kind: Literal["distill"] = "distill"
    target_facts: ClassVar[tuple[str, ...]] = ()
    scheme: str | dict[str, Any] = "offline"

    def check(self, candidate: Candidate, context: Context, where: str) -> list[EdgekdError]:
        if candidate.form == "int8":
            return [
                InputError(
                    "a quantized model can't be distilled further",
                    where=where,
                    hint="put distill before quantize, or let quantize train with the teacher",
                )
            ]
        try:
            scheme = self._scheme(where)
        except EdgekdError as error:
            return list(error.faults)
        fault = None if scheme.any_structure else self._structure_fault(candidate, where)
        return [fault] if fault else scheme.check(candidate.module, self.learning(context, where))

    def _structure_fault(self, candidate: Candidate, where: str) -> InputError | None:
        """Why the scheme can't teach this network, if that has several inputs or outputs."""
        with evaluating(candidate.module), torch.no_grad():
            outputs = candidate.module(candidate.example)
        counts = len(leaves(candidate.example)), len(leaves(outputs))
        if counts == (1, 1):
            return None
        return InputError(
            f"'{self.name}' teaches networks with one input and one output, not "
            f"{counts[0]} and {counts[1]}",
            where=f"{where}: scheme",
            hint='use scheme = "offline", or keep one output: output = "NAME" under [model]',
        )

    def cost(self, context: Context) -> str:
        try:
            return self._scheme("").cost(self.learning(context, ""))
        except EdgekdError:
            return "unknown: the scheme was rejected"

    def rehearse(self, candidate: Candidate, context: Context) -> Candidate:
        """The candidate itself."""
        return candidate

    def rehearsal(self) -> "Distill":
        """A stage of nothing but defaults, since a rehearsal reads no key."""
        return Distill(kind=self.kind)

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        scheme, learning = self._scheme("distill"), self.learning(context, "distill")
        taught = scheme.teach(copy.deepcopy(candidate.module), learning)
        losses = learning.losses
        names = ", ".join(str(table["name"]) for table in losses) or "labels only"
        names = names if scheme.reads_losses else "its own loss"
        how = "" if self.name == "offline" else f" by {self.name}"
        note = f" ({taught.note})" if taught.note else ""
        line = f"distill{how}: {self.teaching.epochs} epochs with {names}{note}"
        return candidate.after(taught.module, line)

    def content(self, folder: Path) -> str:
        """A hash of the scheme's own networks and files; empty if the check rejects the scheme."""
        try:
            return self._scheme("").content(folder)
        except EdgekdError:
            return ""

    @property
    def name(self) -> str:
        """The name of the scheme."""
        return self.scheme if isinstance(self.scheme, str) else str(self.scheme.get("name"))

    def _scheme(self, where: str) -> Scheme:
        return scheme_of(self.scheme, f"{where}: scheme")
