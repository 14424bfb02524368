"""TinyBERT's and MiniLM's losses against numbers worked out by hand or by torch's own attention."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgekd.training.losses._attention_maps import relation_divergence, value_relations
from edgekd.training.losses.minilm import MiniLM
from edgekd.training.losses.transformer import Transformer

NO_LOGITS = {"student_outputs": torch.zeros(1, 2), "teacher_outputs": torch.zeros(1, 2)}


def test_hidden_states_attention_and_logits_add_up_with_their_weights():
    loss = Transformer(hidden=2.0, attention=3.0, logits=0.5, temperature=2.0)
    loss.prepare([(2, 1), (1, 2, 2)], [(2, 1), (1, 2, 2)])
    student = [torch.tensor([[[1.0], [3.0]]], requires_grad=True), torch.zeros(1, 1, 2, 2)]
    teacher = [torch.tensor([[[0.0], [1.0]]]), torch.full((1, 1, 2, 2), 0.5)]
    outputs = {
        "student_outputs": torch.tensor([[0.0, 0.0]]),
        "teacher_outputs": torch.tensor([[2.0, 0.0]]),
    }
    value = loss(student, teacher, **outputs)
    value.backward()
    # hidden (1 + 4) / 2, attention 1/4, logits T^2 KL = 0.4437763 (test_kl)
    assert value.item() == pytest.approx(2 * 2.5 + 3 * 0.25 + 0.5 * 0.4437763, abs=1e-6)
    assert torch.allclose(student[0].grad.flatten(), torch.tensor([2.0, 4.0]))


def test_other_widths_share_one_bridge_and_patch_embeddings_are_read_by_token():
    loss = Transformer(logits=0.0)
    loss.prepare([(4, 2, 2), (4, 4), (2, 4, 4)], [(6, 2, 2), (4, 6), (2, 4, 4)])
    assert loss.maps == [False, False, True]
    assert list(loss.bridges) == ["4-6"]
    loss.bridges["4-6"] = nn.Linear(4, 6, bias=False)
    patches, hidden = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 4)
    weight = loss.bridges["4-6"].weight
    teacher = [F.conv2d(patches, weight[:, :, None, None]), hidden @ weight.T]
    maps = torch.rand(1, 2, 4, 4)
    value = loss([patches, hidden, maps], [*teacher, maps], **NO_LOGITS)
    assert value.item() == pytest.approx(0.0, abs=1e-10)


def test_heads_and_lengths_must_agree():
    with pytest.raises(ValueError, match="differ in heads or length"):
        Transformer().prepare([(4, 8), (2, 4, 4)], [(4, 8), (4, 4, 4)])
    with pytest.raises(ValueError, match="different lengths"):
        Transformer().prepare([(4, 8)], [(6, 8)])
    with pytest.raises(ValueError, match="neither hidden states"):
        Transformer().prepare([(8,)], [(8,)])
    with pytest.raises(ValueError, match="all zero"):
        Transformer(hidden=0.0, attention=0.0, logits=0.0)
    with pytest.raises(ValueError, match="as many heads and tokens"):
        MiniLM().prepare([(2, 4, 4), (4, 8)], [(4, 4, 4), (4, 8)])
    with pytest.raises(ValueError, match="needs attention weights"):
        MiniLM().prepare([(4, 8), (2, 4, 4)], [(4, 8), (2, 4, 4)])


def test_the_attention_divergence_is_the_hand_computed_one():
    theirs, mine = torch.tensor([[[[0.75, 0.25]]]]), torch.tensor([[[[0.5, 0.5]]]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert relation_divergence(theirs, mine).item() == pytest.approx(expected, abs=1e-6)
    certain = torch.tensor([[[[1.0, 0.0]]]])
    assert relation_divergence(certain, certain).item() == pytest.approx(0.0, abs=1e-6)


def test_value_relations_are_those_of_each_heads_share():
    values = torch.randn(2, 3, 8)
    found = value_relations(values, heads=2)
    for head in range(2):
        own = values[:, :, 4 * head : 4 * head + 4]
        expected = torch.softmax(own @ own.transpose(1, 2) / math.sqrt(4), dim=2)
        assert torch.allclose(found[:, head], expected, atol=1e-6)


def test_minilm_adds_both_divergences_whatever_the_widths():
    loss = MiniLM(values=2.0)
    loss.prepare([(1, 2, 2), (2, 1)], [(1, 2, 2), (2, 3)])
    maps = torch.full((1, 1, 2, 2), 0.5)
    value = loss([maps, torch.zeros(1, 2, 1)], [maps, torch.zeros(1, 2, 3)])
    assert value.item() == pytest.approx(0.0, abs=1e-7)
    certain = torch.eye(2).view(1, 1, 2, 2)
    far = 50 * torch.eye(2).view(1, 2, 2)
    value = loss([maps, torch.zeros(1, 2, 1)], [certain, torch.nn.functional.pad(far, (0, 1))])
    assert value.item() == pytest.approx(3 * math.log(2), rel=1e-4)
