"""Steps that generated C repeats for each patch of an image, and numbers that differ by patch."""

from dataclasses import dataclass

from edgekd.firmware.graph import Array


@dataclass(frozen=True)
class ByPatch:
    """A number of a step that is `rows[i] * columns[j]` in the patch at place i, j."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def at(self, row: int, column: int) -> int:
        """The number of one patch."""
        return self.rows[row] * self.columns[column]


@dataclass(frozen=True, eq=False)
class Loop:
    """The steps from `begin` to before `end`, repeated for each of `rows` times `columns` patches.

    They read `source` and write `output`, both whole. The output may overwrite the source if it
    begins at least `ahead` bytes before it.
    """

    begin: int
    end: int
    rows: int
    columns: int
    source: Array
    output: Array
    ahead: int

    @property
    def about(self) -> str:
        """3x2 patches of 1x144x144x3 -> 1x36x36x8."""
        shapes = ("x".join(map(str, one.shape)) for one in (self.source, self.output))
        return f"{self.rows}x{self.columns} patches of {' -> '.join(shapes)}"
