"""`@pytest.mark.backend(NAME)`: the test needs what that backend compiles with."""

import pytest

from edgekd.registry import BACKENDS


def skip_without_backends(item: pytest.Item) -> None:
    """Skip a test if something that one of its backends needs is not installed."""
    for mark in item.iter_markers("backend"):
        (name,) = mark.args
        for fault in BACKENDS.get(name).make().missing():
            pytest.skip(f"backend '{name}': {fault.message}: {fault.hint}")
