"""Train the digits teacher that `make demo` compresses, with plain PyTorch.

The result, which travels in the package beside the recipe that uses it, is what
`edgekd.models.resnet:resnet20` with `channels = 1` loads. It sees the training part of edgekd's own
digits split only; validation is
printed on the way, and the test set is looked at once, at the end.

    python benchmarks/digits/train_teacher.py
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from edgekd.data import Samples, load_data
from edgekd.models.resnet import ResNet, resnet20
from edgekd.network.load import load_network
from edgekd.values.recipe import TEACHER, DataTable, Network

BATCH = 64


@torch.no_grad()
def accuracy(model: torch.nn.Module, samples: Samples) -> float:
    """Share of the samples whose largest logit is at their label."""
    model.eval()
    return float((model(samples.x).argmax(1) == samples.y).double().mean())


def train(epochs: int, seed: int) -> ResNet:
    """SGD with one cycle, images shifted by up to a pixel, and averaged weights at the end."""
    torch.set_num_threads(1)  # images of 8x8 are too small to share
    torch.manual_seed(seed)
    data = load_data(DataTable(source="digits", shift=1), TEACHER.parent)
    model = resnet20(channels=1)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99), use_buffers=True
    )
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    steps = len(data.train) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=epochs * steps, pct_start=0.2, cycle_momentum=False
    )
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        started, order = time.perf_counter(), torch.randperm(len(data.train), generator=generator)
        model.train()
        for index in order[: steps * BATCH].split(BATCH):
            batch = data.augmentation.draw(len(index), generator)(data.train.x[index])
            loss = F.cross_entropy(model(batch), data.train.y[index], label_smoothing=0.05)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            average.update_parameters(model)
        seconds = round(time.perf_counter() - started, 1)
        score = accuracy(average.module, data.validation)
        print(json.dumps({"epoch": epoch, "validation": score, "seconds": seconds}), flush=True)
    network: ResNet = average.module
    return network


def main() -> None:
    """Train, write the weights, and report what the written file gives on the test set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = train(options.epochs, options.seed)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    path = TEACHER
    save_file(weights, path.with_suffix(".part"), {"seed": str(options.seed)})
    path.with_suffix(".part").replace(path)
    table = Network(
        factory="edgekd.models.resnet:resnet20",
        arguments={"channels": 1},
        weights=TEACHER,
    )
    test = load_data(DataTable(source="digits"), TEACHER.parent).test
    print(json.dumps({"accuracy": accuracy(load_network(table, TEACHER.parent, "teacher"), test)}))


if __name__ == "__main__":
    main()
