"""What a backend says about itself: plain data that the plan, bench, doctor and the report read.

A backend's class carries it as the attribute `info`, so that a new backend is one file and no list
elsewhere names it. Reading a description must stay cheap: a backend's module imports heavy
libraries (torch, onnx, a vendor's compiler) inside its methods only.
"""

from pathlib import Path

from edgekd.values.artifact import IN_INTEGERS, Precision
from edgekd.values.tables import Value

FORM_OF = {"fp32": "float", "fp16": "fp16"} | dict.fromkeys(IN_INTEGERS, "int8")
"""The form of candidate that a precision is compiled from; all others are "weights"."""


class Package(Value):
    """A Python package that a backend uses. `module` is imported from it, `name` is its name on a
    package index, and `extra` is the extra of edgekd that installs it; without one, `pip install
    NAME` does. A backend can't work without a `required` package."""

    name: str
    module: str
    purpose: str
    extra: str = ""
    required: bool = True

    @property
    def requirement(self) -> str:
        """What to give to pip."""
        return f"edgekd[{self.extra}]" if self.extra else self.name


class Tool(Value):
    """A command that a backend uses where it is on the PATH; `hint` says how to get it."""

    command: str
    purpose: str
    hint: str


class FileKind(Value):
    """One kind of file that a backend makes.

    `format` and `runtime` are those of its `Artifact`; a runtime is the device agent's name for
    what loads the file. `suffixes` are the file names that `edgekd bench` takes for this kind; a
    kind that shares its suffix with another backend's has a `mark`, bytes that only its files
    contain. `tells_inputs` is false where the runtime can't say which inputs the file has.
    `not_run` says why files of this kind are never run, if so. Of a `stored` kind only the size is
    held against budgets. `plot_mark` is matplotlib's marker.
    """

    format: str
    runtime: str
    suffixes: tuple[str, ...] = ()
    mark: bytes = b""
    tells_inputs: bool = True
    not_run: str = ""
    stored: bool = False
    plot_mark: str = "D"


class Needs(Value):
    """What has to be there: packages and commands on this machine, and on the target an
    accelerator of that kind and activations quantized that way, if they are named."""

    packages: tuple[Package, ...] = ()
    tools: tuple[Tool, ...] = ()
    accelerator: str = ""
    activations: str = ""


class BackendInfo(Value):
    """A backend's description of itself.

    Args:
        title: what a sentence calls it, such as "the Edge TPU".
        files: every kind of file that it makes.
        precisions: the precisions of its files; a follower takes files of these precisions.
        follows: the backend whose files it starts from; empty for one that starts from the model.
        options: what a target's `[backends.NAME]` may set; without it the backend checks the table.
        needs: what has to be installed and what the target has to have.
        stops_at_float: its accelerator maps nothing after the first layer left in float.
        leaves_open: its files leave the sizes open that a recipe lists under [[dynamic]].
        wide_activations: its files may have activations of 16 bits.
        wide_cost: what those cost in its runtime, as the end of a sentence.
        in_patches: it can compute layers patch by patch, so that none has to be in memory whole.
        finds_boxes: it can put the search for boxes (non-maximum suppression) into a file.
        tells_costs: compiling a file tells what it costs on the target, in seconds and without a
            device, so that a search asks for an untrained file too.
        runner: the file with which the device's agent runs `files`, where the agent itself does not
            know their runtime; `edgekd.devices.agent` says what such a file contains.
    """

    title: str
    files: tuple[FileKind, ...]
    precisions: tuple[Precision, ...]
    follows: str = ""
    options: type[Value] | None = None
    needs: Needs = Needs()
    stops_at_float: bool = False
    leaves_open: bool = False
    wide_activations: bool = False
    wide_cost: str = ""
    in_patches: bool = False
    finds_boxes: bool = False
    tells_costs: bool = False
    runner: Path | None = None

    @property
    def forms(self) -> frozenset[str]:
        """The forms of candidate that it compiles."""
        return frozenset(FORM_OF.get(precision, "weights") for precision in self.precisions)

    @property
    def int8_only(self) -> bool:
        """Whether it takes nothing but models that compute in integers."""
        return IN_INTEGERS.issuperset(self.precisions)

    def kind_of(self, format: str) -> FileKind | None:
        """Its kind of file with that format, if it makes such files."""
        return next((kind for kind in self.files if kind.format == format), None)
