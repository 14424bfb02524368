"""Shared weights: k-means worked out by hand, and centroids that learn from all their weights."""

import pytest
import torch
from torch.nn.utils import prune

from edgekd.models.transformer import transformer
from edgekd.quant.clusters import SharedWeight, k_means, nearest_centroids
from edgekd.quant.export import export_graph
from edgekd.quant.storage import load_graph, save_graph
from edgekd.quant.weight_only import as_float, finish_narrow, shared, stored_weights


def test_centroids_are_the_means_of_what_is_nearest() -> None:
    # Even spread: 0, 5, 10; then {0, 1}, {4, 5}, {10}
    values = torch.tensor([0.0, 1.0, 4.0, 5.0, 10.0])
    assert k_means(values, 3).tolist() == [0.5, 4.5, 10.0]
    # A centroid that nothing is near to is dropped.
    assert k_means(torch.tensor([0.0, 0.0, 9.0]), 4).tolist() == [0.0, 9.0]
    assert k_means(torch.tensor([2.0, 2.0]), 8).tolist() == [2.0]


def test_a_value_in_the_middle_belongs_to_the_lower_centroid() -> None:
    values = torch.tensor([-9.0, 0.9, 1.0, 1.1])
    assert nearest_centroids(values, torch.tensor([0.0, 2.0])).tolist() == [0, 0, 0, 1]


def test_a_rising_number_of_values_never_fits_worse() -> None:
    torch.manual_seed(0)
    weight = torch.randn(32, 32)
    errors = [float((SharedWeight(weight, bits)(weight) - weight).square().sum().detach())
              for bits in (1, 2, 4, 8)]  # fmt: skip
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 * errors[0]


def test_pruned_weights_stay_zero_and_a_centroid_learns_from_all_of_its_weights() -> None:
    weight = torch.tensor([[0.0, 1.0, 1.0], [0.0, -2.0, 1.0]])
    part = SharedWeight(weight, 2)
    assert part.table().tolist() == [0.0, -2.0, 1.0]
    assert part.index.tolist() == [[0, 2, 2], [0, 1, 2]]
    assert part.index.dtype is torch.uint8
    found = part(weight)
    assert torch.equal(found, weight)
    (found * torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])).sum().backward()
    assert part.centroids.grad.tolist() == [16.0, 2.0 + 4.0 + 32.0]  # eq. 3; none for zeros


def test_two_to_the_bits_values_at_most_zero_among_them() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64)
    weight[:10] = 0
    assert len(SharedWeight(weight.view(8, 8), 3).table()) <= 8
    assert SharedWeight(torch.zeros(2, 2), 3).table().tolist() == [0.0]


def test_a_finished_graph_reads_its_weights_from_tables(tmp_path) -> None:
    torch.manual_seed(0)
    module = transformer(8, width=16, patch=2, depth=1, heads=2).eval()
    prune.l1_unstructured(module.classifier, "weight", 0.5)
    prune.remove(module.classifier, "weight")
    x = torch.rand(4, 1, 8, 8)
    prepared = shared(export_graph(module, x[:1]), ["classifier", "embed"], 4)
    graph = finish_narrow(prepared)
    with torch.no_grad():
        assert torch.equal(graph(x), prepared(x))
    found = [each for _, each in stored_weights(graph)]
    assert [each.dtype for each in found] == ["clustered", "clustered"]
    assert found[1].bits == 8 * 160 + 32 * len(found[1].centroids)
    assert float((found[1].value == 0).double().mean()) == 0.5
    assert all(len(each.value.unique()) <= 16 for each in found)
    save_graph(graph, tmp_path / "graph.pt2")
    restored = load_graph(tmp_path / "graph.pt2")
    assert torch.equal(restored(x), graph(x))
    assert torch.equal(as_float(restored)[0](x), graph(x))


@pytest.mark.parametrize("bits", [1, 8])
def test_any_number_of_bits_up_to_a_byte_works(bits) -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, 40)
    assert len(SharedWeight(weight, bits)(weight).unique()) <= 2**bits
