"""Tables of what operators cost, made by hand."""

from pathlib import Path

import numpy as np

from edgekd.devices import Device
from edgekd.measure.cost_table import table_of
from edgekd.measure.operator_costs import MeasuredFile, Operator
from edgekd.store import cache_folder, make_folder


def table_file(number: int) -> MeasuredFile:
    """A file of 3 to 6 convolutions that take 10 us and 1 ns for each 10 products, and nothing
    beside them."""
    random = np.random.default_rng(number)
    operators, us = [], []
    for _ in range(3 + number % 4):
        channels, filters, positions = (int(v) for v in random.integers(8, 65, 3))
        macs = channels * filters * positions * 9
        operators.append(
            Operator(
                kind="Conv", macs=macs, read=4 * channels * positions,
                written=4 * filters * positions, constant=36 * channels * filters, kernel=9,
                channels=channels, filters=filters, positions=positions,
            )
        )  # fmt: skip
        us.append(10.0 + macs / 1e4)
    return MeasuredFile(
        sha256=f"{number:02d}", operators=tuple(operators), costs=tuple(us), added=0.0,
        whole=sum(us),
    )  # fmt: skip


def write_table(
    device: Device, files: int, runtime: str, format: str, options: dict[str, object]
) -> Path:
    """Enter as many files into a device's table, in the cache that the environment names."""
    folder = table_of(cache_folder(), device, runtime, format, options)
    make_folder(folder)
    for number in range(files):
        made = table_file(number)
        (folder / f"{made.sha256}.json").write_text(made.model_dump_json())
    return folder
