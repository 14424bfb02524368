"""The training loop: what it learns, how it ends, and that a kill changes nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from contexts import context
from torch import Tensor, nn

from edgekd.data.samples import Augmentation, Data, Samples
from edgekd.data.views import read_view
from edgekd.errors import InputError
from edgekd.network.evaluation import evaluate, predict
from edgekd.training.checkpoint import read_tensors
from edgekd.training.loop import CHECKPOINT, Batch, fit, fit_labels, rate_share
from edgekd.training.teaching import Teaching
from edgekd.values.tables import parse

torch.set_num_threads(1)


def stripes(count: int, seed: int) -> Samples:
    """Noisy 6x6 images with a bright row (label 0), column (1) or diagonal (2)."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.5 * torch.randn(count, 1, 6, 6, generator=generator)
    y = torch.randint(0, 3, (count,), generator=generator)
    x[y == 0, 0, 2, :] += 2
    x[y == 1, 0, :, 3] += 2
    x[y == 2, 0] += 2 * torch.eye(6)
    return Samples(x, y)


def data(augmentation: Augmentation | None = None) -> Data:
    augmentation = augmentation or Augmentation()
    return Data("stripes", stripes(100, 0), stripes(60, 1), stripes(60, 2), 3, augmentation)


def view_of(images: Data, view: int) -> Tensor:
    """All training images in one of the fixed views."""
    return next(read_view(images, view, [torch.arange(len(images.train))]))[0]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def train(
    work: Path, module: nn.Module | None = None, *, on: Data | None = None, **keys
) -> nn.Module:
    training = Teaching(**{"epochs": 3, "batch_size": 16, "learning_rate": 0.01, **keys})
    module = module or network()
    return fit_labels(module, context(training, data=on or data(), work=work, seed=5))


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_learns_and_returns_the_module_in_eval_mode(tmp_path, optimizer):
    before = evaluate(network(), data().test)
    module = train(tmp_path, optimizer=optimizer, epochs=6)
    assert before < 0.6
    assert evaluate(module, data().test) > 0.9
    assert not any(part.training for part in module.modules())


def test_one_sgd_step_is_the_hand_computed_one(tmp_path):
    linear = nn.Linear(1, 2, bias=False)
    linear.weight.data.zero_()
    one = Samples(torch.tensor([[2.0]]), torch.tensor([0]))
    # p = (0.5, 0.5), so dL/dw = (p - onehot) x = (-1, 1); nesterov's first
    # step is g + 0.9 g = 1.9 g; w = -0.1 * 1.9 * (-1, 1).
    only = Data("one", one, one, one, 2)
    train(tmp_path, linear, on=only, epochs=1, optimizer="sgd", learning_rate=0.1, weight_decay=0)
    assert torch.allclose(linear.weight.flatten(), torch.tensor([0.19, -0.19]))


def test_the_same_seed_gives_the_same_bits_and_leaves_the_callers_randomness(tmp_path):
    first = train(tmp_path / "a")
    state = torch.get_rng_state()
    second = train(tmp_path / "b", network())
    torch.set_rng_state(state)
    expected = torch.rand(3)
    torch.set_rng_state(state)
    train(tmp_path / "c", first)
    assert torch.equal(torch.rand(3), expected)
    assert same(second, train(tmp_path / "d"))


def test_a_finished_training_is_not_repeated(tmp_path):
    first = train(tmp_path)
    steps = []
    training = Teaching(epochs=3, batch_size=16, learning_rate=0.01)
    again = fit_labels(
        network(),
        context(
            training,
            data=data(),
            work=tmp_path,
            seed=5,
            on_step=lambda done, total: steps.append(done),
        ),
    )
    assert steps == []
    assert same(first, again)


def test_a_training_that_is_stopped_after_an_epoch_goes_on_from_it(tmp_path):
    class Stopped(Exception):
        pass

    def taught(on_epoch):
        training = Teaching(epochs=3, batch_size=16, learning_rate=0.01)
        on = context(training, data=data(), work=tmp_path / "broken", seed=5, on_epoch=on_epoch)
        return fit_labels(network(), on)

    def stop(epoch):
        assert done_epochs(epoch.work) == epoch.done
        if epoch.done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        taught(stop)
    seen = []
    again = taught(seen.append)
    whole = train(tmp_path / "whole")
    assert same(again, whole)
    # The epochs of the checkpoint are announced again, with the accuracies that they had.
    assert [(epoch.done, epoch.epochs) for epoch in seen] == [(1, 3), (2, 3), (3, 3)]
    assert max(epoch.validation for epoch in seen) == evaluate(whole, data().validation)


def test_a_checkpoint_of_another_start_or_recipe_is_not_taken_up(tmp_path):
    train(tmp_path)
    assert same(train(tmp_path, network(1)), train(tmp_path / "fresh", network(1)))
    assert same(train(tmp_path, epochs=2), train(tmp_path / "other", epochs=2))


def test_a_damaged_checkpoint_starts_the_training_anew(tmp_path):
    expected = train(tmp_path / "whole")
    train(tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:200])
    assert same(train(tmp_path), expected)


def test_steps_are_counted_and_a_partial_batch_is_dropped_or_kept(tmp_path):
    seen: list[tuple[int, int]] = []
    sizes: set[int] = set()

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        sizes.add(len(batch.x))
        return nn.functional.cross_entropy(module(batch.x), batch.y)

    for partial, expected, total in (("drop", {16}, 12), ("keep", {16, 4}, 14)):
        training = Teaching(epochs=2, batch_size=16, partial_batch=partial)
        seen.clear()
        sizes.clear()
        fit(
            network(),
            loss,
            context(
                training,
                data=data(),
                work=tmp_path / partial,
                on_step=lambda done, total: seen.append((done, total)),
            ),
        )
        assert sizes == expected
        assert seen == [(step, total) for step in range(1, total + 1)]


def test_a_set_smaller_than_a_batch_is_used_whole(tmp_path):
    assert evaluate(train(tmp_path, batch_size=500, epochs=40), data().test) > 0.9


def test_gradients_are_still_there_after_the_step(tmp_path):
    module, found = network(), []
    training = Teaching(epochs=1, batch_size=50)
    fit_labels(
        module,
        context(
            training,
            data=data(),
            work=tmp_path,
            on_step=lambda done, total: found.append(module[0].weight.grad is not None),
        ),
    )
    assert found == [True, True]
    assert module[0].weight.grad is None


def test_the_best_weights_are_kept_and_the_last_on_request(tmp_path):
    def spoiled(module: nn.Module, batch: Batch) -> Tensor:
        """Learns in the first two epochs of six steps, then learns the opposite."""
        spoiled.steps += 1
        sign = 1.0 if spoiled.steps <= 12 else -1.0
        return sign * nn.functional.cross_entropy(module(batch.x), batch.y)

    found = {}
    for keep in ("best", "last"):
        spoiled.steps = 0
        training = Teaching(
            epochs=6, batch_size=16, learning_rate=0.02, keep=keep, schedule="constant"
        )
        module = fit(network(), spoiled, context(training, data=data(), work=tmp_path / keep))
        found[keep] = evaluate(module, data().validation)
        history = read_tensors(tmp_path / keep / CHECKPOINT)[1]["history"]
        assert found[keep] == pytest.approx(
            max(e["validation"] for e in history) if keep == "best" else history[-1]["validation"]
        )
    assert found["best"] > 0.6 > found["last"]


def test_patience_ends_a_training_that_no_longer_improves(tmp_path):
    module = network()
    train(tmp_path, module, epochs=50, patience=3, learning_rate=1e-12)
    history = read_tensors(tmp_path / CHECKPOINT)[1]["history"]
    assert 3 <= len(history) < 20


def test_a_loss_that_is_no_number_names_epoch_and_step(tmp_path):
    calls = []

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        calls.append(1)
        value = nn.functional.cross_entropy(module(batch.x), batch.y)
        return value * float("nan") if len(calls) == 9 else value

    with pytest.raises(InputError, match=r"epoch 2, step 3: the loss became nan") as caught:
        fit(network(), loss, context(Teaching(epochs=3, batch_size=16), data=data(), work=tmp_path))
    assert "learning_rate" in caught.value.hint
    assert read_tensors(tmp_path / CHECKPOINT)[1]["done"] == 1


def test_a_module_without_parameters_is_refused(tmp_path):
    with pytest.raises(InputError, match="nothing to train"):
        train(tmp_path, nn.Sequential(nn.Flatten()))


def test_weight_decay_spares_biases_and_norms(tmp_path):
    def nothing(module: nn.Module, batch: Batch) -> Tensor:
        return 0.0 * sum(value.sum() for value in module.parameters())

    module = network()
    nn.init.ones_(module[1].weight)
    kernel, bias = module[0].weight.detach().clone(), module[0].bias.detach().clone()
    training = Teaching(
        epochs=1, batch_size=100, weight_decay=0.5, learning_rate=0.1, warmup=0, schedule="constant"
    )
    fit(module, nothing, context(training, data=data(), work=tmp_path))
    assert torch.allclose(module[0].weight, kernel * (1 - 0.1 * 0.5))
    assert torch.equal(module[0].bias, bias)
    assert torch.equal(module[1].weight, torch.ones(4))


def test_a_gradient_is_clipped_to_the_norm_that_was_asked_for(tmp_path):
    linear = nn.Linear(1, 2, bias=False)
    linear.weight.data.zero_()
    one = Samples(torch.tensor([[2.0]]), torch.tensor([0]))
    only = Data("one", one, one, one, 2)
    keys = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1.0, "weight_decay": 0}
    train(tmp_path, linear, on=only, epochs=1, clip_gradient=0.5, **keys)
    # The gradient is (-1, 1), of norm sqrt(2).
    assert torch.allclose(linear.weight.flatten(), torch.tensor([0.5, -0.5]) / 2**0.5, atol=1e-5)


def test_the_learning_rate_rises_and_falls_as_computed_by_hand():
    assert [rate_share(step, 8, 0.25, "linear") for step in range(8)] == pytest.approx(
        [0.5, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    )
    assert rate_share(5, 8, 0.25, "cosine") == pytest.approx(0.5)
    assert rate_share(7, 8, 0.0, "constant") == 1.0


def test_fixed_views_repeat_and_differ(tmp_path):
    images = data(Augmentation(shift=1, views=2))
    first, second = view_of(images, 0), view_of(images, 1)
    assert torch.equal(first, view_of(images, 0))
    assert not torch.equal(first, second)
    seen: dict[int, list[Tensor]] = {}

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        assert torch.equal(batch.x, view_of(images, batch.view)[batch.index])
        seen.setdefault(batch.view, []).append(batch.index)
        return nn.functional.cross_entropy(module(batch.x), batch.y)

    training = Teaching(epochs=2, batch_size=25)
    fit(network(), loss, context(training, data=images, work=tmp_path, seed=3))
    assert sorted(torch.cat(seen[0]).tolist()) == list(range(100))
    assert sorted(torch.cat(seen[1]).tolist()) == list(range(100))


def test_new_draws_change_from_epoch_to_epoch(tmp_path):
    images = data(Augmentation(shift=1))
    epochs: list[Tensor] = []

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        assert batch.view is None
        epochs.append(batch.x[batch.index.argsort()])
        return nn.functional.cross_entropy(module(batch.x), batch.y)

    fit(network(), loss, context(Teaching(epochs=2, batch_size=100), data=images, work=tmp_path))
    assert not torch.equal(epochs[0], epochs[1])


def test_mixed_precision_trains_in_bfloat16_and_returns_float32(tmp_path):
    found = []

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        logits = module(batch.x)
        found.append(logits.dtype)
        return nn.functional.cross_entropy(logits.float(), batch.y)

    training = Teaching(epochs=1, precision="bf16-mixed")
    module = fit(network(), loss, context(training, data=data(), work=tmp_path))
    assert set(found) == {torch.bfloat16}
    assert {value.dtype for value in module.parameters()} == {torch.float32}


def test_evaluating_leaves_every_layer_in_its_mode():
    module = network().train()
    module[1].eval()
    logits = predict(module, data().test.x, batch=7)
    assert logits.shape == (60, 3)
    assert not logits.requires_grad
    assert [part.training for part in module] == [True, False, True, True, True, True]
    assert evaluate(module, data().test) == pytest.approx(
        float((logits.argmax(1) == data().test.y).double().mean())
    )


def test_wrong_keys_are_refused_all_at_once():
    with pytest.raises(InputError) as caught:
        parse(Teaching, {"epoch": 3, "batch_size": 0, "schedule": "cosin"}, "recipe.toml: distill")
    text = str(caught.value)
    assert "unknown key 'epoch'" in text
    assert "batch_size" in text
    assert "'cosine', 'constant' or 'linear'" in text


def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Exception, match="the disk is full"):
        train(tmp_path)
    assert list(tmp_path.iterdir()) == []


FOLDERS = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]

CHILD = """
import sys, time, torch
sys.path[:0] = {tests!r}
from pathlib import Path
from test_training import *

slow = sys.argv[2] == "slow"
training = Teaching(epochs=6, batch_size=16, learning_rate=0.01)
there = context(
    training, data=data(Augmentation(shift=1)), seed=5, work=Path(sys.argv[1]),
    on_step=lambda done, total: time.sleep(0.03 if slow else 0),
)
module = fit_labels(network(), there)
torch.save(module.state_dict(), sys.argv[1] + "/end.pt")
"""


@pytest.mark.slow
def test_a_run_killed_anywhere_ends_with_the_bits_of_an_unbroken_one(tmp_path):
    code = CHILD.format(tests=FOLDERS)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, whole, "fast"], check=True, env=environment)
    for stop_after in (1, 3):
        child = subprocess.Popen([sys.executable, "-c", code, broken, "slow"], env=environment)
        while done_epochs(broken) < stop_after and child.poll() is None:
            time.sleep(0.005)
        time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert stop_after <= done_epochs(broken) < 6
    subprocess.run([sys.executable, "-c", code, broken, "fast"], check=True, env=environment)
    expected = torch.load(whole / "end.pt", weights_only=True)
    found = torch.load(broken / "end.pt", weights_only=True)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert done_epochs(broken) == 6


def done_epochs(work: Path) -> int:
    found = read_tensors(work / CHECKPOINT)
    return found[1]["done"] if found else 0


def half_a_batch(module, batch):
    """The label loss, in steps that two processes take with eight samples each."""
    assert (len(batch.x), batch.processes) == (8, 2)
    return nn.functional.cross_entropy(module(batch.x), batch.y)


@pytest.mark.slow
def test_two_processes_under_torchrun_train_one_model(tmp_path):
    script = tmp_path / "train.py"
    code = CHILD.replace("fit_labels(network(), there)", "fit(network(), half_a_batch, there)")
    script.write_text(code.format(tests=FOLDERS))
    arguments = ["--nproc-per-node=2", "--master-port=29533", script, tmp_path, "fast"]
    command = [sys.executable, "-m", "torch.distributed.run", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    module = network()
    module.load_state_dict(torch.load(tmp_path / "end.pt", weights_only=True))
    assert evaluate(module, data().test) > 0.6
