"""Graph distillation against numbers computed by hand, with and without a budget of edges."""

import pytest
import torch

from edgekd.training.losses.graph import Graph


def made(**keys) -> Graph:
    loss = Graph(**keys)
    loss.prepare([(2, 1), (2, 2), (1,)], [(2, 1), (2, 2), (1,)])
    return loss


def test_the_three_parts_add_up_with_their_weights():
    student = [torch.tensor([[[1.0], [3.0]]]), torch.tensor([[[1.0, 2.0], [0.0, 0.0]]]),
               torch.tensor([[2.0]])]  # fmt: skip
    zeros = [torch.zeros_like(each) for each in student]
    value = made(nodes=2.0, edges=3.0, pooled=4.0)(student, zeros)
    assert value.item() == pytest.approx(2 * 5.0 + 3 * 1.25 + 4 * 4.0)


def test_a_budget_keeps_the_edges_that_the_pooled_output_needs():
    edges = torch.tensor([[[1.0, 1.0], [5.0, 0.1]]], requires_grad=True)
    # p = e_00 + 4 e_01 + 0.01 e_10: with p_t = 0 the saliencies go as 1, 4, 0.05, 0.
    factors = torch.tensor([[1.0, 4.0], [0.01, 0.0]])
    student = [torch.zeros(1, 2, 1), edges, (edges * factors).sum((1, 2)).view(1, 1)]
    teacher = [torch.zeros(1, 2, 1), torch.ones(1, 2, 2), torch.zeros(1, 1)]
    loss = made(edge_budget=0.5, pooled=0.0)
    value = loss(student, teacher)
    # kept are the first row's; the others are taught to be zero.
    assert value.item() == pytest.approx((0 + 0 + 25 + 0.01) / 4, rel=1e-5)
    (slope,) = torch.autograd.grad(value, edges)
    assert torch.allclose(slope[0], torch.tensor([[0.0, 0.0], [2.5, 0.05]]), atol=1e-6)


def test_where_nothing_depends_on_the_edges_the_heaviest_stay():
    edges = torch.tensor([[[3.0, 1.0], [0.5, -2.0]]], requires_grad=True)
    kept = made(edge_budget=0.5)._kept(edges, torch.zeros(()))
    assert kept.tolist() == [[[1.0, 0.0], [0.0, 1.0]]]


def test_widths_of_nodes_and_pooled_outputs_are_bridged_and_edges_must_agree():
    loss = Graph()
    loss.prepare([(5, 4), (5, 5), (4,)], [(5, 6), (5, 5), (8,)])
    assert [getattr(b, "out_features", None) for b in loss.bridges] == [6, None, 8]
    with pytest.raises(ValueError, match="edges of shapes"):
        Graph(parts=("edges",)).prepare([(5, 5)], [(4, 4)])
    with pytest.raises(ValueError, match="2 layers are named for the parts"):
        Graph().prepare([(5, 4), (5, 5)], [(5, 4), (5, 5)])
    with pytest.raises(ValueError, match="needs both 'edges' and 'pooled'"):
        Graph(parts=("nodes", "edges"), edge_budget=0.5)
    with pytest.raises(ValueError, match="edge_budget must be above 0"):
        Graph(edge_budget=0.0)
