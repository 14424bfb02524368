"""The C of the steps that are repeated for each patch: one function with two nested loops.

The numbers that differ from patch to patch are in two tables, one line for each row and for each
column of patches. A step with such numbers works on a copy of its layer on the stack, in which they
are set.
"""

from collections.abc import Iterator, Sequence

from edgekd.firmware.loop import ByPatch, Loop
from edgekd.firmware.step import Step

INT16_MAX = 2**15 - 1


def layer_argument(step: Step, number: int) -> str:
    """How the call of a repeated step names its layer."""
    return "&layer" if _varying(step) else f"&layer_{number}"


def uses_work(calls: Sequence[str]) -> bool:
    """Whether any of the calls has scratch memory on the stack."""
    return any("(int8_t *)work" in call for call in calls)


def number_bytes(steps: Sequence[Step]) -> int:
    """The bytes of both tables."""
    return sum(
        len(one) * len(one[0]) * (2 if _kind(one) == "int16_t" else 4)
        for one in _tables(steps)
        if one and one[0]
    )


def loop_function(
    number: int, loop: Loop, steps: Sequence[Step], calls: Sequence[str], first: int
) -> str:
    """The tables and the function of a loop; `calls` are those of its steps, whose layers are
    numbered from `first` on."""
    rows, columns = _tables(steps)
    work = uses_work(calls)
    lines = [
        f"/* {loop.about} */",
        *_table(f"rows_{number}", rows),
        *_table(f"columns_{number}", columns),
        f"static void patches_{number}(int8_t *arena{', int32_t *work' if work else ''})",
        "{",
        f"    for (int32_t i = 0; i < {loop.rows}; i++) {{",
        *_pointer("row", rows, f"rows_{number}[i]", 8),
        f"        for (int32_t j = 0; j < {loop.columns}; j++) {{",
        *_pointer("column", columns, f"columns_{number}[j]", 12),
    ]
    for layer, (step, call) in enumerate(zip(steps, calls, strict=True), first):
        lines += [f"            {line}" for line in _call(step, call, layer, (rows, columns))]
    return "\n".join([*lines, "        }", "    }", "}"])


def _varying(step: Step) -> list[tuple[str, ByPatch]]:
    """The names and numbers of a step that differ from patch to patch."""
    return [(name, value) for name, value in _numbers(step) if isinstance(value, ByPatch)]


def _numbers(step: Step) -> Iterator[tuple[str, object]]:
    for name, value in step.parameters.items():
        if isinstance(value, list):
            yield from ((f"{name}[{place}]", one) for place, one in enumerate(value))
        else:
            yield name, value


def _tables(steps: Sequence[Step]) -> tuple[list[list[int]], list[list[int]]]:
    """The numbers by row and by column, each different one once; ones are left out."""
    varying = [value for step in steps for _, value in _varying(step)]
    found = []
    for numbers in ([one.rows for one in varying], [one.columns for one in varying]):
        kept = [one for one in dict.fromkeys(numbers) if set(one) != {1}]
        found.append([list(line) for line in zip(*kept, strict=True)])
    return found[0], found[1]


def _kind(table: Sequence[Sequence[int]]) -> str:
    small = all(-INT16_MAX <= one <= INT16_MAX for line in table for one in line)
    return "int16_t" if small else "int32_t"


def _table(name: str, table: Sequence[Sequence[int]]) -> list[str]:
    if not table:
        return []
    lines = ["    {" + ", ".join(str(one) for one in line) + "}," for line in table]
    size = f"{name}[{len(table)}][{len(table[0])}]"
    return [f"static const {_kind(table)} {size} = {{", *lines, "};"]


def _pointer(name: str, table: Sequence[Sequence[int]], place: str, indent: int) -> list[str]:
    return [" " * indent + f"const {_kind(table)} *{name} = {place};"] if table else []


def _call(
    step: Step, call: str, number: int, tables: tuple[list[list[int]], list[list[int]]]
) -> list[str]:
    varying = _varying(step)
    if not varying:
        return [call]
    lines = [f"    {step.kernel}_layer layer = layer_{number};"]
    for name, value in varying:
        factors = [
            f"{axis}[{_place(numbers, table)}]"
            for axis, table, numbers in zip(
                ("row", "column"), tables, (value.rows, value.columns), strict=True
            )
            if set(numbers) != {1}
        ]
        lines.append(f"    layer.{name} = {' * '.join(factors)};")
    return ["{", *lines, f"    {call}", "}"]


def _place(numbers: Sequence[int], table: Sequence[Sequence[int]]) -> int:
    """The column of a table that has these numbers."""
    return list(zip(*table, strict=True)).index(tuple(numbers))
