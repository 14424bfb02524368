"""Contrastive distillation against the paper's estimate, spelt out in Python numbers."""

import math

import pytest
import torch
from torch import nn

from edgekd.training.losses import crd
from edgekd.training.losses.crd import CRD


def made(samples: int = 5, **keys) -> CRD:
    loss = CRD(width=2, temperature=0.5, **keys)
    loss.prepare((2,), (2,))
    loss.remember(samples)
    loss.heads = nn.ModuleList([nn.Identity(), nn.Identity()])
    return loss


def side(anchor, rows, temperature):
    """Equations 14 and 19 for one anchor; the first row is its own sample's."""
    scores = [math.exp((anchor[0] * r[0] + anchor[1] * r[1]) / temperature) for r in rows]
    scale = sum(scores) / len(scores) * 5
    scores, noise = [s / scale for s in scores], (len(rows) - 1) / 5
    return -math.log(scores[0] / (scores[0] + noise)) - sum(
        math.log(noise / (s + noise)) for s in scores[1:]
    )


def test_the_value_is_the_papers_estimate_with_every_other_sample_a_negative(monkeypatch):
    loss = made(negatives=4)
    before = [bank.rows.clone() for bank in loss.banks]
    monkeypatch.setattr(torch, "randint", lambda *a, **k: torch.tensor([[1, 2, 3, 4]]))
    student, teacher = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    found = loss(student, teacher, index=torch.tensor([3]))
    order = [3, 4, 0, 1, 2]
    expected = side((0.6, 0.8), before[1][order].tolist(), 0.5)
    expected += side((0.0, 1.0), before[0][order].tolist(), 0.5)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_memory_moves_towards_the_embedding_and_stays_of_norm_one():
    loss = made(negatives=2, momentum=0.9)
    before = loss.banks[0].rows[1].clone()
    loss(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]]), index=torch.tensor([1]))
    moved = 0.9 * before + 0.1 * torch.tensor([0.6, 0.8])
    assert torch.allclose(loss.banks[0].rows[1], moved / moved.norm())
    assert loss.banks[0].rows[1].norm().item() == pytest.approx(1.0)


def test_a_samples_own_row_is_never_its_negative():
    loss = made(samples=3, negatives=64)  # only two others
    seen = []
    loss.banks[0].forward = lambda embedded, rows, t: seen.append(rows) or embedded.sum()
    loss.banks[1].forward = lambda embedded, rows, t: embedded.sum()
    for _ in range(20):
        loss(torch.randn(3, 2), torch.randn(3, 2), index=torch.arange(3))
    rows = torch.cat(seen)
    assert bool((rows[:, 1:] != rows[:, :1]).all())


def test_the_scale_is_set_once_and_kept_in_the_checkpoint():
    loss = made(negatives=2)
    loss(torch.randn(2, 2), torch.randn(2, 2), index=torch.tensor([0, 1]))
    first = loss.banks[0].scale.clone()
    loss(9 * torch.randn(2, 2), torch.randn(2, 2), index=torch.tensor([2, 3]))
    assert torch.equal(first, loss.banks[0].scale)
    assert {"banks.0.rows", "banks.0.scale", "banks.1.rows"} <= set(loss.state_dict())


def test_a_low_temperature_overflows_nothing():
    loss = CRD(width=2, temperature=0.005)
    loss.prepare((2,), (2,))
    loss.remember(5)
    loss.heads = nn.ModuleList([nn.Identity(), nn.Identity()])
    for bank in loss.banks:
        bank.rows[:] = torch.tensor([1.0, 0.0])  # cosines of one: e^200
    student = torch.tensor([[1.0, 0.0]], requires_grad=True)
    found = loss(student, torch.tensor([[1.0, 0.0]]), index=torch.tensor([1]))
    found.backward()
    each = -math.log(0.2 / (0.2 + 0.8)) - 4 * math.log(0.8 / (0.2 + 0.8))
    assert found.item() == pytest.approx(2 * each, rel=1e-5)
    assert bool(student.grad.isfinite().all())


def test_training_brings_pairs_together():
    torch.manual_seed(0)
    loss = CRD(negatives=7, width=4)
    loss.prepare((6,), (3,))
    loss.remember(8)
    student, teacher = torch.randn(8, 6), torch.randn(8, 3)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.03)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(student, teacher, index=torch.arange(8))
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert sum(values[-5:]) < 0.7 * sum(values[:5])


def test_products_with_all_rows_and_with_gathered_ones_are_the_same(monkeypatch):
    found = []
    for dense in (0, 8):
        monkeypatch.setattr(crd, "DENSE", dense)
        torch.manual_seed(4)
        loss = made(samples=9, negatives=4)
        student = torch.randn(3, 2, requires_grad=True)
        for _ in range(2):  # the second looks at what the first has changed
            value = loss(student, torch.randn(3, 2), index=torch.tensor([0, 4, 7]))
        value.backward()
        found.append((value.item(), student.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)
