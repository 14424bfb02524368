"""What a stage is: a value read from a recipe's table that turns one candidate into the next."""

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import model_serializer, model_validator

from edgekd.errors import EdgekdError
from edgekd.training.context import Context
from edgekd.training.teaching import Teaching
from edgekd.values.candidate import Candidate
from edgekd.values.progress import Progress
from edgekd.values.tables import Value

__all__ = ["Context", "Progress", "Stage", "TrainingStage"]


class Stage(Value):
    """One step of a compression, such as `distill`, `prune` or `quantize`.

    `target_facts` are the fields of the target on which the result depends; targets that agree in
    them share the stage's result.
    """

    kind: str
    target_facts: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def check(self, candidate: Candidate, context: Context, where: str) -> list[EdgekdError]:
        """The reasons why this stage can't work on a model; nothing is trained or changed."""

    @abstractmethod
    def cost(self, context: Context) -> str:
        """The plan's description of the stage, such as '12 epochs of 60,000 samples'."""

    @abstractmethod
    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """The next candidate. Deterministic given `context.seed`; the input is not changed."""

    def rehearse(self, candidate: Candidate, context: Context) -> Candidate:
        """What `run` would return without training: the same structure and form, on which the
        plan tries the compilers. It takes seconds; by default it returns the candidate
        unchanged."""
        return candidate

    def rehearsal(self) -> "Stage":
        """The stage without what its rehearsal doesn't read, such as a number of epochs. The plan
        doesn't rehearse again what differs in nothing else."""
        return self

    def within(self, budgets: Mapping[str, float]) -> "Stage":
        """The stage for a target with these budgets, if it depends on them."""
        return self

    def content(self, folder: Path) -> str:
        """A hash of the content of the files that its table names, relative to the recipe's
        folder."""
        return ""


class TrainingStage(Stage):
    """A stage that trains. Its table contains the keys of its `teaching` next to its own. In
    Python, pass either those keys or a whole `teaching`. Missing keys are those of the class's
    default teaching.
    """

    inlined: ClassVar[tuple[str, ...]] = ("teaching",)

    teaching: Teaching = Teaching()

    def untrained(self, **keys: Any) -> dict[str, Any]:
        """The changes for a copy of a stage without its recovery training, merged with others. Of
        the teaching it keeps what scores of layers depend on."""
        default: Teaching = type(self).model_fields["teaching"].default
        scoring = {key: getattr(self.teaching, key) for key in ("losses", "batch_size")}
        return {"teaching": default.model_copy(update={"epochs": 0, **scoring}), **keys}

    def learning(self, context: Context, where: str) -> Context:
        """The context with this stage's teaching."""
        return replace(context, teaching=self.teaching, where=where)

    @model_validator(mode="before")
    @classmethod
    def _gather_teaching(cls, table: Any) -> Any:
        if not isinstance(table, dict):
            return table
        default: Teaching = cls.model_fields["teaching"].default
        keys = type(default).model_fields.keys() - cls.model_fields.keys()
        given = {key: value for key, value in table.items() if key in keys}
        own = {key: value for key, value in table.items() if key not in keys}
        if "teaching" not in own:
            preset = {key: getattr(default, key) for key in default.model_fields_set}
            return {**own, "teaching": {**preset, **given}}
        if given or not isinstance(own["teaching"], Teaching):
            raise ValueError("write the keys of 'teaching' directly, or give a Teaching alone")
        return own

    @model_serializer(mode="wrap")
    def _flat(self, serialize: Callable[["TrainingStage"], dict[str, Any]]) -> dict[str, Any]:
        table = serialize(self)
        return {**table.pop("teaching", {}), **table}

    @classmethod
    def __pydantic_init_subclass__(cls, **keywords: Any) -> None:
        """Show the teaching's keys in the signature, from which `edgekd methods` lists them."""
        super().__pydantic_init_subclass__(**keywords)
        signature = inspect.signature(cls)
        default: Teaching = cls.model_fields["teaching"].default
        shown = dict(signature.parameters)
        del shown["teaching"]
        for name, parameter in inspect.signature(type(default)).parameters.items():
            shown.setdefault(name, parameter.replace(default=getattr(default, name)))
        cls.__signature__ = signature.replace(parameters=list(shown.values()))
