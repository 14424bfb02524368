"""A task of the user's own: a loss, a metric and a decoder, each a function that a recipe names."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.data.tasks import VALUES, Task
from edgekd.data.tasks._functions import (
    Function,
    fault_of,
    form_of,
    function_identity,
    function_of,
    loss_by,
    try_loss,
)
from edgekd.errors import EdgekdError, InputError, MissingPackage
from edgekd.factories import find_callable
from edgekd.installed import has_module, import_torchvision
from edgekd.registry import TASKS
from edgekd.values.tree import Tree, count, leaves


@dataclass(frozen=True, eq=False, repr=False)
class Own(Task):
    """What the user's functions say; see `own`. Targets keep their type: integers in int64, other
    numbers in float32."""

    judge: Callable[..., Any]
    title: str
    teaches: Callable[..., Any] | None = None
    decodes: Callable[..., Any] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    better: Literal["higher", "lower"] = "higher"
    form: Any = None
    judges_whole: ClassVar[bool] = True
    has_rows: ClassVar[bool] = True
    keeps_targets: ClassVar[bool] = True

    def __repr__(self) -> str:
        """What results depend on: the functions with the content of their files."""
        functions = [function_identity(each) for each in (self.judge, self.teaches, self.decodes)]
        form = "" if self.form is None else f", {self.form}"
        own = f"{sorted(self.arguments.items())}, {self.better}, {self.output}"
        return f"Own({functions}, {own}{form})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def with_form(self, form: Any, where: str) -> "Own":
        """The same task, whose functions get the tree of targets."""
        return replace(self, form=form)

    def targets(self, y: Tensor) -> Tree:
        """The targets as the user's functions get them."""
        return y if self.form is None else self.form.unpacked(y)

    @property
    def metric(self) -> str:  # type: ignore[override]
        """The metric's name."""
        return self.title if self.better == "higher" else f"1 - {self.title}"

    @property
    def reads_all(self) -> bool:  # type: ignore[override]
        """Whether the functions get every output: unless one is named."""
        return self.output is None

    def label_loss(self, outputs: Any, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """The user's loss, or zero without one."""
        return loss_by(self.teaches, outputs, self.targets(y))

    def _try_loss(self, outputs: Any, y: Tensor) -> None:
        try_loss(self.teaches, outputs, self.targets(y))

    def judged(self, outputs: Any, y: Tensor) -> Tensor:
        """(B,) scores, or one number for all samples, 1 where it is perfect."""
        decoded = outputs if self.decodes is None else self.decodes(outputs)
        if inspect.isclass(self.judge):
            metric: Any = self.judge(**self.arguments)
            metric.update(decoded, self.targets(y))
            value = metric.compute()
        else:
            value = self.judge(decoded, self.targets(y), **self.arguments)
        found = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
        if found.dim() > 1 or (found.dim() == 1 and len(found) != len(y)):
            raise InputError(
                f"the metric gives {form_of(found)} for {len(y)} samples",
                where="data.task: metric",
                allowed="one number, or one for each sample",
            )
        found = found if self.better == "higher" else 1 - found
        if bool((found > 1 + 1e-9).any()):
            raise InputError(
                f"the metric gives {float(found.max()):.4g}",
                where="data.task: metric",
                allowed="at most 1, which is perfect",
                hint='scale it to at most 1, or say better = "lower" if it is an error',
            )
        return found.clamp(max=1.0)

    def score(self, outputs: Any, y: Tensor) -> Tensor:
        """The user's metric where it gives a score for each sample."""
        found = self.judged(outputs, y)
        if found.dim():
            return found
        raise InputError(
            f"{self.title} is one number for all samples, not one for each",
            where="data.task: metric",
            hint="leave out what compares single samples",
        )

    def decode(self, outputs: Any) -> Any:
        """What the user's decoder gives, or the outputs."""
        return outputs if self.decodes is None else self.decodes(outputs)

    def agreement(self, outputs: Any, others: Any) -> Tensor:
        """(B,) the cosine between two networks' outputs, at least 0, over all of a sample's
        floating-point outputs."""
        mine, theirs = (_flat(tree) for tree in (outputs, others))
        return F.cosine_similarity(mine, theirs, dim=1, eps=1e-30).clamp(0, 1)

    def rows(self, outputs: Any) -> Tensor | None:
        """(R, C) of one output (B, C), or (B, C, ...) with one row for each position."""
        if not isinstance(outputs, Tensor) or outputs.dim() < 2:
            return None
        return outputs.movedim(1, -1).flatten(0, -2)

    def soft_losses(self, y: Tensor) -> Sequence[Mapping[str, Any]]:
        """`kl` where the targets are integers, which stand for classes; the squared error of the
        outputs otherwise."""
        return VALUES if y.is_floating_point() else super().soft_losses(y)

    def classes_in(self, y: Tensor) -> int:
        """0: there are none to count."""
        return 0

    def target_faults(self, y: Tensor, classes: int, where: str) -> list[EdgekdError]:
        """NaN or infinity among the targets."""
        if y.is_floating_point() and not bool(y.isfinite().all()):
            return [InputError("NaN or infinity among the targets", where=where)]
        return []

    def output_fault(
        self, outputs: object, y: Tensor, classes: int, where: str
    ) -> InputError | None:
        """What the user's functions raise on these outputs."""
        tried = {"loss": self._try_loss, "metric": self.judged}
        return fault_of(tried, outputs, y, where)


@TASKS.register(paper="the user's own")
def own(
    metric: Function,
    loss: Function | None = None,
    decode: Function | None = None,
    metric_arguments: dict[str, Any] = {},  # noqa: B006 - the registry copies it
    better: Literal["higher", "lower"] = "higher",
    output: str | int | None = None,
) -> Own:
    """A loss, a metric and a decoder of the user's own.

    Each is `package.module:callable`, looked up beside the recipe, or a callable; they get the
    output that is named, or all of them. `metric(outputs, y)` gives one score for each sample (B,),
    or one number for all of them; it may also be the name of a torchmetrics class, such as
    "F1Score", made with `metric_arguments`. With `better = "lower"` the report's accuracy is 1
    minus it, as for an error rate. `y` is a sample's target as the data set has it, also a dict or
    a tuple of several. `loss(outputs, y)` is a scalar; without it only teachers teach.
    `decode(outputs)` gives what the metric compares with the targets.
    """
    title = metric if isinstance(metric, str) else metric.__name__
    return Own(
        judge=_metric(metric),
        title=title.rpartition(":")[2],
        teaches=function_of(loss, "loss"),
        decodes=function_of(decode, "decode"),
        arguments=dict(metric_arguments),
        better=better,
        output=output,
    )


own.example = {  # type: ignore[attr-defined]
    "metric": "torch.nn.functional:cosine_similarity",
    "loss": "torch.nn.functional:mse_loss",
}


def _metric(given: Function) -> Callable[..., Any]:
    if not isinstance(given, str):
        return given
    if ":" not in given:
        if not has_module("torchmetrics"):
            raise MissingPackage("torchmetrics", "metrics", where="data.task: metric")
        import_torchvision()  # which torchmetrics imports where it is installed
        given = f"torchmetrics:{given}"
    return find_callable(given, Path(), "data.task: metric")


def _flat(outputs: Tree) -> Tensor:
    values = [leaf for leaf in leaves(outputs) if leaf.is_floating_point()] or leaves(outputs)
    return torch.cat([leaf.reshape(count(outputs), -1).double() for leaf in values], 1)
