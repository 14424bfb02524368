"""What is split at full rank leaves the network as it was; what would not is left by name."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.stages.factorize.linear import basis, split_linear
from edgekd.stages.factorize.sites import Site, at_ranks, find_sites, replaced, spectrum_of

torch.set_num_threads(1)


class Conv1D(nn.Module):
    """A linear layer with its weight as (in, out), as transformers' GPT-2 has it."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.view(-1, self.nx), self.weight)
        return flat.view(*x.shape[:-1], self.nf)


class Net(nn.Module):
    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.use = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self, x)


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def sites_of(module: nn.Module, x: Tensor) -> tuple[list[Site], dict[str, str]]:
    return find_sites(module.eval(), x, "svd", "auto", lambda name: False)


def test_a_linear_layer_by_columns_is_split_like_any_other() -> None:
    torch.manual_seed(0)
    layer = Conv1D(12, 20)
    x = torch.randn(3, 5, 20)
    left, _ = basis(layer.weight.detach().T)
    assert torch.allclose(split_linear(layer, left, 12)(x), layer(x), atol=1e-5)
    (site,), left_alone = sites_of(nn.Sequential(layer), x[:1])
    assert not left_alone
    assert (site.macs, site.full("svd")) == (5 * 20 * 12, (12,))
    assert site.cost("svd", (4,)) == 5 * 4 * (20 + 12)


def test_full_rank_changes_nothing_in_a_network_of_every_kind_of_layer() -> None:
    torch.manual_seed(0)
    shared = nn.Conv2d(6, 6, 3, padding=1)
    module = nn.Sequential(
        nn.Conv2d(3, 6, (3, 5), stride=(2, 1), padding="valid"),
        nn.ReLU(),
        shared,
        nn.ReLU(),
        shared,
        nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect", bias=False),
        nn.Flatten(2),
        nn.Linear(24, 16),
        Conv1D(10, 16),
    ).eval()
    x = torch.randn(2, 3, 9, 10)
    sites, left = sites_of(module, x[:1])
    assert [site.name for site in sites] == ["0", "2", "5", "7", "8"]
    assert not left
    assert sites[1].calls == 2
    for pick in (0, -1):
        spectra, chosen = {}, {}
        for site in sites:
            method = site.methods[pick]
            spectra[site.name, method] = spectrum_of(site, method, None)
            option = at_ranks(site, method, spectra[site.name, method], site.full(method), 1)
            chosen[site.name] = option
        split = replaced(module, sites, chosen, spectra)
        assert torch.allclose(split(x), module(x), atol=1e-4)


def test_a_weight_that_other_code_reads_is_left_alone() -> None:
    torch.manual_seed(0)
    module = Net(
        lambda net, x: F.linear(torch.relu(net.a(x)), net.a.weight.t()) + net.b(net.c(x)),
        a=nn.Linear(6, 4), b=nn.Linear(6, 6), c=nn.Linear(6, 6), d=nn.Linear(6, 6),
    )  # fmt: skip
    module.d.weight = module.c.weight
    sites, left = sites_of(module, torch.randn(1, 6))
    assert [site.name for site in sites] == ["b"]
    assert left["a"].startswith("the network does not run with this layer split")
    assert left["c"] == "shares its weight with 'd'"
    assert left["d"] == "its weight is used by other code, not by the layer"


def test_a_layer_of_its_own_arithmetic_is_left_alone() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 6), Doubled(6, 6))
    sites, left = sites_of(module, torch.randn(1, 6))
    assert [site.name for site in sites] == ["0"]
    assert left == {"1": "the network's outputs change when this layer is split at full rank"}


@pytest.mark.parametrize("weight", ["attention", "plain"])
def test_the_projection_that_attention_reads_itself_is_named(weight: str) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    module = Net(
        lambda net, x: net.o(net.m(x, x, x, need_weights=weight == "attention")[0]),
        m=attention, o=nn.Linear(8, 8),
    )  # fmt: skip
    sites, left = sites_of(module, torch.randn(1, 3, 8))
    assert [site.name for site in sites] == ["o"]
    assert left["m.out_proj"] == "its weight is used by other code, not by the layer"
