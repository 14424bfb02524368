"""Checks a target's backend tables against the options that each backend declares."""

from collections.abc import Mapping
from typing import Any

from edgekd.errors import EdgekdError, InputError
from edgekd.values.backend_lookup import backend_info
from edgekd.values.tables import Value, parse


def check_options(tables: Mapping[str, Any], where: str) -> list[EdgekdError]:
    """Every fault in a target's `[backends.NAME]` tables.

    A backend that declares no options checks its own table.
    """
    faults: list[EdgekdError] = []
    for name, table in tables.items():
        place = f"{where}: backends.{name}"
        try:
            options = backend_info(name, place).options
        except EdgekdError as error:
            faults.append(error)
            continue
        if not isinstance(table, Mapping):
            faults.append(InputError(f"a table is needed, found {table!r}", where=place))
        elif options is not None:
            faults += _faults_in(options, table, place)
    return faults


def _faults_in(model: type[Value], table: Mapping[str, Any], where: str) -> list[EdgekdError]:
    try:
        parse(model, table, where)
    except EdgekdError as error:
        return list(error.faults)
    return []
