"""The model between two stages: a float module or a quantized graph, with its lineage."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from torch import nn

from edgekd.values.sizes import OpenSize
from edgekd.values.tree import Tree

Form = Literal["float", "fp16", "int8", "weights"]


@dataclass(frozen=True)
class Candidate:
    """A model on its way to the device.

    `module` is in eval mode and on the CPU between stages: a float `nn.Module` while `form` is
    "float", and a graph of quantize and dequantize ops (what `convert_pt2e` returns, weights folded
    to int8) once it is "int8". "fp16" keeps the float module and asks the backends for half
    precision; "weights" is a graph whose weights alone are narrow (bf16, int4, ternary ...).
    `source` is the module, or a function that loads it when it is first needed. `example` is one
    real sample's tree of inputs with a batch of one, which the module takes as its one argument.
    `lineage` has a line for each stage that was applied. `metadata` describes the model in files
    that can carry it. `open` are the sizes of inputs that files leave open where they can.
    `notes` say what its last stage left as it was, for the plan and the report.
    With `integers_only` files must have no operator in float, even where that takes longer.
    `also` are the forms of the last candidate with float weights that are compiled beside this one,
    so that each backend's fastest file can be chosen by measuring.
    """

    source: nn.Module | Callable[[], nn.Module]
    example: Tree
    form: Form = "float"
    lineage: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    open: tuple[OpenSize, ...] = ()
    integers_only: bool = False
    notes: tuple[str, ...] = ()
    also: tuple[Form, ...] = ()

    @property
    def is_floating(self) -> bool:
        """Whether its weights are still float, whatever precision the files will have."""
        return self.form in ("float", "fp16")

    @cached_property
    def module(self) -> nn.Module:
        """The network itself."""
        return self.source if isinstance(self.source, nn.Module) else self.source()

    def after(
        self, module: nn.Module, line: str, form: str | None = None, notes: tuple[str, ...] = ()
    ) -> "Candidate":
        """The candidate that a stage returns: the new module, one more line of lineage, and what
        there is to note about it."""
        return replace(
            self,
            source=module,
            lineage=(*self.lineage, line),
            form=form or self.form,  # type: ignore[arg-type]
            notes=notes,
        )
