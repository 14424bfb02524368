"""Training rate through the streamed loader, and memory over an epoch of a set that fits nowhere.

    python benchmarks/streaming/rate_and_memory.py [GIGABYTES]

Rate: one network of about 5 ms a batch trains on the same samples in memory and streamed by two
workers, interleaved; each pair gives a ratio of their rates, and the median counts. On a machine
that others use too the clock says little, so the processor time of the training process and of the
workers is given as well: what the loader costs the training, and whether the workers keep up.
Memory: 20 GB of float images are generated on the fly and trained on for one epoch, and the peak of
the process and its workers together is read from the kernel after each tenth of it.
"""

import os
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests/support"))
from contexts import context
from dated import write_result

from edgekd.data.dataset import How, samples_from
from edgekd.data.samples import Data, Samples
from edgekd.data.streamed import Streamed
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.training.loop import fit_labels
from edgekd.training.teaching import Teaching

PAIRS = 7
BATCH = 32
GENERATED = torch.rand(1, 3, 224, 224)


class Held(Dataset):
    """Bytes in memory, so that what is measured is the loader alone."""

    def __init__(self, count: int = 128 * BATCH) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
        self.targets = [row % 10 for row in range(count)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.x[row], self.targets[row]


class Generated(Dataset):
    """Images of 602 kB that nobody holds."""

    fingerprint = "generated"

    def __init__(self, count: int) -> None:
        self.targets = [row % 10 for row in range(count)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return GENERATED[0] * (1 + row % 7), self.targets[row]


def network(width: int = 24) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10),
    )  # fmt: skip


def seconds_of(train: Samples, module: nn.Module) -> tuple[float, float, float]:
    """An epoch's steps, from the first to the last: by the clock, of this process's processor time,
    and of its workers' processor time (over the whole epoch)."""
    times: list[float] = []
    used: list[float] = []
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)

    def note(done: int, total: int) -> None:
        times.append(time.perf_counter())
        used.append(time.process_time())

    with tempfile.TemporaryDirectory() as work:
        teaching = Teaching(epochs=1, batch_size=BATCH, keep="last")
        data = Data("rate", train, train.first(0), train.first(0), 10)
        fit_labels(
            module,
            context(teaching, data=data, work=Path(work), on_step=note),
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    theirs = after.ru_utime + after.ru_stime - workers.ru_utime - workers.ru_stime
    return times[-1] - times[0], used[-1] - used[0], theirs


def rate() -> dict[str, object]:
    dataset = Held()
    held = samples_from(dataset, "train", CLASSIFICATION, How(stream=False))
    streamed = samples_from(dataset, "train", CLASSIFICATION, How(stream=True, workers=2))
    assert isinstance(streamed.inputs, Streamed)
    streamed = Samples(replace(streamed.inputs, seconds=1.0), streamed.y)  # workers in any case
    seconds_of(held, network())
    steps = len(held) // BATCH - 1
    pairs = [(seconds_of(held, network()), seconds_of(streamed, network())) for _ in range(PAIRS)]
    clock = [memory[0] / stream[0] for memory, stream in pairs]
    processor = [memory[1] / stream[1] for memory, stream in pairs]

    def batch_ms(values: list[float]) -> float:
        return round(statistics.median(values) / steps * 1e3, 2)

    return {
        "batch_ms_in_memory": batch_ms([memory[0] for memory, _ in pairs]),
        "batch_ms_streamed": batch_ms([stream[0] for _, stream in pairs]),
        "rate_ratio_median": round(statistics.median(clock), 3),
        "rate_ratios": [round(ratio, 3) for ratio in clock],
        "processor_ms_in_memory": batch_ms([memory[1] for memory, _ in pairs]),
        "processor_ms_streamed": batch_ms([stream[1] for _, stream in pairs]),
        "processor_ratio_median": round(statistics.median(processor), 3),
        "two_workers_processor_ms": batch_ms([stream[2] for _, stream in pairs]),
    }


def resident_mb() -> float:
    """This process and its children, shared pages counted by share (Pss)."""
    mine = os.getpid()
    children = Path(f"/proc/{mine}/task/{mine}/children").read_text().split()
    total = 0
    for process in (mine, *map(int, children)):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def memory(gigabytes: float) -> dict[str, object]:
    count = int(gigabytes * 1e9 / GENERATED.nbytes) // BATCH * BATCH
    how = How(workers=2)
    train = samples_from(Generated(count), "train", CLASSIFICATION, how)
    points: list[float] = []
    before = resident_mb()

    def watch(done: int, total: int) -> None:
        if done % max(1, total // 20) == 0:
            points.append(round(resident_mb(), 1))

    module = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(), nn.Linear(4 * 28 * 28, 10))
    with tempfile.TemporaryDirectory() as work:
        data = Data("memory", train, train.first(0), train.first(0), 10)
        teaching = Teaching(epochs=1, batch_size=BATCH, keep="last")
        fit_labels(module, context(teaching, data=data, work=Path(work), on_step=watch))
    return {
        "set_gb": round(count * GENERATED.nbytes / 1e9, 2),
        "samples": count,
        "before_mb": round(before, 1),
        "during_mb": points,
        "growth_second_half_mb": round(max(points[10:]) - max(points[:10]), 1),
    }


def main() -> None:
    torch.set_num_threads(1)
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    load = os.getloadavg()[0]
    result = {
        "what": "training rate streamed over in memory, two workers; memory over one epoch",
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(load, 2),
        "rate": rate(),
        "memory": memory(gigabytes),
    }
    write_result(__file__, result)


if __name__ == "__main__":
    main()
