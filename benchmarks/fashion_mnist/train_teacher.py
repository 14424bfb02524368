"""Train the Fashion-MNIST teacher that the benchmarks compress, with plain PyTorch.

The result, `teacher.safetensors` beside this file, is what `edgekd.models.resnet:resnet14` with
`channels = 1` loads. An interrupted run continues from its last finished epoch.

    python benchmarks/fashion_mnist/train_teacher.py --data /usr/share/datasets/fashion-mnist
"""

import argparse
import gzip
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from edgekd.models.resnet import ResNet, resnet14

HERE = Path(__file__).parent


def read_idx(path: Path) -> torch.Tensor:
    """The unsigned bytes of one gzipped IDX file, in the shape that its header gives."""
    raw = gzip.decompress(path.read_bytes())
    axes = raw[3]
    shape = np.frombuffer(raw, ">i4", axes, offset=4)
    return torch.from_numpy(np.frombuffer(raw, "u1", offset=4 + 4 * axes).reshape(shape).copy())


def augment(x: torch.Tensor) -> torch.Tensor:
    """Mirror half of the batch, shift each image by up to two pixels, erase a patch of some."""
    count, _, size, _ = x.shape
    x = torch.where(torch.rand(count, 1, 1, 1) < 0.5, x.flip(3), x)
    padded = F.pad(x, (2, 2, 2, 2))
    dy, dx = torch.randint(0, 5, (2, count, 1, 1, 1))
    steps = torch.arange(size)
    rows, columns = dy + steps.view(1, 1, -1, 1), dx + steps.view(1, 1, 1, -1)
    x = padded[torch.arange(count).view(-1, 1, 1, 1), 0, rows, columns]
    top, left = torch.randint(-2, size - 4, (2, count, 1, 1, 1))
    inside = (steps.view(1, 1, -1, 1) >= top) & (steps.view(1, 1, -1, 1) < top + 7)
    inside = inside & (steps.view(1, 1, 1, -1) >= left) & (steps.view(1, 1, 1, -1) < left + 7)
    return x.masked_fill(inside & (torch.rand(count, 1, 1, 1) < 0.3), 0.0)


@torch.no_grad()
def accuracy(model: ResNet, x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of the samples whose largest logit is at their label."""
    model.eval()
    hits = sum(
        int((model(batch).argmax(1) == labels).sum())
        for batch, labels in zip(x.split(500), y.split(500), strict=True)
    )
    model.train()
    return hits / len(y)


def train(data: Path, epochs: int, small_epochs: int, seed: int) -> None:
    """Run every epoch that is left, then write the averaged weights."""
    torch.manual_seed(seed)
    x_train, x_test = (
        (read_idx(data / f"{part}-images-idx3-ubyte.gz").float() / 255).unsqueeze(1)
        for part in ("train", "t10k")
    )
    y_train, y_test = (
        read_idx(data / f"{part}-labels-idx1-ubyte.gz").long() for part in ("train", "t10k")
    )
    model = resnet14(channels=1).to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.997), use_buffers=True
    )
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    steps = len(x_train) // 128
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.2, total_steps=epochs * steps, pct_start=0.2, cycle_momentum=False
    )
    checkpoint = HERE / "teacher.checkpoint"
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        for part, target in zip(
            ("model", "average", "optimizer", "schedule"),
            (model, average, optimizer, schedule),
            strict=True,
        ):
            target.load_state_dict(saved[part])
        first = saved["epoch"] + 1
    for epoch in range(first, epochs):
        torch.manual_seed(seed * 1000 + epoch)
        started, order = time.perf_counter(), torch.randperm(len(x_train))
        for index in order[: steps * 128].split(128):
            batch = augment(x_train[index])
            if epoch < small_epochs:
                batch = F.interpolate(batch, size=20, mode="bilinear", antialias=True)
            loss = F.cross_entropy(model(batch), y_train[index])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            average.update_parameters(model)
        seconds = time.perf_counter() - started
        score = accuracy(average.module, x_test, y_test)
        print(
            json.dumps({"epoch": epoch, "accuracy": score, "seconds": round(seconds)}), flush=True
        )
        parts = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule}
        torch.save(
            {"epoch": epoch, **{name: part.state_dict() for name, part in parts.items()}},
            checkpoint.with_suffix(".part"),
        )
        checkpoint.with_suffix(".part").replace(checkpoint)
    weights = {name: value.contiguous() for name, value in average.module.state_dict().items()}
    save_file(weights, HERE / "teacher.safetensors", {"accuracy": str(score), "seed": str(seed)})
    fresh = resnet14(channels=1)
    fresh.load_state_dict(load_file(HERE / "teacher.safetensors"))
    print(json.dumps({"accuracy": accuracy(fresh, x_test, y_test)}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--small-epochs", type=int, default=5, help="first epochs, at 20x20")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train(options.data, options.epochs, options.small_epochs, options.seed)
