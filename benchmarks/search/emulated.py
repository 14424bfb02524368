"""Predicted against simulated instructions of networks on the emulated Raspberry Pi 5.

The board's clock advances one nanosecond with each instruction, so its microseconds are thousands
of instructions, never a latency. Int8 TFLite files run in LiteRT with XNNPACK; the table learns
from the networks of tables.py and predicts others.

    edgekd board create raspberry-pi-5
    python benchmarks/search/emulated.py --work FOLDER
"""

import argparse
import statistics
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import torch

from edgekd.benchmark.files import Wanted, bench_files, loaded_files
from edgekd.devices.opening import open_device
from edgekd.measure.cost_model import fit_cost_model
from edgekd.measure.cost_table import graph_with_shapes, known_files, table_folder
from edgekd.measure.operator_costs import MeasuredFile, operators_of
from edgekd.store import cache_folder
from edgekd.values.target import load_target

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE), str(HERE.parent / "mlperf_tiny")]
from dated import write_result  # noqa: E402
from tables import KNOWN, file_of  # noqa: E402

TARGET = load_target("raspberry-pi-5")
HELD_OUT = [
    "own:resnet8 20", "own:resnet14 16", "own:resnet20 12", "own:ds_cnn 64",
    "own:mobilenet_v1 0.35", "own:mobilenet_v2 0.5", "timm:lcnet_050 48",
    "timm:mobilenetv2_050 48", "timm:mnasnet_small 48", "timm:tinynet_e 48",
]  # fmt: skip


def measured(names: list[str], work: Path) -> dict[str, MeasuredFile]:
    """The networks' operators as the board's table has them, measured where they are missing."""
    files = {name: file_of(name, "cortex-m4", work) for name in names}
    found = {}
    with closing(open_device("emulated://raspberry-pi-5")) as device:
        for name, loaded in zip(
            names, loaded_files(list(files.values()), TARGET, device, Wanted()), strict=True
        ):
            artifact = loaded.artifact
            folder = table_folder(cache_folder(), device, artifact, loaded.options)
            if not (folder / f"{artifact.sha256}.json").is_file():
                wanted = Wanted(per_layer=True)
                bench_files([artifact.path], TARGET, device, quick=True, wanted=wanted)
            table = {each.sha256: each for each in known_files(folder)}
            found[name] = table[artifact.sha256]
            print(name, found[name].whole, file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="Keep the files in this folder.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    work = given.work or Path(tempfile.mkdtemp(prefix="edgekd-emulated-"))
    everything = measured([*KNOWN, *HELD_OUT], work)
    model = fit_cost_model([everything[name] for name in KNOWN])
    rows = {}
    for name in HELD_OUT:
        operators = operators_of(graph_with_shapes(file_of(name, "cortex-m4", work)))
        predicted, counted = model.predict(operators), everything[name].whole
        rows[name] = {
            "thousand_instructions": counted, "predicted": predicted,
            "error": predicted / counted - 1.0,
        }  # fmt: skip
    sizes = [abs(row["error"]) for row in rows.values()]
    left_out = [abs(error) for error in model.errors]
    write_result(
        __file__,
        {
            "board": "emulated://raspberry-pi-5: QEMU -icount shift=0, one core, simulated",
            "networks": {"known": len(KNOWN), "held_out": len(HELD_OUT)},
            "model": model.name,
            "held_out": {
                "median_error": statistics.median(sizes),
                "largest_error": max(sizes),
                "within_3_percent": sum(size <= 0.03 for size in sizes) / len(sizes),
                "within_10_percent": sum(size <= 0.1 for size in sizes) / len(sizes),
            },
            "left_out_of_the_known": {
                "median_error": statistics.median(left_out), "largest_error": max(left_out),
            },
            "rows": rows,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
