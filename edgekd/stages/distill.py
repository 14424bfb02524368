"""Distil: the candidate learns from the teachers, its structure stays as it is."""

import copy
from typing import ClassVar, Literal

from edgekd.candidate import Candidate
from edgekd.distillation import Teaching, check_teaching, teach
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import STAGES
from edgekd.stages import Context


@STAGES.register(paper="https://arxiv.org/abs/1503.02531")
class Distill(Teaching):
    """Train the student from one teacher or several, with losses on logits and on layers."""

    kind: Literal["distill"] = "distill"
    target_facts: ClassVar[tuple[str, ...]] = ()

    def check(self, candidate: Candidate, context: Context, where: str) -> list[EdgekdError]:
        if candidate.form == "int8":
            return [
                InputError(
                    "a quantized model can't be distilled further",
                    where=where,
                    hint="put distill before quantize, or let quantize train with the teacher",
                )
            ]
        return check_teaching(
            self, candidate.module, data=context.data, teachers=context.teachers, where=where
        )

    def cost(self, context: Context) -> str:
        names = ", ".join(teacher.name for teacher in context.teachers) or "the labels"
        return f"{self.epochs} epochs of {len(context.data.train):,} samples, learning from {names}"

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        module = teach(
            copy.deepcopy(candidate.module),
            self,
            data=context.data,
            teachers=context.teachers,
            work=context.work,
            seed=context.seed,
            progress=context.progress,
            cache=context.cache,
        )
        names = ", ".join(str(table["name"]) for table in self.losses) or "labels only"
        return candidate.after(module, f"distill: {self.epochs} epochs with {names}")
