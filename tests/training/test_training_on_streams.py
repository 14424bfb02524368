"""Training on streamed samples: the bits of a run in memory, resumed, whatever the workers."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contexts import context
from torch import Tensor, nn
from torch.utils.data import Dataset

from edgekd.data.dataset import How, samples_from
from edgekd.data.samples import Data, Samples
from edgekd.data.streamed import Streamed
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.training.checkpoint import read_tensors
from edgekd.training.logits import TeacherLogits
from edgekd.training.loop import CHECKPOINT, Batch, fit, fit_labels
from edgekd.training.teachers.module import ModuleTeacher
from edgekd.training.teachers.outputs import Outputs
from edgekd.training.teaching import Teaching

GENERATOR = torch.Generator().manual_seed(1)
IMAGES = torch.rand(60, 1, 4, 4, generator=GENERATOR)
LABELS = torch.arange(60) % 3


class Images(Dataset):
    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = self.noise * torch.rand(1, 4, 4) if self.noise else 0.0
        return IMAGES[index] + LABELS[index] + noise, int(LABELS[index])


def streamed(noise: float = 0.0, workers: int = 0) -> Samples:
    how = How(stream=True, workers=0)
    samples = samples_from(Images(noise), "train", CLASSIFICATION, how)
    assert isinstance(samples.inputs, Streamed)
    return Samples(replace(samples.inputs, workers=workers, seconds=1.0), samples.y)


def data(train: Samples) -> Data:
    held = Samples(IMAGES + LABELS.view(-1, 1, 1, 1), LABELS)
    return Data("images", train, held.first(12), held.first(12), 3)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
    )


def trained(train: Samples, work: Path, **fields: object) -> dict[str, Tensor]:
    teaching = Teaching(epochs=4, batch_size=16, learning_rate=0.01, keep="last")
    there = context(teaching, data=data(train), work=work, seed=3, **fields)
    return fit_labels(network(), there).state_dict()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_streamed_and_held_samples_train_to_the_same_bits(tmp_path):
    held = Samples(IMAGES + LABELS.view(-1, 1, 1, 1), LABELS)
    assert same(trained(held, tmp_path / "a"), trained(streamed(), tmp_path / "b"))


def test_the_number_of_workers_changes_no_bit(tmp_path):
    alone = trained(streamed(0.5), tmp_path / "alone")
    assert same(alone, trained(streamed(0.5, workers=2), tmp_path / "two"))
    assert not same(alone, trained(streamed(), tmp_path / "plain"))


def test_a_run_that_stops_resumes_with_the_same_draws(tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 10:  # of 16, in the third epoch
            raise KeyboardInterrupt

    whole = trained(streamed(0.5), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(streamed(0.5), tmp_path / "broken", on_step=stop)
    assert same(whole, trained(streamed(0.5), tmp_path / "broken"))


def test_cached_logits_belong_to_the_fixed_views_of_a_random_stream(tmp_path):
    teacher = ModuleTeacher("big", "key", 1.0, network().eval(), Outputs())
    images = data(streamed(0.5))
    varied = replace(images, augmentation=replace(images.augmentation, views=2))
    there = context(
        Teaching(epochs=4, batch_size=20), data=varied, teachers=[teacher], work=tmp_path
    )
    logits, views = TeacherLogits(there), set()

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            expected = teacher.logits(batch.x)
        assert torch.allclose(logits.of(0, batch), expected, atol=1e-6)
        views.add(batch.view)
        return nn.functional.cross_entropy(module(batch.x), batch.y)

    fit(network(), loss, there)
    assert views == {0, 1}


PROCESSES = """
import sys
from pathlib import Path
sys.path[:0] = {folders}
import torch
from test_training_on_streams import curve_of

torch.set_num_threads(1)
curve_of(Path(sys.argv[1]))
"""


def curve_of(work: Path) -> list[float]:
    """Losses of four epochs on a random stream, with a last batch that two processes can't share
    equally."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    teaching = Teaching(epochs=4, batch_size=17, learning_rate=0.05, keep="last")
    there = context(teaching, data=data(streamed(0.5)), work=work, seed=3)
    fit_labels(module, there)
    checkpoint = read_tensors(work / CHECKPOINT)
    return [entry["loss"] for entry in checkpoint[1]["history"]] if checkpoint else []


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(tmp_path):
    script, here = tmp_path / "train.py", Path(__file__).parent
    folders = [str(here), str(here.parent / "support"), str(here.parent.parent)]
    script.write_text(PROCESSES.format(folders=folders))
    arguments = ["--nproc-per-node=2", "--master-port=29541", script, tmp_path / "two"]
    command = [sys.executable, "-m", "torch.distributed.run", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    checkpoint = read_tensors(tmp_path / "two" / CHECKPOINT)
    both = [entry["loss"] for entry in checkpoint[1]["history"]]
    assert len(both) == 4
    assert both == pytest.approx(curve_of(tmp_path / "one"), rel=1e-5)
