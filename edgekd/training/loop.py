"""The one training loop: every stage that trains comes through here.

Lightning Fabric gives devices, precision and distribution (`torchrun` spreads a batch over its
processes); the samples are in memory, so a batch is an index and no loader stands between. An
epoch's randomness comes from (seed, epoch) alone and an epoch's end is written to disk, so a run
that was killed goes on from its last epoch and ends with the same bits as an unbroken one.
"""

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from edgekd.data.samples import Data
from edgekd.data.tasks import Task
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.data.views import fixed_views, stream, view_of
from edgekd.errors import InputError
from edgekd.network.evaluation import evaluate
from edgekd.training.checkpoint import (
    flatten_optimizer,
    prefixed,
    read_tensors,
    restore_optimizer,
    sha256_of_state,
    under,
    write_tensors,
)
from edgekd.values.tables import Value

PROGRESS_SECONDS = 0.3
CHECKPOINT = "epoch.safetensors"


class Training(Value):
    """How long and how a module is trained.

    `batch_size` is the whole batch over all processes. `warmup` is the share of all steps in which
    the learning rate rises. `patience` ends the training after so many epochs without a better
    validation accuracy. `weight_decay` falls on matrices and kernels, never on biases and norms.
    `keep` returns the weights of the best validation accuracy (the latest of equals) or the last.
    `partial_batch` drops or keeps an epoch's smaller last batch; one that is the whole set stays.
    """

    epochs: PositiveInt = 10
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=1e-4, ge=0.0)
    warmup: float = Field(default=0.05, ge=0.0, lt=1.0)
    schedule: Literal["cosine", "constant", "linear"] = "cosine"
    patience: PositiveInt | None = None
    clip_gradient: PositiveFloat | None = None
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    keep: Literal["best", "last"] = "best"
    partial_batch: Literal["drop", "keep"] = "drop"


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step's loss is computed from.

    `x` (B, ...) as augmented, `y` (B, ...), `index` (B,) the positions in `data.train`, and `view`,
    the number of the fixed variant that `x` was drawn from: 0 without augmentation, None where
    every draw is new. `step` of `total` is counted from 0; an epoch has `steps`. `processes` take
    the step together, each with samples of its own.
    `paired` (B, ...) is what teachers see, where that is not `x`. `turn` counts the steps that are
    taken with one batch, where there are several.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    view: int | None
    step: int = 0
    steps: int = 1
    total: int = 1
    processes: int = 1
    paired: Tensor | None = None
    turn: int = 0

    @property
    def shown(self) -> Tensor:
        """(B, ...) what teachers see."""
        return self.x if self.paired is None else self.paired


StepLoss = Callable[[nn.Module, Batch], Tensor]
"""The scalar loss of a batch; it calls the module itself."""

OnStep = Callable[[int, int], None]
"""Called as on_step(done, total) after the optimizer's step; gradients are still there. What it
accumulates must live in buffers or parameters of the module or its companions to survive a kill."""

Progress = Callable[[str, int, int], None]


def label_loss(training: Training, task: Task = CLASSIFICATION) -> StepLoss:
    """The task's loss with the targets (plain cross-entropy), for training without a teacher."""

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        return task.label_loss(module(batch.x), batch.y, training.label_smoothing)

    return loss


def fit(
    module: nn.Module,
    step_loss: StepLoss,
    training: Training,
    *,
    data: Data,
    work: Path,
    seed: int = 0,
    progress: Progress = lambda *_: None,
    on_step: OnStep | None = None,
    companions: nn.Module | None = None,
    identity: str = "",
    turns: int = 1,
) -> nn.Module:
    """Train `module` in place and return it in eval mode on the CPU.

    `turns` optimizer steps are taken with each batch; what has no gradient in one stays as it is.
    `companions` are trained along (a loss's own regressor) and stay behind. `work` holds the epoch
    checkpoint; one that another module, data, seed, recipe or `identity` left there is ignored.
    Raises `InputError` naming epoch and step where the loss is no longer a number.
    """
    extra = companions if companions is not None else nn.ModuleList()
    parts = [sha256_of_state(module, extra), training.model_dump_json(), data.sha256, seed]
    fingerprint = hashlib.sha256(repr([*parts, identity]).encode()).hexdigest()
    with ExitStack() as stack:
        fabric = _fabric(training.precision)
        stack.enter_context(_own_randomness(fabric.device))
        run = _Run(fabric, module, extra, step_loss, training, data, seed, progress, on_step, turns)
        run.restore(work / CHECKPOINT, fingerprint)
        while not run.finished:
            run.epoch()
            run.validate()
            if fabric.is_global_zero:
                run.save(work / CHECKPOINT, fingerprint)
            fabric.barrier()
        if training.keep == "best" and run.best_weights:
            module.load_state_dict(run.best_weights)
    module.to("cpu")
    module.zero_grad(set_to_none=True)
    module.eval()  # an exported graph's eval() returns nothing
    return module


def rate_share(step: int, total: int, warmup: float, schedule: str) -> float:
    """The share of the learning rate in step `step` of `total`, counted from 0."""
    rising = math.ceil(warmup * total)
    if step < rising:
        return (step + 1) / rising
    gone = (step - rising) / max(1, total - rising)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * gone))
    return 1 - gone if schedule == "linear" else 1.0


class _Step(nn.Module):
    """One forward of everything that is trained, so that Fabric wraps it as a whole."""

    def __init__(self, module: nn.Module, companions: nn.Module, step_loss: StepLoss) -> None:
        super().__init__()
        self.module = module
        self.companions = companions
        self.step_loss = step_loss

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        index: Tensor,
        view: int | None,
        when: tuple[int, int, int, int],
        paired: Tensor | None,
        turn: int,
    ) -> Tensor:
        return self.step_loss(self.module, Batch(x, y, index, view, *when, paired, turn))


@dataclass
class _Run:
    """One training under way: the resources it holds and what a checkpoint must bring back."""

    fabric: Any
    module: nn.Module
    companions: nn.Module
    step_loss: StepLoss
    training: Training
    data: Data
    seed: int
    progress: Progress
    on_step: OnStep | None
    turns: int = 1
    done: int = 0
    best: float = -1.0
    accuracy: float | None = None
    stale: int = 0
    history: list[dict[str, float | None]] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    losses: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        whole = _Step(self.module, self.companions, self.step_loss)
        self.optimizer = _optimizer(whole, self.training, self.fabric.device)
        self.step, self.stepper = self.fabric.setup(whole, self.optimizer)
        self.world: int = self.fabric.world_size
        size, count = self.training.batch_size, len(self.data.train)
        ragged = count % size if count > size else 0
        dropped = self.training.partial_batch == "drop" or ragged < self.world
        self.used = count - ragged if dropped else count
        self.steps = math.ceil(self.used / size)
        self.total = self.steps * self.training.epochs

    @property
    def finished(self) -> bool:
        patience = self.training.patience
        return self.done >= self.training.epochs or (
            patience is not None and self.stale >= patience
        )

    def epoch(self) -> None:
        """Train through all samples once."""
        rank = self.fabric.global_rank
        shuffle = torch.Generator().manual_seed(stream(self.seed, "order", self.done))
        draws = torch.Generator().manual_seed(stream(self.seed, "augment", self.done, rank))
        torch.manual_seed(stream(self.seed, "module", self.done, rank))
        order = torch.randperm(len(self.data.train), generator=shuffle)[: self.used]
        views = fixed_views(self.data)
        view = self.done % views if views else None
        inputs = self.data.train.x if view is None else view_of(self.data, view)
        self.module.train()
        self.companions.train()
        self.losses.clear()
        shown = time.monotonic()
        for number, index in enumerate(torch.split(order, self.training.batch_size)):
            if self.world > 1:
                index = index[: len(index) // self.world * self.world][rank :: self.world]
            x = inputs.index_select(0, index)
            if view is None:
                x = self.data.augmentation(x, draws)
            self._learn(x, index, view, self.done * self.steps + number)
            if time.monotonic() - shown > PROGRESS_SECONDS:
                shown = time.monotonic()
                self._refuse_nan()
                self.progress("training", self.done * self.steps + number + 1, self.total)
        self._refuse_nan()
        self.done += 1

    def _learn(self, x: Tensor, index: Tensor, view: int | None, number: int) -> None:
        device, training = self.fabric.device, self.training
        y = self.data.train.y.index_select(0, index)
        share = rate_share(number, self.total, training.warmup, training.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate * share
        when = (number, self.steps, self.total, self.world)
        paired = self.data.train.paired
        shown = None if paired is None else paired.index_select(0, index).to(device)
        x, y, told = x.to(device), y.to(device), []
        for turn in range(self.turns):
            loss = self.step(x, y, index, view, when, shown, turn)
            self.fabric.backward(loss)
            if training.clip_gradient is not None:
                nn.utils.clip_grad_norm_(self.step.parameters(), training.clip_gradient)
            self.stepper.step()
            if self.on_step is not None and turn == self.turns - 1:
                self.on_step(number + 1, self.total)
            self.stepper.zero_grad(set_to_none=True)
            told.append(loss.detach())
        self.losses.append(told[0] if len(told) == 1 else torch.stack(told).sum())

    def _refuse_nan(self) -> None:
        """Look at the losses so far: now and then, since each look waits for the device."""
        values = torch.stack(self.losses)
        broken = (~values.isfinite()).nonzero()
        if len(broken):
            step = int(broken[0])
            raise InputError(
                f"the loss became {float(values[step])}",
                where=f"training, epoch {self.done + 1}, step {step + 1}",
                hint="lower learning_rate, or set clip_gradient = 1.0",
            )

    def validate(self) -> None:
        """Measure the epoch that ended, and keep its weights if none was better."""
        if self.world > 1:
            for buffer in self.module.buffers():  # each process has seen batch norms of its own
                torch.distributed.broadcast(buffer, 0)
        self._choose()
        loss = float(torch.stack(self.losses).mean())
        self.history.append({"epoch": self.done, "loss": loss, "validation": self.accuracy})
        self.progress("training", self.done * self.steps, self.total)

    def _choose(self) -> None:
        self.accuracy = None
        if not len(self.data.validation):
            return
        accuracy = self.fabric.broadcast(evaluate(self.module, self.data.validation))
        self.stale = 0 if accuracy > self.best else self.stale + 1
        if accuracy >= self.best:
            self.best = accuracy
            if self.training.keep == "best":
                state = self.module.state_dict()
                self.best_weights = {k: v.detach().cpu().clone() for k, v in state.items()}
        self.accuracy = accuracy

    def save(self, path: Path, fingerprint: str) -> None:
        """Write all that `restore` needs to go on from here."""
        state, plain = flatten_optimizer(self.optimizer)
        tensors = {
            **state,
            **prefixed("model", self.module.state_dict()),
            **prefixed("companions", self.companions.state_dict()),
            **prefixed("best", self.best_weights),
        }
        header = {
            "fingerprint": fingerprint,
            "done": self.done,
            "best": self.best,
            "stale": self.stale,
            "history": self.history,
            "optimizer": plain,
        }
        write_tensors(path, tensors, header)

    def restore(self, path: Path, fingerprint: str) -> None:
        """Go on from a checkpoint of this very training, if there is one."""
        found = read_tensors(path)
        if found is None or found[1].get("fingerprint") != fingerprint:
            return
        tensors, header = found
        self.module.load_state_dict(under("model", tensors))
        self.companions.load_state_dict(under("companions", tensors))
        restore_optimizer(self.optimizer, tensors, header["optimizer"])
        self.best_weights = under("best", tensors)
        self.done, self.best, self.stale = header["done"], header["best"], header["stale"]
        self.history = header["history"]


def _fabric(precision: str) -> Any:
    from lightning_fabric import Fabric

    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    fabric = Fabric(
        devices=local,
        num_nodes=max(1, world // local),
        strategy="ddp" if world > 1 else "auto",
        precision=precision,
    )
    fabric.launch()
    return fabric


def _optimizer(
    module: nn.Module, training: Training, device: torch.device
) -> torch.optim.Optimizer:
    parameters = [value for value in module.parameters() if value.requires_grad]
    if not parameters:
        raise InputError("nothing to train: no parameter asks for a gradient", where="training")
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = device.type in ("cpu", "cuda")
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=training.learning_rate, fused=fused)
    return torch.optim.SGD(
        groups,
        lr=training.learning_rate,
        momentum=training.momentum,
        nesterov=training.momentum > 0,
        fused=fused,
    )


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Leave the caller's random state as it was, and let the GPU's convolutions repeat."""
    devices = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        yield
