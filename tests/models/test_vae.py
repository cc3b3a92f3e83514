"""VAE: a float64 transcription of its bound, its gradient, its size, and how the units of its latents are measured."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stzoo
from stzoo.codec import Codec
from stzoo.errors import ForecastError, FramesError, SpecError
from stzoo.models import build
from stzoo.models.vae import WIDEST
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, read_recipe
from stzoo.train.codecs import codec_loss
from stzoo.train.gaussian import DECAY, LatentAverage, drawn, kl_divergence
from stzoo.train.objectives import check
from stzoo.train.processes import Processes
from stzoo.weights import random_module

ALONE = Processes(torch.device("cpu"))
PARAMS = {"width": 16, "residual_layers": 1, "residual_width": 4, "dim": 6}
RECIPE = Recipe(dataset="mmnist", minutes=1, precision="float32", ddr_weight=0.0, kl_weight=0.3)
SPEC = ModelSpec(arch="vae", frames_in=1, frames_out=1, channels=1, height=16, width=24, params=PARAMS)


def small(**changes: Any) -> Any:
    torch.manual_seed(0)
    return build(SPEC.replace(**changes))


def frames(n: int = 3, channels: int = 1) -> Tensor:
    return torch.rand(n, channels, 16, 24, generator=torch.Generator().manual_seed(1))


def conv(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """A convolution as a sum over the places of its kernel."""
    (k, _), s, p = layer.kernel_size, layer.stride[0], layer.padding[0]
    assert isinstance(p, int)
    n, c, h, w = x.shape
    padded = x.new_zeros(n, c, h + 2 * p, w + 2 * p)
    padded[:, :, p : p + h, p : p + w] = x
    rows, columns = (h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1
    total = x.new_zeros(n, layer.out_channels, rows, columns)
    for i in range(k):
        for j in range(k):
            seen = padded[:, :, i : i + s * rows : s, j : j + s * columns : s]
            total += torch.einsum("oc,ncyx->noyx", layer.weight[:, :, i, j], seen)
    return total if layer.bias is None else total + layer.bias.view(-1, 1, 1)


def transposed(x: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """A transposed 4x4 convolution of stride 2: every value of `x` paints a 4x4 patch."""
    n, _, h, w = x.shape
    painted = x.new_zeros(n, layer.out_channels, 2 * h + 2, 2 * w + 2)
    for i in range(4):
        for j in range(4):
            part = torch.einsum("co,ncyx->noyx", layer.weight[:, :, i, j], x)
            painted[:, :, i : i + 2 * h : 2, j : j + 2 * w : 2] += part
    assert layer.bias is not None
    return painted[:, :, 1:-1, 1:-1] + layer.bias.view(-1, 1, 1)


def stack(x: Tensor, layers: nn.Sequential) -> Tensor:
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            x = conv(x, layer)
        elif isinstance(layer, nn.ConvTranspose2d):
            x = transposed(x, layer)
        elif isinstance(layer, nn.ReLU):
            x = torch.where(x > 0, x, 0.0)
        else:  # a residual block
            inner: Any = layer
            hidden = conv(torch.where(x > 0, x, 0.0), inner.spread)
            x = x + conv(torch.where(hidden > 0, hidden, 0.0), inner.merge)
    return x


def test_the_size_beside_vqvae() -> None:
    """VQ-VAE's 2,167,873 without its codebook of 512 x 64, and with a second 1x1 convolution from 256 to 64."""
    module, other = (build(stzoo.info(f"{name}-mmnist").spec, "meta") for name in ("vae", "vqvae"))
    counted = sum(p.numel() for p in module.parameters())
    assert counted == 2_167_873 - 512 * 64 + 256 * 64 + 64 == 2_151_553
    shapes, others = ({n: tuple(p.shape) for n, p in m.named_parameters()} for m in (module, other))
    assert shapes.keys() ^ others.keys() == {"codebook", "log_variance.weight", "log_variance.bias"}
    assert all(shapes[name] == others[name] for name in shapes.keys() & others.keys())


def test_the_loss_in_float64() -> None:
    module, x = small(), frames()
    torch.manual_seed(7)
    found, seen = codec_loss(module, SPEC, RECIPE, x, x.var())
    double, y = small().double(), x.double()
    hidden = stack(y, double.encoder[:-1])
    mean, log_variance = conv(hidden, double.encoder[-1]), conv(hidden, double.log_variance)
    torch.manual_seed(7)
    noise = torch.randn(mean.shape).double()
    painted = stack(mean + torch.sqrt(torch.exp(log_variance)) * noise, double.decoder)
    variance = ((y - y.mean()) ** 2).sum() / (y.numel() - 1)
    kl = 0.0
    for m, v in zip(mean.flatten().tolist(), log_variance.flatten().tolist(), strict=True):
        kl += 0.5 * (m * m + math.exp(v) - 1 - v)
    wanted = ((painted - y) ** 2).sum() / y.numel() / variance + 0.3 * kl / y.numel()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(seen.double(), mean.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module.encode(x), seen)
    torch.testing.assert_close(module(x).double(), stack(mean, double.decoder), rtol=1e-4, atol=1e-5)


def test_the_divergence_is_what_sampling_estimates() -> None:
    """KL(q || p) = E_q[log q - log p], from a hundred thousand draws; it is 0 for a unit Gaussian, and never below."""
    mean, log_variance = torch.tensor([0.7]).view(1, 1, 1, 1), torch.tensor([-1.2]).view(1, 1, 1, 1)
    torch.manual_seed(0)
    z = drawn(mean.expand(1, 1, 1, 100_000), log_variance.expand(1, 1, 1, 100_000))
    q = torch.distributions.Normal(0.7, math.exp(-0.6))
    estimate = (q.log_prob(z) - torch.distributions.Normal(0.0, 1.0).log_prob(z)).mean()
    assert kl_divergence(mean, log_variance).item() == pytest.approx(estimate.item(), rel=0.02)
    zero = torch.zeros(2, 3, 4, 4)
    assert kl_divergence(zero, zero).item() == 0
    assert kl_divergence(zero + 0.01, zero) > 0
    assert kl_divergence(zero, zero - 0.01) > 0


def test_every_parameter_learns() -> None:
    """The gradient of the divergence alone is (mean, (variance - 1) / 2), and all parameters get one of the loss."""
    module, x = small(), frames()
    codec_loss(module, SPEC, RECIPE, x, x.var())[0].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())
    mean, log_variance = (torch.randn(2, 3, 4, 4).requires_grad_() for _ in range(2))
    by_mean, by_log = torch.autograd.grad(kl_divergence(mean, log_variance), (mean, log_variance))
    torch.testing.assert_close(by_mean, mean.detach())
    torch.testing.assert_close(by_log, (log_variance.detach().exp() - 1) / 2)


def test_absurd_variances_stay_finite() -> None:
    module, x = small(), frames()
    with torch.no_grad():
        module.log_variance.bias.fill_(1e6)
    _, log_variance = module.posterior(x)
    assert log_variance.max() == WIDEST
    assert codec_loss(module, SPEC, RECIPE, x, x.var())[0].isfinite()


def test_the_units_are_those_of_the_latents() -> None:
    """Against sums in plain Python: mean by channel, one deviation for all channels, right from the first batch on."""
    module = small()
    average = LatentAverage(module, ALONE)
    generator = torch.Generator().manual_seed(2)
    counts, sums, squares = 0.0, [0.0] * 6, [0.0] * 6
    for t in range(4):
        latents = 3 * t + torch.randn(2, 6, 2, 3, generator=generator) * torch.arange(1, 7).view(6, 1, 1)
        average.update(latents)
        counts = DECAY * counts + 12
        for c in range(6):
            values = latents[:, c].double().flatten().tolist()
            sums[c] = DECAY * sums[c] + sum(values)
            squares[c] = DECAY * squares[c] + sum(v * v for v in values)
        means = [s / counts for s in sums]
        wanted = math.sqrt(sum(q / counts - m * m for q, m in zip(squares, means, strict=True)) / 6)
        assert module.latent_mean.tolist() == pytest.approx(means, rel=1e-5)
        assert module.latent_std.item() == pytest.approx(wanted, rel=1e-5)
        if t == 0:
            unit = (latents - module.units()[0]) / module.units()[1]
            assert unit.mean((0, 2, 3)).abs().max() < 1e-5
            assert unit.square().mean().item() == pytest.approx(1, rel=1e-5)
    again = LatentAverage(other := small(), ALONE)
    again.restore(average.state())
    for each in (average, again):
        each.update(torch.ones(1, 6, 2, 2))
    assert torch.equal(module.latent_mean, other.latent_mean)


def test_what_a_codec_without_codes_does_and_refuses() -> None:
    spec = SPEC.replace(value_range=(0.0, 1.0))
    torch.manual_seed(0)
    codec = Codec(spec, *random_module(spec))
    latents = codec.encode(frames()[None])
    assert latents.shape == (1, 3, 6, 4, 6)
    assert torch.equal(codec.encode(frames()[None]), latents)  # nothing is drawn
    back = codec.reconstruct(frames()[None])
    assert torch.equal(back, codec.decode(latents))
    assert repr(codec).startswith("Codec(vae, 1x16x24 -> 4x6 latents of 6, ")
    for call in (lambda: codec.quantise(latents), lambda: codec.decode(torch.zeros(1, 1, 4, 6, dtype=torch.int64))):
        with pytest.raises(SpecError, match="vae has no codebook: its latents are continuous"):
            call()
    with pytest.raises(FramesError, match=r"\(B, T, 6, h, w\)"):
        codec.decode(torch.zeros(1, 1, 5, 4, 6))
    with torch.no_grad():
        codec.module.encoder[0].weight.fill_(torch.nan)
    with pytest.raises(ForecastError, match="not finite"):
        codec.encode(frames()[None])


def test_specs_that_do_not_fit() -> None:
    with pytest.raises(SpecError, match=r"18x24; this vae needs multiples of 4"):
        small(height=18)
    with pytest.raises(SpecError, match="a codec looks at one frame"):
        small(frames_in=2)
    with pytest.raises(SpecError, match=r"width is 15; it must be even"):
        small(params={"width": 15})


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("l2_weight", 0.5, "forecasters"),
        ("l1_weight", 1.0, "forecasters"),
        ("emphasis", 2.0, "forecasters"),
        ("ddr_weight", 0.5, "forecasters"),
        ("quantity", True, "forecasters"),
        ("reduction", "sum", "forecasters"),
        ("commitment", 0.5, "codecs with a codebook"),
        ("codebook", "loss", "codecs with a codebook"),
        ("codebook_decay", 0.9, "codecs with a codebook"),
    ],
)
def test_a_loss_that_would_not_count_is_refused(setting: str, value: Any, why: str) -> None:
    recipe = dataclasses.replace(RECIPE, **{setting: value})
    with pytest.raises(SpecError, match=rf"recipe\.{setting} is for {why}.*leave it out for vae"):
        check(build(SPEC, "meta"), SPEC, recipe)


@pytest.mark.parametrize("name", ["vqvae-mmnist", "tau-mmnist"])
def test_the_divergence_of_latents_belongs_to_gaussian_ones(name: str) -> None:
    spec, recipe = stzoo.info(name).spec, dataclasses.replace(read_recipe(name), kl_weight=0.1)
    with pytest.raises(SpecError, match=r"recipe\.kl_weight is for codecs with Gaussian latents"):
        check(build(spec, "meta"), spec, recipe)
