"""The part of a recipe that uses a method, made from the method itself."""

from collections.abc import Mapping
from typing import Any

from edgekd.registry import Entry


def snippet(kind: str, entry: Entry) -> str:
    """TOML for one method; empty for a kind that a recipe does not name.

    A method's class may have an `example`, a mapping of keys that its table can't do without, and a
    scheme `around`, the recipe's other tables that it needs.
    """
    keys: dict[str, Any] = dict(getattr(entry.make, "example", {}))
    if kind == "loss":
        return _distilled(_loss(entry, keys))
    if kind == "schedule":
        table = {"schedule": entry.name, **_numbers(entry), **keys}
        key = "temperature" if getattr(entry.make, "for_parameters", False) else "weight"
        return _distilled({"name": "kl", key: table})
    if kind == "scheme":
        scheme = {"name": entry.name, **keys} if keys else entry.name
        return getattr(entry.make, "around", "") + _stage("distill", {"scheme": scheme})
    if kind == "criterion":
        weights = {} if getattr(entry.make, "structured", True) else {"granularity": "weights"}
        return _stage("prune", {"criterion": entry.name, "amount": 0.3, **weights, **keys})
    if kind == "stage":
        return _stage(entry.name, {"amount": 0.3, **keys} if entry.name == "prune" else keys)
    if kind == "task":
        task = {"name": entry.name, **keys} if keys else entry.name
        return _section("data", {"source": "mypackage.data:datasets", "task": task})
    if kind == "diagnostic":
        wish = {"name": entry.name, **keys} if keys else entry.name
        return _section("report", {"diagnostics": [wish]})
    return ""


def _loss(entry: Entry, keys: Mapping[str, Any]) -> dict[str, Any]:
    from edgekd.losses import DepthsLoss, FeatureLoss

    table: dict[str, Any] = {"name": entry.name, "weight": 0.9}
    make = entry.make
    if isinstance(make, type) and issubclass(make, FeatureLoss | DepthsLoss):
        outputs_will_do = getattr(make, "outputs_will_do", False)
        if not outputs_will_do and "student" not in keys:
            table["layers"] = "auto"
    if "temperature" in entry.parameters:
        table["temperature"] = entry.parameters["temperature"].default
    return {**table, **keys}


def _numbers(entry: Entry) -> dict[str, float]:
    """What a schedule can't do without: from 8 down to 2."""
    known = {"start": 8.0, "end": 2.0}
    given = {key: p.default for key, p in entry.parameters.items() if key in known}
    return {key: known[key] if d is entry.parameters[key].empty else d for key, d in given.items()}


def _distilled(loss: Mapping[str, Any]) -> str:
    return f'[[stages]]\nkind = "distill"\nlabel_weight = 0.1\nlosses = [\n  {_toml(loss)},\n]\n'


def _stage(kind: str, table: Mapping[str, Any]) -> str:
    return _section("[stages]", {"kind": kind, **table})


def _section(name: str, table: Mapping[str, Any]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {_toml(table[key])}" for key in table)]) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(value[key])}" for key in value) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)
