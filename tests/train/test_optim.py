"""Optimisers take the parameters that they are for, and rates and averages are those of their formulas."""

import pytest
import torch
from torch import Tensor, nn

import stzoo
from stzoo.models import build
from stzoo.spec import ModelSpec
from stzoo.train import muon
from stzoo.train.muon import Muon, orthogonalised
from stzoo.train.optim import SCHEDULES, averaged, cosine, one_cycle, optimizers
from stzoo.train.recipe import Recipe


@pytest.mark.parametrize("steps", [10, 1000])
def test_one_cycle_is_torchs(steps: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps)
    for step in range(steps):
        assert one_cycle(step, steps, 0.3) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6, abs=1e-9)
        optimizer.step()
        if step < steps - 1:
            theirs.step()


def test_cosine_rises_then_falls_to_nothing() -> None:
    factors = [cosine(s, 100, 0.1) for s in range(100)]
    assert factors[0] < 0.1
    assert max(factors) == pytest.approx(1)
    assert factors.index(max(factors)) == 10
    assert factors[-1] < 1e-3
    assert factors[10:] == sorted(factors[10:], reverse=True)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_runs_have_a_schedule_too(name: str, steps: int) -> None:
    assert all(0 <= SCHEDULES[name](s, steps, 0.3) <= 1 for s in range(steps))


@pytest.mark.parametrize("shape", [(2, 16, 16), (1, 64, 16), (3, 16, 48)])
def test_orthogonalised_matrices_keep_their_directions(shape: tuple[int, int, int]) -> None:
    """All singular values come near 1, and the singular vectors stay: U S V' becomes about U V'."""
    torch.manual_seed(0)
    x = torch.randn(shape)
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    inside = u.mT @ orthogonalised(x) @ vh.mT
    assert inside.diagonal(dim1=1, dim2=2).sub(1).abs().max() < 0.45
    assert (inside - torch.diag_embed(inside.diagonal(dim1=1, dim2=2))).abs().max() < 0.1


def newton_schulz(x: Tensor) -> Tensor:
    """Jordan's iteration, word for word, of one matrix, in its own dtype."""
    if x.shape[0] > x.shape[1]:
        return newton_schulz(x.T).T
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


@pytest.mark.parametrize("shape", [(16, 16), (16, 24), (16, 32), (32, 288), (48, 20)])
@pytest.mark.parametrize("smallest", [1.0, 1e-2, 1e-5, 0.0])
def test_few_products_of_full_size_come_to_the_same(shape: tuple[int, int], smallest: float) -> None:
    """However the singular values are spread: in float32 up to rounding, in bfloat16 as near as the plain iteration."""
    torch.manual_seed(0)
    n = min(shape)
    u, _, vh = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    values = smallest ** torch.linspace(0, 1, n, dtype=torch.float64) if smallest else torch.ones(n).double()
    if not smallest:
        values[1:] = 0  # of rank 1
    x = u * values @ vh
    expected = newton_schulz(x / x.norm())

    def distance(found: Tensor) -> float:
        return ((found.double() - expected).norm() / expected.norm()).item()

    assert distance(orthogonalised(x[None])[0]) < 1e-10
    assert distance(orthogonalised(x[None].float())[0]) < 1e-4
    plain = newton_schulz((x / x.norm()).bfloat16())
    assert distance(orthogonalised(x[None].float(), torch.bfloat16)[0]) < max(0.1, 1.5 * distance(plain))


def test_muon_imitates_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine has no instructions for it, an update is that of float32; elsewhere that of bfloat16."""
    torch.manual_seed(0)
    gradient = torch.randn(32, 64)
    for has, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(muon, "multiplies_in_bfloat16", lambda device, has=has: has)
        weight = nn.Parameter(torch.zeros(32, 64))
        weight.grad = gradient.clone()
        Muon([weight], lr=1.0, momentum=0.0).step()
        assert torch.equal(weight.detach(), -0.2 * 8 * orthogonalised(gradient[None], dtype)[0])


def test_muon_steps_have_the_size_it_says() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 32, 3)
    before = conv.weight.detach().clone()
    conv.weight.grad = torch.randn_like(conv.weight) * 1e-6
    Muon([conv.weight], lr=0.1).step()
    assert (conv.weight.detach() - before).square().mean().sqrt().item() == pytest.approx(0.02, rel=0.25)


def test_muon_takes_matrices_and_leaves_the_rest() -> None:
    net = nn.Sequential(
        nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 5, groups=32), nn.Conv2d(32, 8, 1), nn.BatchNorm2d(8), nn.Linear(64, 64)
    )
    recipe = Recipe(dataset="mmnist", minutes=1, optimizer="muon")
    adamw, muon = optimizers(net, recipe)
    assert {id(p) for g in muon.param_groups for p in g["params"]} == {id(net[0].weight), id(net[4].weight)}
    taken = [p for o in (adamw, muon) for g in o.param_groups for p in g["params"]]
    assert sorted(map(id, taken)) == sorted(map(id, net.parameters()))
    assert all(p.squeeze().ndim >= 2 for p in adamw.param_groups[0]["params"])
    assert adamw.param_groups[1]["weight_decay"] == 0


def test_muon_takes_the_3d_convolutions_of_crevnet() -> None:
    module = build(stzoo.info("crevnet-mmnist").spec, "meta")
    _, muon = optimizers(module, Recipe(dataset="mmnist", minutes=1, optimizer="muon"))
    wide = [m.weight for m in module.modules() if isinstance(m, nn.Conv3d) and min(m.weight.shape[:2]) >= 32]
    assert wide
    assert {id(p) for p in wide} <= {id(p) for group in muon.param_groups for p in group["params"]}


def test_averages_forget_the_start_and_follow_batch_norm() -> None:
    net = nn.BatchNorm1d(1)
    ema = averaged(net, 0.9)
    for value in range(1, 51):
        with torch.no_grad():
            net.weight.fill_(value)
            net.running_mean.fill_(value)
            net.num_batches_tracked.fill_(value)
        ema.update_parameters(net)
    expected = torch.tensor(0.0)
    for value in range(1, 51):
        decay = 0.0 if value == 1 else min(0.9, value / (9 + value))
        expected = expected * decay + value * (1 - decay)
    assert ema.module.weight.item() == pytest.approx(expected.item(), rel=1e-5)
    assert ema.module.running_mean.item() == pytest.approx(expected.item(), rel=1e-5)
    assert ema.module.num_batches_tracked.item() == 50


def test_weights_for_every_place_are_no_matrices() -> None:
    """Peepholes and affine norms over planes have the shape of matrices, but mix nothing: AdamW's, without decay."""
    size = {"frames_in": 3, "frames_out": 3, "channels": 1, "height": 64, "width": 64}
    recipe = Recipe(dataset="mmnist", minutes=1, optimizer="muon", weight_decay=0.1)
    for arch, names in (("mim", ("peep_if", "peep_o")), ("e3dlstm", ("norm.weight", "norm.bias"))):
        module = build(ModelSpec(arch=arch, params={"hidden": 32, "layers": 2}, **size))
        adamw, muon = optimizers(module, recipe)
        plain = adamw.param_groups[1]["params"]
        for name, p in module.named_parameters():
            if name.endswith(names):
                assert any(p is q for q in plain), name
            elif name.split(".")[-2] in ("x", "h", "m"):
                assert any(p is q for q in muon.param_groups[0]["params"]), name
