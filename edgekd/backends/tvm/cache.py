"""Compiled libraries by content: the same program for the same target is compiled once."""

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from edgekd.backends.tvm.job import Built, Job, read_built, run_worker
from edgekd.store import Store, cache_folder, code_key, key_of, write_beside

PACKAGES = ("torch", "apache-tvm", "apache-tvm-ffi")


def default_folder() -> Path:
    """`tvm` in what runs share."""
    return cache_folder() / "tvm"


def versions() -> dict[str, str]:
    """The packages that decide what is compiled."""
    return {name: version(name) for name in PACKAGES}


def library(
    program: torch.export.ExportedProgram, job: Job, seconds: float, folder: Path
) -> tuple[Built, bool]:
    """The compiled program, and whether it was in the cache `folder` already."""
    store = Store(folder)
    key = key_of(program_key(program), asdict(job), versions(), code_key())
    stored = store.find("library", key)
    if stored is None:
        tiles = _tiles_file(folder, job)
        known = json.loads(tiles.read_text()) if job.grid_seconds and tiles.exists() else {}
        informed = Job(**(asdict(job) | {"known_tiles": known}))

        def fill(work: Path) -> None:
            run_worker(program, informed, seconds, work)

        stored = store.publish("library", key, fill)
        if job.grid_seconds:
            measured = read_built(stored).result["tiles"]
            write_beside(tiles, json.dumps(known | measured, sort_keys=True))
        return read_built(stored), False
    return read_built(stored), True


def _tiles_file(folder: Path, job: Job) -> Path:
    """The grid's results hold for a processor and a code version, whatever the program."""
    return folder / f"tiles-{key_of(job.target, job.isa, versions(), code_key())}.json"


def program_key(program: torch.export.ExportedProgram) -> str:
    """A hash of the program's operations and of every weight and buffer."""
    digest = hashlib.sha256()
    for node in program.graph.nodes:
        value = node.meta.get("val")
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else ""
        digest.update(repr((node.name, node.op, str(node.target), str(node.args))).encode())
        digest.update(repr((str(node.kwargs), shape)).encode())
    tensors = {**program.state_dict, **program.constants}
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        if isinstance(tensor, torch.Tensor):
            plain = tensor.detach().cpu().contiguous()
            digest.update(repr((tuple(plain.shape), plain.dtype)).encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
