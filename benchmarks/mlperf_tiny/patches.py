"""timm's small networks as generated C, layer by layer (with DSP instructions, and in plain C for
the least flash) and partly in patches.

`python patches.py [--inputs 3] [--files FOLDER]`: the arena, multiply-accumulates, flash, stack and
instructions on an emulated Cortex-M4 for several limits of the arena, and whether the outputs are
those of the micro runtime, there and under the sanitizers on this machine.
"""

import argparse
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent.parent / "tests"
sys.path[:0] = [str(HERE), str(HERE.parent), str(TESTS / "support")]

from dated import write_result  # noqa: E402
from litert_reference import by_micro  # noqa: E402
from networks import export, pictures, settle  # noqa: E402

from edgekd.firmware import emulation, hosted  # noqa: E402
from edgekd.firmware.generate import Generated, generate  # noqa: E402
from edgekd.firmware.instructions import Instructions, instructions_for  # noqa: E402
from edgekd.firmware.patches.plan import LAYER_BY_LAYER, Patching  # noqa: E402
from edgekd.installed import import_torchvision  # noqa: E402

NETWORKS = {"mobilenetv2_035": 144, "mobilenetv2_100": 96, "mnasnet_small": 96,
            "mobilenetv3_small_050": 96}  # fmt: skip
"""Height and width of the images, in which every network has 100 classes."""

CPU = "cortex-m4"


def write_tflite(name: str, folder: Path) -> Path:
    """FOLDER/NAME.tflite with seeded random weights; kept if it is there."""
    path = folder / f"{name}.tflite"
    if not path.is_file():
        import_torchvision()
        from timm import create_model

        torch.manual_seed(0)
        module = create_model(name, num_classes=100)
        samples = pictures((3, NETWORKS[name], NETWORKS[name]), 8, 1)
        settle(module, samples)
        export(module, samples, path)
    return path


def patchings(path: Path, instructions: Instructions) -> dict[str, Patching]:
    """Layer by layer, to half, three eighths and a quarter of its arena, and to the smallest."""
    layered = generate(path, instructions=instructions).numbers["arena_bytes"]
    shares = {"half": 2, "three eighths": 8 / 3, "a quarter": 4}
    limits = {name: Patching("auto", int(layered / share)) for name, share in shares.items()}
    return {"layer by layer": LAYER_BY_LAYER, **limits, "smallest": Patching("always")}


def row_of(generated: Generated, x: np.ndarray, expected: np.ndarray, cpu: str) -> dict[str, Any]:
    """The numbers of one plan; those of the processor are left out if none is named."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _, source = generated.write(work)
        program = hosted.build(source, work, ("-O1", *hosted.SANITIZERS))
        row = {
            **generated.numbers,
            "plan": list(generated.notes),
            "differences_under_sanitizers": int((hosted.run(program, x) != expected).sum()),
        }
        if not cpu:
            return row
        image = emulation.build(source, cpu, work)
        found = emulation.run(image, x)
    return row | {
        "differences": int((found.outputs != expected).sum()),
        "flash_bytes": image.flash_bytes,
        "stack_bytes": found.stack_bytes,
        "instructions": int(np.median(found.instructions)),
    }


def rows_of(path: Path, count: int, cpu: str, instructions: Instructions) -> dict[str, Any]:
    """Every plan of one network."""
    content = path.read_bytes()
    size = generate(path).numbers["input_bytes"]
    x = (np.rint(pictures((size,), count, 2).numpy() * 255) - 128).astype(np.int8)
    expected = by_micro(content, x)
    rows = {}
    if cpu:
        rows["layer by layer, plain"] = row_of(
            generate(path, instructions="plain"), x, expected, cpu
        )
    for name, patching in patchings(path, instructions).items():
        generated = generate(path, instructions=instructions, patching=patching)
        arena, limit = generated.numbers["arena_bytes"], patching.arena_limit
        rows[name] = row_of(generated, x, expected, cpu) | {
            "limit_bytes": limit,
            "is_within_limit": limit is None or arena <= limit,
        }
    return {"inputs": count, "distinct_output_rows": len(np.unique(expected, axis=0))} | rows


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--inputs", type=int, default=3)
    arguments.add_argument("--files", type=Path)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    tools = {
        "compiler": emulation.version(),
        "optimization": emulation.OPTIMIZATION,
        "timm": version("timm"),
        "tflite-micro": version("tflite-micro"),
        "board": f"qemu {emulation.BOARDS[CPU].machine}",
        "instructions": "simulated: counted by the emulator, one by one",
        "weights": "random, seeded; calibrated to int8",
    }
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, size in NETWORKS.items():
            path = write_tflite(name, given.files or Path(folder))
            key = f"{name} at {size}x{size}"
            rows[key] = rows_of(path, given.inputs, CPU, instructions_for(CPU))
            rows[f"{key}, laid out for mve, on this machine"] = rows_of(
                path, given.inputs, "", "mve"
            )
            write_result(__file__, {"tools": tools, "networks": rows})


if __name__ == "__main__":
    main()
