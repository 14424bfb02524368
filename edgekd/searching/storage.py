"""Where a search's trials are coordinated: an Optuna storage, by default a file in its folder.

The trials' own folders are what counts: a storage that is lost is filled from them again.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekd.errors import InputError, MissingPackage, ToolError, first_line
from edgekd.installed import has_module

DATABASE = "study.db"
JOURNAL = "journal:"
FORMS = "postgresql://USER@HOST/NAME, mysql://..., sqlite:///FILE, or journal:FILE"
DRIVERS = {
    "postgresql": {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]"},
    "mysql": {"pymysql": "pymysql", "mysqldb": "mysqlclient"},
}
"""By kind of database: SQLAlchemy's names of drivers, the first the best, and their packages."""

MODULES = {"mysqldb": "MySQLdb"}
"""The modules of drivers whose names differ."""


def import_optuna() -> Any:
    """Optuna, quiet. Raises `MissingPackage` if it is not installed."""
    if not has_module("optuna"):
        raise MissingPackage("optuna", "search", where="edgekd search")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def check_storage(url: str | None) -> None:
    """Refuse a storage whose URL has a wrong form or whose driver is not installed."""
    if url is None or url.startswith(JOURNAL):
        return
    scheme, separator, rest = url.partition("://")
    kind, _, driver = scheme.partition("+")
    if not separator or not rest or kind not in (*DRIVERS, "sqlite"):
        raise InputError(f"'{url}' is not a storage", where="--storage", allowed=FORMS)
    if kind in DRIVERS and not (driver or _driver(kind)):
        raise MissingPackage(next(iter(DRIVERS[kind].values())), "", where="--storage")


def _driver(kind: str) -> str:
    """The first driver of a kind of database that is installed. SQLAlchemy has a default, which
    changes with its version."""
    installed = (name for name in DRIVERS[kind] if has_module(MODULES.get(name, name)))
    return next(installed, "")


def _with_driver(url: str) -> str:
    """The URL with the driver that is installed, where it names none."""
    kind, separator, rest = url.partition("://")
    return f"{kind}+{_driver(kind)}{separator}{rest}" if kind in DRIVERS else url


def open_storage(url: str | None, out: Path) -> Any:
    """An Optuna storage. Raises `InputError` for one that can't be reached or that another
    version of Optuna wrote."""
    optuna = import_optuna()
    place = url or f"sqlite:///{out / DATABASE}"
    with storage_errors(url or str(out / DATABASE)):
        if place.startswith(JOURNAL):
            file = Path(place.removeprefix(JOURNAL))
            file.parent.mkdir(parents=True, exist_ok=True)
            backend = optuna.storages.journal.JournalFileBackend(str(file))
            return optuna.storages.JournalStorage(backend)
        return optuna.storages.RDBStorage(
            _with_driver(place),
            engine_kwargs={"connect_args": {"timeout": 60}} if "sqlite" in place else None,
        )


@contextmanager
def storage_errors(place: str) -> Iterator[None]:
    """Turn a storage's own errors into one clear error."""
    from sqlalchemy.exc import SQLAlchemyError

    optuna = import_optuna()
    try:
        yield
    except RuntimeError as error:
        if "version" not in str(error):
            raise
        raise InputError(
            f"the storage is of another version of Optuna: {first_line(error)}",
            where=place,
            hint="name another one with --storage, or migrate it with 'optuna storage upgrade'",
        ) from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ or error
        raise ToolError(
            f"the storage can't be used: {first_line(cause)}",
            where=place,
            hint="is it running, reachable and writable? Finished trials are kept in --out",
        ) from None
    except (OSError, ValueError) as error:
        if not place.startswith(JOURNAL):
            raise
        raise InputError(f"not a journal of Optuna: {first_line(error)}", where=place) from None
