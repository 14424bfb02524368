"""edgekd's training loop against a bare PyTorch loop of the same work, interleaved, as a ratio.

Both train the same network on the same samples in the same order with the same optimizer; the
bare loop has no progress, no checkpoints, no validation. Epochs alternate A B A B.

    python benchmarks/training/against_bare_loop.py
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from edgekd.data.samples import Data, Samples
from edgekd.models.resnet import resnet8
from edgekd.training.context import Context
from edgekd.training.loop import fit
from edgekd.training.teaching import Teaching
from edgekd.values.target import load_target

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dated import write_result

BATCH = 128


def samples(count: int) -> Samples:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, 1, 28, 28, generator=generator)
    return Samples(x, torch.randint(0, 10, (count,), generator=generator))


def bare(train: Samples) -> float:
    """Seconds of one epoch of the plainest loop."""
    torch.manual_seed(0)
    model = resnet8(channels=1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    started = time.perf_counter()
    for index in torch.randperm(len(train)).split(BATCH):
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(train.x[index]), train.y[index])
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def ours(data: Data) -> float:
    """Seconds of one epoch of `edgekd.training.loop.fit`, checkpoint and validation included."""
    torch.manual_seed(0)
    model = resnet8(channels=1)
    teaching = Teaching(epochs=1, batch_size=BATCH, learning_rate=1e-3)
    with tempfile.TemporaryDirectory() as work:
        context = Context(load_target("x86"), data, (), Path(work), teaching)
        started = time.perf_counter()
        fit(model, lambda module, batch: F.cross_entropy(module(batch.x), batch.y), context)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--samples", type=int, default=12_800)
    options = parser.parse_args()
    train, few = samples(options.samples), samples(BATCH)
    data = Data("random", train, few, few, 10)
    bare(few), ours(Data("random", few, few, few, 10))
    pairs = [(bare(train), ours(data)) for _ in range(options.rounds)]
    ratios = [theirs / mine for theirs, mine in pairs]
    write_result(
        __file__,
        {
            "what": "rate of edgekd.training.loop.fit over that of a bare loop, ResNet-8 at 28x28",
            "rate_ratio": statistics.median(ratios),
            "rate_ratios": ratios,
            "goal": "at least 0.97",
        },
    )


if __name__ == "__main__":
    main()
