"""Sizes of the inputs that a compiled file may leave open, such as the length of a sequence."""

from collections.abc import Sequence

from pydantic import PositiveInt, model_validator

from edgekd.errors import EdgekdError, InputError, nearest, raise_all
from edgekd.values.tables import Value
from edgekd.values.tree import Tree, named_leaves


class OpenSize(Value):
    """A size that inputs share, from `min` to `max`: `inputs` has the dimension of each by its
    name, where 0 counts the samples; a lone input is called "input". `max` is at most, and without
    it, the size that the samples have. A size of 1 is a case of its own for some kernels, so the
    smallest is 2 unless `min` says otherwise."""

    name: str
    inputs: dict[str, PositiveInt]
    min: PositiveInt = 2
    max: PositiveInt | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "OpenSize":
        if not self.inputs:
            raise ValueError("name at least one input with its dimension")
        if self.max is not None and self.min >= self.max:
            raise ValueError(f"min must be below max, found {self.min} and {self.max}")
        return self


def bounded(sizes: Sequence[OpenSize], example: Tree, where: str) -> tuple[OpenSize, ...]:
    """The same sizes, each with the largest that the samples allow. Raises `InputError` with every
    fault: an input or a dimension that isn't there, sizes that differ, a bound out of reach."""
    shapes = {name: tuple(leaf.shape) for name, leaf in named_leaves(example).items()}
    faults: list[EdgekdError] = []
    made: list[OpenSize] = []
    for number, size in enumerate(sizes, 1):
        place = f"{where}.{number} ({size.name})"
        found = _faults(size, shapes, place)
        faults += found
        if not found:
            name, dimension = next(iter(size.inputs.items()))
            made.append(size.model_copy(update={"max": size.max or shapes[name][dimension]}))
    raise_all(faults)
    return tuple(made)


def _faults(size: OpenSize, shapes: dict[str, tuple[int, ...]], place: str) -> list[EdgekdError]:
    faults: list[EdgekdError] = []
    for name, dimension in size.inputs.items():
        if name not in shapes:
            faults.append(
                InputError(
                    f"there is no input '{name}'",
                    where=place,
                    allowed=", ".join(shapes),
                    hint=nearest(name, list(shapes)),
                )
            )
        elif dimension >= len(shapes[name]):
            message = f"'{name}' has no dimension {dimension}"
            allowed = f"1 to {len(shapes[name]) - 1}"
            faults.append(InputError(message, where=place, allowed=allowed))
    if faults:
        return faults
    found = {name: shapes[name][dimension] for name, dimension in size.inputs.items()}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} {value}" for name, value in found.items())
        return [InputError(f"the inputs have different sizes: {listed}", where=place)]
    (most,) = set(found.values())
    if size.min >= most or (size.max or most) > most:
        message = f"the samples have a size of {most}, so nothing above it can be checked"
        hint = f"min below {most}, max at most {most}"
        return [InputError(message, where=place, hint=hint)]
    return []


def described_sizes(sizes: Sequence[OpenSize]) -> str:
    """The sizes as the plan names them: "batch, length 1 to 128"."""
    return ", ".join(["batch", *(f"{size.name} {size.min} to {size.max}" for size in sizes)])
