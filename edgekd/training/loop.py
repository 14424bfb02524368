"""The one training loop: every stage that trains comes through here.

Lightning Fabric provides devices, precision and distribution (`torchrun` spreads a batch over its
processes). An epoch's randomness depends only on (seed, epoch), and the state after each epoch is
written to disk, so a run that was killed resumes from its last epoch and ends with the same bits as
an unbroken one.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.data.order import epoch_order
from edgekd.data.seeds import derive_seed
from edgekd.data.views import Reading, fixed_views, read_drawn, read_view
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
from edgekd.training.context import Context, Epoch
from edgekd.training.optimizer import make_fabric, make_optimizer, rate_share
from edgekd.training.sharding import (
    Sharding,
    average_gradients,
    clip_gradients,
    common_epoch,
    load_local_state,
    local,
    local_state,
)
from edgekd.values.tree import Tree, leaves, moved

PROGRESS_SECONDS = 0.3
CHECKPOINT = "epoch.safetensors"


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step's loss is computed from.

    `x`, a tree (B, ...), are the augmented inputs, `y` (B, ...) the targets, `index` (B,) the
    positions in `data.train`, and `view` is the number of the fixed variant that `x` was drawn
    from: 0 without augmentation, None if every draw is new. `step` of `total` is counted from 0; an
    epoch has `steps`. `processes` take the step together, each with its own samples. `paired` is
    what teachers see if that is not `x`. `turn` counts the steps that are taken with one batch.
    """

    x: Tree
    y: Tree
    index: Tensor
    view: int | None
    step: int = 0
    steps: int = 1
    total: int = 1
    processes: int = 1
    paired: Tree | None = None
    turn: int = 0

    @property
    def shown(self) -> Tree:
        """(B, ...) what teachers see."""
        return self.x if self.paired is None else self.paired

    @property
    def device(self) -> torch.device:
        """Where the inputs are."""
        first: Tensor = leaves(self.x)[0]
        return first.device


StepLoss = Callable[[nn.Module, Batch], Tensor]
"""The scalar loss of a batch; it calls the module itself."""


def fit_labels(module: nn.Module, context: Context) -> nn.Module:
    """Train `module` in place by the task's own loss with the targets, without any teacher."""
    task, smoothing = context.data.task, context.teaching.label_smoothing

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        return task.label_loss(task.read(module, batch.x), batch.y, smoothing)

    return fit(module, loss, context)


def fit(
    module: nn.Module,
    step_loss: StepLoss,
    context: Context,
    *,
    companions: nn.Module | None = None,
    identity: str = "",
    turns: int = 1,
    sharding: Sharding | None = None,
) -> nn.Module:
    """Train `module` in place and return it in eval mode on the CPU.

    `turns` optimizer steps are taken with each batch; parameters without a gradient in a turn stay
    unchanged. `companions` are trained too (a loss's own regressor) and discarded. `context.work`
    holds the epoch checkpoint, which is ignored if it belongs to another module, data, seed,
    teaching or `identity`: anything else that the loss depends on, such as a frozen network,
    belongs in `identity`. `context.on_epoch` is called for the checkpoint's epochs too, so that a
    resumed training is judged as an unbroken one. With `sharding` the processes share the module;
    each keeps a checkpoint of its own, with which the same number of processes resumes.
    Raises `InputError` naming epoch and step if the loss is no longer a number.
    """
    extra = companions if companions is not None else nn.ModuleList()
    teaching, path = context.teaching, context.work / CHECKPOINT
    parts = [sha256_of_state(module, extra), teaching.model_dump_json(), context.data.sha256]
    fingerprint = hashlib.sha256(repr([*parts, context.seed, identity]).encode()).hexdigest()
    with ExitStack() as stack:
        fabric = make_fabric(teaching.precision)
        stack.enter_context(_own_randomness(fabric.device))
        whole, shared = _Step(module, extra, step_loss), sharding is not None
        if sharding is not None:
            whole.to(fabric.device)
            stack.enter_context(sharding.divided("student", module, context.data.example))
        run = _Run(fabric, whole, context, turns, shared and fabric.world_size > 1)
        run.restore(path, fingerprint)
        run.announce(run.state.history)
        while not run.finished:
            run.epoch()
            run.validate()
            run.keep(path, fingerprint)
            run.announce(run.state.history[-1:])
        if teaching.keep == "best" and run.state.best_weights:
            load_local_state(module, run.state.best_weights)
    module.to("cpu")
    module.zero_grad(set_to_none=True)
    module.eval()  # an exported graph's eval() returns nothing
    return module


class _Step(nn.Module):
    """One forward pass of everything that is trained, so that Fabric wraps it as a whole."""

    def __init__(self, module: nn.Module, companions: nn.Module, step_loss: StepLoss) -> None:
        super().__init__()
        self.module = module
        self.companions = companions
        self.step_loss = step_loss

    def forward(
        self, x: Tree, y: Tensor, index: Tensor, shown: Tree | None, when: "_When"
    ) -> Tensor:
        # Fabric converts tensors among the arguments, but not those in a frozen dataclass.
        view, step, steps, total, processes, turn = when
        batch = Batch(x, y, index, view, step, steps, total, processes, shown, turn)
        return self.step_loss(self.module, batch)


_When = tuple[int | None, int, int, int, int, int]
"""The view, the step, steps in an epoch, steps in all, processes and the turn."""


@dataclass
class _State:
    """The progress of a training, which a checkpoint restores besides weights and optimizer."""

    done: int = 0
    best: float = -1.0
    stale: int = 0
    history: list[dict[str, float | None]] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)


class _Run:
    """One training in progress, with its resources."""

    def __init__(
        self, fabric: Any, whole: _Step, context: Context, turns: int, shared: bool = False
    ) -> None:
        self.fabric, self.context, self.turns = fabric, context, turns
        self.data, self.training = context.data, context.teaching
        self.module, self.companions = whole.module, whole.companions
        self.state = _State()
        self.losses: list[Tensor] = []
        self.optimizer = make_optimizer(whole, self.training, fabric.device)
        self.shared = shared
        self.step: Any
        self.stepper: Any
        self.step, self.stepper = (
            (whole, self.optimizer) if shared else fabric.setup(whole, self.optimizer)
        )
        self.world: int = fabric.world_size
        size, count = self.training.batch_size, len(self.data.train)
        ragged = count % size if count > size else 0
        dropped = self.training.partial_batch == "drop" or ragged < self.world
        self.used = count - ragged if dropped else count
        self.steps = math.ceil(self.used / size)
        self.total = self.steps * self.training.epochs

    @property
    def finished(self) -> bool:
        patience = self.training.patience
        return self.state.done >= self.training.epochs or (
            patience is not None and self.state.stale >= patience
        )

    def epoch(self) -> None:
        """Train through all samples once."""
        rank, seed, done = self.fabric.global_rank, self.context.seed, self.state.done
        torch.manual_seed(derive_seed(seed, "module", done, rank))
        views = fixed_views(self.data)
        view = done % views if views else None
        batches, share = self._batches(), slice(rank, None, self.world)
        if view is None:
            readings = read_drawn(self.data, seed, done, batches, share)
        else:
            readings = read_view(self.data, view, [index[share] for index in batches])
        self.module.train()
        self.companions.train()
        self.losses.clear()
        reported = time.monotonic()
        for number, (index, reading) in enumerate(zip(batches, readings, strict=True)):
            part = len(index[share]) * self.world / len(index)  # shares may differ by one sample
            self._learn(reading, index[share], view, done * self.steps + number, part)
            if time.monotonic() - reported > PROGRESS_SECONDS:
                reported = time.monotonic()
                self._refuse_nan()
                self._report(done * self.steps + number + 1)
        self._refuse_nan()
        self.state.done += 1

    def _batches(self) -> list[Tensor]:
        """The positions of this epoch's samples, a batch of all processes at a time."""
        order = epoch_order(self.data, self.context.seed, self.state.done)[: self.used]
        return list(torch.split(order, self.training.batch_size))

    def _learn(
        self, reading: Reading, index: Tensor, view: int | None, number: int, part: float
    ) -> None:
        device, training = self.fabric.device, self.training
        share = rate_share(number, self.total, training.warmup, training.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate * share
        x, y = moved(reading[0], device), reading[1].to(device)
        shown = None if reading[2] is None else moved(reading[2], device)
        values = []
        for turn in range(self.turns):
            when = (view, number, self.steps, self.total, self.world, turn)
            with self.fabric.autocast() if self.shared else nullcontext():
                loss = self.step(x, y, index, shown, when)
            loss = loss if part == 1 else loss * part
            if self.shared:
                loss.backward()
                average_gradients([self.companions])
            else:
                self.fabric.backward(loss)
            if training.clip_gradient is not None and self.shared:
                clip_gradients(self.step, training.clip_gradient)
            elif training.clip_gradient is not None:
                nn.utils.clip_grad_norm_(self.step.parameters(), training.clip_gradient)
            self.stepper.step()
            if self.context.on_step is not None and turn == self.turns - 1:
                self.context.on_step(number + 1, self.total)
            self.stepper.zero_grad(set_to_none=True)
            values.append(loss.detach())
        self.losses.append(values[0] if len(values) == 1 else torch.stack(values).sum())

    def _refuse_nan(self) -> None:
        """Check the losses so far; only now and then, since each check waits for the device."""
        values = torch.stack(self.losses)
        broken = (~values.isfinite()).nonzero()
        if len(broken):
            step = int(broken[0])
            raise InputError(
                f"the loss became {float(values[step])}",
                where=f"training, epoch {self.state.done + 1}, step {step + 1}",
                hint="lower learning_rate, or set clip_gradient = 1.0",
            )

    def validate(self) -> None:
        """Evaluate the finished epoch, and keep its weights if none were better."""
        if self.world > 1:
            for buffer in self.module.buffers():  # each process has seen batch norms of its own
                torch.distributed.broadcast(buffer, 0)
        accuracy = self._validation_accuracy()
        loss = float(self.fabric.all_reduce(torch.stack(self.losses).mean()))
        entry = {"epoch": self.state.done, "loss": loss, "validation": accuracy}
        self.state.history.append(entry)
        self._report(self.state.done * self.steps)

    def announce(self, history: Sequence[Mapping[str, float | None]]) -> None:
        """Call `on_epoch` for finished epochs."""
        if self.context.on_epoch is None:
            return
        for entry in history:
            done, epochs = int(entry["epoch"] or 0), self.training.epochs
            self.context.on_epoch(Epoch(self.context.work, done, epochs, entry["validation"]))

    def _report(self, step: int) -> None:
        self.context.progress("training", step, self.total)

    def _validation_accuracy(self) -> float | None:
        """The accuracy of this epoch's weights, which are kept if none were better; None without
        validation samples."""
        if not len(self.data.validation):
            return None
        state = self.state
        accuracy: float = self.fabric.broadcast(evaluate(self.module, self.data.validation))
        state.stale = 0 if accuracy > state.best else state.stale + 1
        if accuracy >= state.best:
            state.best = accuracy
            if self.training.keep == "best":
                weights = local_state(self.module)
                state.best_weights = {k: v.cpu().clone() for k, v in weights.items()}
        return accuracy

    def keep(self, path: Path, fingerprint: str) -> None:
        """Write the checkpoint: one for all processes, or this one's share. The share before it
        goes when all have written theirs, so that one epoch is always whole."""
        if self.shared:
            self.save(self._share(path, self.state.done), fingerprint)
        elif self.fabric.is_global_zero:
            self.save(path, fingerprint)
        self.fabric.barrier()
        if self.shared:
            self._share(path, self.state.done - 1).unlink(missing_ok=True)

    def _share(self, path: Path, done: int | str) -> Path:
        rank = f"{self.fabric.global_rank + 1}-of-{self.world}"
        return path.with_name(f"{path.stem}-{done}-{rank}{path.suffix}")

    def _saved(self, path: Path, fingerprint: str) -> tuple[dict[str, Tensor], Any] | None:
        """The checkpoint of this training from which all processes can continue, if there is
        one."""
        if not self.shared:
            found = read_tensors(path)
            return found if found and found[1].get("fingerprint") == fingerprint else None
        shares = {}
        for file in path.parent.glob(self._share(path, "*").name):
            found = read_tensors(file)
            if found is not None and found[1].get("fingerprint") == fingerprint:
                shares[int(found[1]["done"])] = file
        return read_tensors(shares[done]) if (done := common_epoch([*shares])) else None

    def save(self, path: Path, fingerprint: str) -> None:
        """Write everything that `restore` needs to continue from here."""
        tensors, optimizer = flatten_optimizer(self.optimizer)
        tensors = {
            **{name: local(value) for name, value in tensors.items()},
            **prefixed("model", local_state(self.module)),
            **prefixed("companions", self.companions.state_dict()),
            **prefixed("best", self.state.best_weights),
        }
        header = {
            "fingerprint": fingerprint,
            "done": self.state.done,
            "best": self.state.best,
            "stale": self.state.stale,
            "history": self.state.history,
            "optimizer": optimizer,
        }
        write_tensors(path, tensors, header)

    def restore(self, path: Path, fingerprint: str) -> None:
        """Resume from a checkpoint of this training, if there is one."""
        checkpoint = self._saved(path, fingerprint)
        if checkpoint is None:
            return
        tensors, header = checkpoint
        load_local_state(self.module, under("model", tensors))
        self.companions.load_state_dict(under("companions", tensors))
        restore_optimizer(self.optimizer, tensors, header["optimizer"])
        kept = {key: header[key] for key in ("done", "best", "stale", "history")}
        self.state = _State(**kept, best_weights=under("best", tensors))


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Restore the caller's random state, and make the GPU's convolutions deterministic."""
    devices = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        yield
