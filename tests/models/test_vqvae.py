"""VQ-VAE against slow float64 transcriptions, its published size, and how its codebook follows latents."""

from typing import Any

import pytest
import torch
from torch import Tensor

import stzoo
from stzoo.codec import usage
from stzoo.errors import SpecError
from stzoo.models import build
from stzoo.models.vqvae import VqVae
from stzoo.spec import ModelSpec
from stzoo.train import Recipe
from stzoo.train.codebook import REVIVED_BELOW, CodebookAverage, straight_through
from stzoo.train.codecs import codec_loss
from stzoo.train.processes import Processes

ALONE = Processes(torch.device("cpu"))

SMALL = {"width": 16, "residual_width": 4, "codes": 12, "dim": 6}
RECIPE = {"dataset": "mmnist", "minutes": 1, "precision": "float32", "ddr_weight": 0.0}
SPEC = ModelSpec(arch="vqvae", frames_in=1, frames_out=1, channels=1, height=16, width=16, params=SMALL)


def small(channels: int = 1, size: int = 16, **params: Any) -> VqVae:
    torch.manual_seed(0)
    spec = ModelSpec(
        arch="vqvae", frames_in=1, frames_out=1, channels=channels, height=size, width=size, params=SMALL | params
    )
    module: Any = build(spec)
    with torch.no_grad():  # codes among the latents, so that many are used
        latents = module.encode(torch.rand(8, channels, size, size))
        spread = latents.std((0, 2, 3)) * torch.randn(module.codebook.shape)
        module.codebook.copy_(latents.mean((0, 2, 3)) + spread)
    return module


def recipe(**changes: Any) -> Recipe:
    return Recipe(**(RECIPE | changes))  # type: ignore[arg-type]


def frames(n: int = 3, channels: int = 1, size: int = 16) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1))


def naive_nearest(latents: Tensor, codebook: Tensor) -> Tensor:
    """argmin_k |z - e_k|^2, one latent after another, in float64."""
    latents, codebook = latents.double(), codebook.double()
    n, _, h, w = latents.shape
    found = torch.empty(n, h, w, dtype=torch.int64)
    for b in range(n):
        for y in range(h):
            for x in range(w):
                found[b, y, x] = min(
                    range(len(codebook)), key=lambda k: sum((latents[b, :, y, x] - codebook[k]) ** 2).item()
                )
    return found


def test_the_published_size() -> None:
    module = build(stzoo.info("vqvae-mmnist").spec, "meta")
    assert sum(p.numel() for p in module.parameters()) == 2_167_873


@pytest.mark.parametrize(("channels", "size"), [(1, 64), (3, 128), (2, 20)])
def test_any_channels_and_any_multiple_of_the_stride(channels: int, size: int) -> None:
    module = small(channels, size)
    x = frames(2, channels, size)
    latents = module.encode(x)
    assert latents.shape == (2, 6, size // 4, size // 4)
    assert module(x).shape == x.shape


def test_other_sizes_are_refused() -> None:
    with pytest.raises(SpecError, match=r"18x16; this vqvae needs multiples of 4"):
        build(stzoo.info("vqvae-mmnist").spec.replace(height=18, width=16), "meta")


def test_each_latent_goes_to_its_nearest_code() -> None:
    module = small()
    latents = module.encode(frames()).detach()
    quantised, codes = module.quantise(latents)
    wanted = naive_nearest(latents, module.codebook.detach())
    assert torch.equal(codes, wanted)
    assert len(codes.unique()) > 3
    assert torch.equal(quantised, module.codebook.detach()[wanted].permute(0, 3, 1, 2))


def test_the_gradient_goes_straight_through() -> None:
    """d f(z_q) / d z is f's gradient at z_q, as it is; none of it reaches the codebook."""
    module = small()
    latents = module.encode(frames()).detach().requires_grad_()
    quantised, _ = module.quantise(latents)
    passed = straight_through(latents, quantised)
    torch.testing.assert_close(passed, quantised)
    there = quantised.detach().clone().requires_grad_()
    (at_code,) = torch.autograd.grad(module.decode(there).sin().sum(), there)
    module.decode(passed).sin().sum().backward()
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, at_code)
    assert module.codebook.grad is None


@pytest.mark.parametrize("codebook", ["ema", "loss"])
def test_the_loss_in_float64(codebook: str) -> None:
    module, x = small(), frames()
    found, latents, codes = codec_loss(module, SPEC, recipe(codebook=codebook, commitment=0.3), x, x.var())
    double: Any = small().double()
    z = double.encode(x.double())
    q = double.codebook[naive_nearest(z, double.codebook)].permute(0, 3, 1, 2)
    n = x.numel()
    variance = ((x.double() - x.double().mean()) ** 2).sum() / (n - 1)
    wanted = ((double.decode(q) - x.double()) ** 2).sum() / n / variance
    wanted = wanted + (0.3 + (codebook == "loss")) * ((z - q) ** 2).sum() / z.numel()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(latents.double(), z.detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(codes, naive_nearest(z, double.codebook))


def test_what_each_term_moves() -> None:
    """The codebook's term moves codes towards the mean of their latents, and only the codebook."""
    module, x = small(), frames()
    plain, _, _ = codec_loss(module, SPEC, recipe(codebook="ema", commitment=0.0), x, x.var())
    plain.backward()
    encoder = [p.grad.clone() for p in module.encoder.parameters() if p.grad is not None]
    assert module.codebook.grad is None
    module.zero_grad()
    with_codes, latents, codes = codec_loss(module, SPEC, recipe(codebook="loss", commitment=0.0), x, x.var())
    with_codes.backward()
    for before, p in zip(encoder, module.encoder.parameters(), strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, before)
    assert module.codebook.grad is not None
    points = latents.movedim(1, -1).flatten(0, -2)
    for k in range(12):
        mine = points[codes.flatten() == k]
        wanted = 2 * (module.codebook[k].detach() - mine).sum(0) / latents.numel()
        torch.testing.assert_close(module.codebook.grad[k], wanted, rtol=1e-4, atol=1e-7)


def test_the_codebook_is_a_running_mean_of_its_latents() -> None:
    """Against sums kept in float64, code by code; no code is dead."""
    module = small(codes=4, dim=3)
    average = CodebookAverage(module, recipe(codebook_decay=0.8), ALONE)
    assert not module.codebook.requires_grad
    generator = torch.Generator().manual_seed(2)
    counts, sums = [0.0] * 4, [torch.zeros(3, dtype=torch.float64) for _ in range(4)]
    for _ in range(5):
        latents = torch.randn(2, 3, 4, 4, generator=generator)
        codes = torch.arange(32).view(2, 4, 4) % 4
        average.update(latents, codes)
        points = latents.double().movedim(1, -1).flatten(0, -2)
        for k in range(4):
            mine = points[codes.flatten() == k]
            counts[k] = 0.8 * counts[k] + 0.2 * len(mine)
            sums[k] = 0.8 * sums[k] + 0.2 * mine.sum(0)
    for k in range(4):
        torch.testing.assert_close(module.codebook[k].double(), sums[k] / counts[k], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("codebook", ["ema", "loss"])
def test_dead_codes_are_revived_where_latents_are(codebook: str) -> None:
    module = small(codes=4, dim=3)
    average = CodebookAverage(module, recipe(codebook=codebook, codebook_decay=0.5), ALONE)
    latents = torch.randn(2, 3, 4, 4)
    average.update(latents, torch.arange(32).view(2, 4, 4) % 4)  # all alive now
    book = module.codebook.detach().clone()
    for _ in range(20):  # only codes 0 and 1 are met: the others fall below the threshold in the end
        average.update(latents, torch.arange(32).view(2, 4, 4) % 2)
    points = latents.movedim(1, -1).flatten(0, -2)
    revived = [k for k in range(4) if any(torch.equal(module.codebook[k], p) for p in points)]
    assert revived == [2, 3]
    assert all(average.counts > REVIVED_BELOW)
    if codebook == "loss":  # the optimiser moves the rest
        assert torch.equal(module.codebook[:2], book[:2])


def test_a_codebook_starts_from_the_first_batch() -> None:
    module = small()
    average = CodebookAverage(module, recipe(), ALONE)
    latents = 5 + torch.randn(4, 6, 4, 4)
    average.update(latents, module.nearest(latents))
    assert module.codebook.mean() > 4


def test_a_codec_average_is_resumed_exactly() -> None:
    one, other = small(), small()
    first, second = CodebookAverage(one, recipe(), ALONE), CodebookAverage(other, recipe(), ALONE)
    latents = torch.randn(2, 6, 4, 4)
    torch.manual_seed(3)
    first.update(latents, one.nearest(latents))
    other.load_state_dict(one.state_dict())
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    for module, average in ((one, first), (other, second)):
        torch.manual_seed(4)
        average.update(latents, module.nearest(latents))
    assert torch.equal(one.codebook, other.codebook)


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [([5, 5, 5, 5], (4, 4.0)), ([7, 0, 0, 0], (1, 1.0)), ([1, 1, 0, 0], (2, 2.0)), ([3, 1], (2, 4 / 3**0.75))],
)
def test_usage(counts: list[int], wanted: tuple[int, float]) -> None:
    used, perplexity = usage(torch.tensor(counts))
    assert used == wanted[0]
    assert perplexity == pytest.approx(wanted[1])
