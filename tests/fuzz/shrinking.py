"""The smallest network that a check still finds wrong."""

from dataclasses import replace

from checks import Case, Check, RoundingOnly, Wrong
from programs import Program

from edgekd.errors import InputError


def shrunk(program: Program, check: Check) -> Program:
    """The program with every step left out without which it is still wrong in the same kind."""
    kind = _failure(program, check)
    smaller = True
    while smaller:
        smaller = False
        for number in reversed(range(len(program.steps))):
            for candidate in _smaller(program, number):
                if _failure(candidate, check) == kind:
                    program, smaller = candidate, True
                    break
    return program


def _smaller(program: Program, number: int) -> list[Program]:
    if number >= len(program.steps):
        return []
    ended = replace(program, steps=program.steps[:number]).read_only()
    used = any(number in (step.shared, step.tied) for step in program.steps)
    return [*([ended] if number else []), *([] if used else [program.without(number)])]


def _failure(program: Program, check: Check) -> str:
    """What kind of failure there is: the exception's name, empty for none."""
    try:
        case = Case(program)
        if not bool(case.expected.isfinite().all()) or float(case.expected.std()) < 1e-3:
            return ""
    except Exception:  # shapes that don't fit without the step
        return ""
    try:
        check(case)
    except Wrong:
        return "Wrong"
    except (InputError, RoundingOnly):
        return ""
    except Exception as error:  # whatever goes wrong is what is looked for
        return type(error).__name__
    return ""
