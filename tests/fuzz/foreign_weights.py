"""Networks whose weights are computed, shared, tied, normed, masked or made by a function."""

from typing import Any

import torch
from foreign import Foreign, conv, end, mean, relu, stack
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune


class Standardized(nn.Conv2d):
    """Weight standardization (Qiao et al. 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return self._conv_forward(x, weight, self.bias)


class Equalized(nn.Conv2d):
    """The equalized learning rate of ProGAN (Karras et al. 2018), demodulated as StyleGAN2's."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * (2.0 / self.weight[0].numel()) ** 0.5
        weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        return F.conv2d(x, weight, self.bias, padding=1)


class LoRA(nn.Linear):
    """Low-rank adaptation (Hu et al. 2022), on the weight."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.A = nn.Parameter(0.3 * torch.randn(2, inputs))
        self.B = nn.Parameter(0.3 * torch.randn(outputs, 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight + 0.5 * self.B @ self.A, self.bias)


class LoRABeside(LoRA):
    """The same beside the layer, as PEFT has it before it is merged."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + 0.5 * (x @ self.A.t() @ self.B.t())


class Binary(nn.Conv2d):
    """Weights of one bit with a scale for each channel (Rastegari et al. 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, self.weight.sign() * scale, self.bias)


class Ternary(nn.Linear):
    """BitNet's absmean weights."""

    def forward(self, x: Tensor) -> Tensor:
        scale = 1.0 / self.weight.abs().mean().clamp(min=1e-5)
        weight = (self.weight * scale).round().clamp(-1, 1) / scale
        return F.linear(x, self.weight + (weight - self.weight).detach(), self.bias)


class Cosine(nn.Linear):
    """A classifier by angles (ArcFace): both sides have length one."""

    def forward(self, x: Tensor) -> Tensor:
        return 10.0 * F.linear(F.normalize(x, dim=1), F.normalize(self.weight, dim=1))


class Rep(nn.Module):
    """RepVGG's three branches."""

    def __init__(self) -> None:
        super().__init__()
        self.three, self.one = conv(8, 8, bias=False), conv(8, 8, 1, bias=False)
        self.n3, self.n1, self.n0 = (nn.BatchNorm2d(8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.n3(self.three(x)) + self.n1(self.one(x)) + self.n0(x))


class Scaled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 0.5 + weight.flip(2) * 0.25


def masked(layer: nn.Conv2d) -> nn.Conv2d:
    prune.random_unstructured(layer, "weight", 0.4)
    return layer


def parametrized(layer: nn.Conv2d) -> nn.Conv2d:
    parametrize.register_parametrization(layer, "weight", Scaled())
    parametrize.register_parametrization(layer, "bias", nn.Tanh())
    return layer


def two_scales(net: Any, x: Tensor) -> Tensor:
    y = relu(net.a(x))
    small = F.avg_pool2d(10 * y, 2)
    return net.o(mean(relu(net.b(y))) + mean(relu(net.b(small))))


def several_norms(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    return net.o(mean(relu(net.n(y)) + relu(net.m(y))))


def norm_twice(net: Any, x: Tensor) -> Tensor:
    y = relu(net.n(net.a(x)))
    return end(net, net.n(net.b(y)))


def tied_autoencoder(net: Any, x: Tensor) -> Tensor:
    y = relu(net.w(x.flatten(1)))
    return F.linear(y, net.w.weight.t(), net.v)


def tied_deconvolution(net: Any, x: Tensor) -> Tensor:
    return F.conv_transpose2d(relu(net.a(x)), net.a.weight, net.v, padding=1)


WEIGHTS: dict[str, Foreign] = {
    "weight norm": Foreign(
        lambda net, x: end(net, net.b(relu(net.a(x)))),
        stack(b=lambda: parametrizations.weight_norm(conv(8, 8))),
    ),
    "weight norm by columns": Foreign(
        lambda net, x: end(net, net.b(relu(net.a(x)))),
        stack(b=lambda: parametrizations.weight_norm(conv(8, 8), dim=1)),
    ),
    "weight norm of a transposed layer": Foreign(
        lambda net, x: end(net, net.b(relu(net.a(x)))),
        stack(b=lambda: parametrizations.weight_norm(nn.ConvTranspose2d(8, 8, 2, 2), dim=1)),
    ),
    "spectral norm": Foreign(
        lambda net, x: end(net, net.b(relu(net.a(x)))),
        stack(b=lambda: parametrizations.spectral_norm(conv(8, 8))),
    ),
    "orthogonal": Foreign(
        lambda net, x: end(net, net.b(mean(relu(net.a(x))))[..., None, None]),
        stack(b=lambda: parametrizations.orthogonal(nn.Linear(8, 8))),
    ),
    "weight norm and batch norm": Foreign(
        lambda net, x: end(net, net.n(net.b(relu(net.a(x))))),
        stack(b=lambda: parametrizations.weight_norm(conv(8, 8)), n=lambda: nn.BatchNorm2d(8)),
    ),
    "weight norm of a recurrent layer": Foreign(
        lambda net, x: net.o(net.r(x)[0][:, -1]),
        lambda: {
            "r": parametrizations.weight_norm(nn.GRU(4, 8, batch_first=True), "weight_hh_l0"),
            "o": nn.Linear(8, 5),
        },
        (6, 4),
    ),
    "parametrized weight and bias": Foreign(
        lambda net, x: end(net, net.b(relu(net.a(x)))),
        stack(b=lambda: parametrized(conv(8, 8))),
    ),
    "masked": Foreign(
        lambda net, x: end(net, net.b(relu(net.a(x)))), stack(b=lambda: masked(conv(8, 8)))
    ),
    "standardized": Foreign(
        lambda net, x: end(net, net.n(net.b(relu(net.a(x))))),
        stack(b=lambda: Standardized(8, 8, 3, padding=1), n=lambda: nn.GroupNorm(2, 8)),
    ),
    "standardized and folded": Foreign(
        lambda net, x: end(net, net.n(net.b(relu(net.a(x))))),
        stack(b=lambda: Standardized(8, 8, 3, padding=1), n=lambda: nn.BatchNorm2d(8)),
    ),
    "demodulated": Foreign(
        lambda net, x: end(net, net.b(relu(net.a(x)))),
        stack(b=lambda: Equalized(8, 8, 3, padding=1)),
    ),
    "adapted weight": Foreign(
        lambda net, x: net.o(relu(net.b(mean(relu(net.a(x)))))), stack(b=lambda: LoRA(8, 8))
    ),
    "adapted beside": Foreign(
        lambda net, x: net.o(relu(net.b(mean(relu(net.a(x)))))), stack(b=lambda: LoRABeside(8, 8))
    ),
    "one bit": Foreign(
        lambda net, x: end(net, net.b(relu(net.a(x)))), stack(b=lambda: Binary(8, 8, 3, padding=1))
    ),
    "three values": Foreign(
        lambda net, x: net.o(relu(net.b(mean(relu(net.a(x)))))), stack(b=lambda: Ternary(8, 8))
    ),
    "angles": Foreign(
        lambda net, x: net.b(relu(net.o(mean(relu(net.a(x)))))), stack(b=lambda: Cosine(5, 6))
    ),
    "clamped": Foreign(
        lambda net, x: end(net, F.conv2d(relu(net.a(x)), net.w.clamp(-0.1, 0.1), padding=1)),
        stack(w=lambda: nn.Parameter(0.2 * torch.randn(8, 8, 3, 3))),
    ),
    "softplus": Foreign(
        lambda net, x: net.o(relu(mean(relu(net.a(x))) @ F.softplus(net.w))),
        stack(w=lambda: nn.Parameter(torch.randn(8, 8))),
    ),
    "made of parts": Foreign(
        lambda net, x: end(net, F.conv2d(relu(net.a(x)), torch.cat([net.w, -net.w]), padding=1)),
        stack(w=lambda: nn.Parameter(0.2 * torch.randn(4, 8, 3, 3))),
    ),
    "a kernel of a function": Foreign(
        lambda net, x: end(
            net, F.conv2d(relu(net.a(x)), torch.outer(net.k, net.k).expand(8, 1, 3, 3), groups=8)
        ),
        stack(k=lambda: torch.tensor([0.25, 0.5, 0.25])),
    ),
    "an embedding that forward sums": Foreign(
        lambda net, x: net.o(mean(relu(net.a(x)) + net.e.weight.sum(0).view(1, -1, 1, 1))),
        stack(e=lambda: nn.Embedding(3, 8)),
    ),
    "one layer at two scales": Foreign(two_scales, stack(b=lambda: conv(8, 8))),
    "two norms of one layer": Foreign(
        several_norms, stack(n=lambda: nn.BatchNorm2d(8), m=lambda: nn.BatchNorm2d(8))
    ),
    "one norm of two layers": Foreign(
        norm_twice, stack(b=lambda: conv(8, 8), n=lambda: nn.BatchNorm2d(8))
    ),
    "a norm of a norm": Foreign(
        lambda net, x: end(net, net.m(net.n(net.a(x)))),
        stack(n=lambda: nn.BatchNorm2d(8), m=lambda: nn.BatchNorm2d(8, affine=False)),
    ),
    "a norm of a depthwise layer that doubles": Foreign(
        lambda net, x: net.o(mean(relu(net.n(net.b(relu(net.a(x))))))),
        lambda: {
            "a": conv(3, 4),
            "b": conv(4, 8, groups=4, bias=False),
            "n": nn.BatchNorm2d(8),
            "o": nn.Linear(8, 5),
        },
    ),
    "a norm of a transposed layer with groups": Foreign(
        lambda net, x: end(net, net.n(net.b(relu(net.a(x))))),
        stack(
            b=lambda: nn.ConvTranspose2d(8, 8, 2, 2, groups=2, bias=False),
            n=lambda: nn.BatchNorm2d(8),
        ),
    ),
    "a norm before its layer": Foreign(
        lambda net, x: end(net, net.b(relu(net.n(net.a(x))))),
        stack(n=lambda: nn.BatchNorm2d(8), b=lambda: conv(8, 8)),
    ),
    "a norm of the input": Foreign(
        lambda net, x: end(net, net.a(net.n(x))), stack(n=lambda: nn.BatchNorm2d(3))
    ),
    "branches to be merged": Foreign(lambda net, x: end(net, net.r(relu(net.a(x)))), stack(r=Rep)),
    "a tied autoencoder": Foreign(
        tied_autoencoder,
        lambda: {"w": nn.Linear(12, 8, bias=False), "v": nn.Parameter(torch.randn(12))},
        (12,),
    ),
    "a tied deconvolution": Foreign(
        tied_deconvolution, lambda: {"a": conv(3, 8), "v": nn.Parameter(torch.randn(3))}
    ),
    "no bias, and a bias that is None": Foreign(
        lambda net, x: net.o(mean(F.conv2d(relu(net.a(x)), net.w, None, 1, 1))),
        lambda: {
            "a": conv(3, 8, bias=False),
            "w": nn.Parameter(0.2 * torch.randn(8, 8, 3, 3)),
            "o": nn.Linear(8, 5, bias=False),
        },
    ),
    "a bias of its own": Foreign(
        lambda net, x: end(net, net.b(relu(net.a(x))) + net.v.view(1, -1, 1, 1)),
        stack(b=lambda: conv(8, 8, bias=False), v=lambda: nn.Parameter(torch.randn(8))),
    ),
    "a weight that a buffer scales": Foreign(
        lambda net, x: end(net, F.conv2d(relu(net.a(x)), net.w * net.s, net.v * net.s[:, 0, 0, 0])),
        stack(
            w=lambda: nn.Parameter(torch.randn(8, 8, 1, 1)),
            v=lambda: nn.Parameter(torch.randn(8)),
            s=lambda: torch.linspace(0.1, 1.0, 8).view(8, 1, 1, 1),
        ),
    ),
    "weights in double precision": Foreign(
        lambda net, x: end(net, F.conv2d(relu(net.a(x)), net.w.float())),
        stack(w=lambda: nn.Parameter(torch.randn(8, 8, 1, 1, dtype=torch.float64))),
    ),
    "dead and huge channels": Foreign(
        lambda net, x: end(net, net.b(relu(net.a(x)))),
        stack(b=lambda: conv(8, 8)),
        prepared=lambda net: net.a.weight.data.mul_(
            torch.tensor([0, 1e-3, 1, 1, 1, 1, 1, 30.0]).view(8, 1, 1, 1)
        ),
    ),
}
