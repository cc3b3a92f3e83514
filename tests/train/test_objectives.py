"""What recurrent models are trained on: every frame counts, every parameter learns, and bfloat16 stays finite."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import stzoo.train
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.errors import SpecError
from stzoo.models import architectures, build
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, train
from stzoo.train.assignment import Assignment
from stzoo.train.denormals import denormals_flushed
from stzoo.train.losses import moment_error
from stzoo.train.objectives import check, objective, sampled
from stzoo.train.processes import Processes
from stzoo.train.recipe import read_recipe
from stzoo.train.run import Run
from stzoo.train.sampling import draw_shown

ALONE = Processes(torch.device("cpu"))

PARAMS: dict[str, dict[str, Any]] = {
    "convlstm": {"layers": 2, "hidden": 8, "kernel": 3, "patch": 8},
    "convttlstm": {"hidden": [4, 4], "layers": 1, "order": 2, "steps": 2, "ranks": 2, "kernel": 3, "patch": 8},
    "predrnn": {"layers": 2, "hidden": 8, "kernel": 3, "patch": 8, "decouple": True, "layer_norm": True},
    "predrnnpp": {"layers": 2, "hidden": 8, "kernel": 3, "patch": 8},
    "mim": {"layers": 2, "hidden": 8, "kernel": 3, "patch": 8},
    "e3dlstm": {"layers": 2, "hidden": 8, "kernel": 3, "patch": 8, "history": 4},
    "phydnet": {"width": 16, "lstm": [8], "kernel": 3},
    "mau": {"layers": 2, "hidden": 4, "kernel": 3, "shrink": 8, "tau": 2},
    "prednet": {"widths": [8, 12]},
    "crevnet": {"blocks": [1, 1, 1], "layers": 1},
    "swinlstm": {"dim": 8, "down": [2], "up": [1], "heads": [2], "window": 2, "patch": 8, "drop_path": 0.0},
    "tctn": {"layers": 2, "hidden": 8, "heads": 2, "window": 4, "patch": 8},
}
BASE = Recipe(dataset="mmnist", minutes=1, batch=2, ddr_weight=0.0, sampling="scheduled", precision="float32")
EXTRAS: dict[str, dict[str, Any]] = {
    "predrnn": {"sampling": "reverse", "decouple_weight": 0.1},
    "e3dlstm": {"l1_weight": 1.0},
    "prednet": {"sampling": "true"},
    "phydnet": {"sampling": "teacher", "moment_weight": 0.0526},
}
each = pytest.mark.parametrize("arch", PARAMS)


def recipe_of(arch: str, **changes: Any) -> Recipe:
    return dataclasses.replace(BASE, **EXTRAS.get(arch, {}) | changes)


def spec_of(arch: str) -> ModelSpec:
    return ModelSpec(
        arch=arch, frames_in=3, frames_out=3, channels=1, height=64, width=64, params=PARAMS[arch]
    )  # fmt: skip


RECIPES = Path(stzoo.train.__file__).parent / "recipes"


def clips(seed: int = 0) -> tuple[Tensor, Tensor]:
    clip = MovingDigits(drawn_digits(), seed, 1 << 20, 3, 3).clips(0, 2)
    return clip.past.float() / 255, clip.future.float() / 255


@pytest.mark.parametrize("name", stzoo.list_models())
def test_every_entry_has_a_recipe_that_fits_it(name: str) -> None:
    entry = stzoo.info(name)
    if entry.weights is not None and not (RECIPES / f"{name}.toml").is_file():
        pytest.skip("added with weights that were trained elsewhere")
    recipe = read_recipe(name)
    assert recipe.dataset == entry.dataset
    check(build(entry.spec, "meta"), entry.spec, recipe)


def test_every_sequential_architecture_is_here() -> None:
    assert {name for name, a in architectures().items() if a.kind == "sequential"} == set(PARAMS)


@each
@pytest.mark.parametrize("sampling", [None, "none"])
def test_a_gradient_reaches_every_parameter(arch: str, sampling: str | None) -> None:
    torch.manual_seed(0)
    module = build(spec_of(arch))
    with torch.no_grad():
        for p in module.parameters():  # no gate starts as zero here, where gradients of others would vanish
            p.add_(0.05 * torch.randn_like(p))
    changes: dict[str, Any] = {} if sampling is None else {"sampling": sampling, "decouple_weight": 0.0}
    recipe = recipe_of(arch, **changes)
    objective(module, module, spec_of(arch), recipe, *clips(), 0.9).backward()
    idle = {"adapter.weight"} if sampling and arch == "predrnn" else set()
    found = {n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert found == idle
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


@each
def test_the_loss_is_taken_over_every_frame_but_the_first(arch: str) -> None:
    """With all true frames shown, by hand: forecasts one step ahead, their mean squared error, and the extra terms."""
    torch.manual_seed(0)
    module = build(spec_of(arch)).double()
    past, future = (x.double() for x in clips())
    plain = recipe_of(arch, sampling="scheduled", decouple_weight=0.0, l1_weight=0.0, moment_weight=0.0)
    frames = torch.cat([past, future], 1)
    state = module.initial_state(2, (64, 64), frames.device, frames.dtype)  # type: ignore[operator]
    errors, magnitudes = [], []
    for t in range(5):
        forecast, state = module.step(frames[:, t], state)  # type: ignore[operator]
        errors.append((forecast - frames[:, t + 1]).square().mean().item())
        magnitudes.append((forecast - frames[:, t + 1]).abs().mean().item())
    found = objective(module, module, spec_of(arch), plain, past, future, 0.0).item()
    assert found == pytest.approx(sum(errors) / 5, rel=1e-5)
    if arch == "e3dlstm":
        weighted = dataclasses.replace(plain, l1_weight=0.7)
        more = objective(module, module, spec_of(arch), weighted, past, future, 0.0).item()
        assert more - found == pytest.approx(0.7 * sum(magnitudes) / 5, rel=1e-4)
        alone = dataclasses.replace(weighted, sampling="true", l2_weight=0.0)
        found = objective(module, module, spec_of(arch), alone, past, future, 0.9).item()
        assert found == pytest.approx(0.7 * sum(magnitudes) / 5, rel=1e-4)
    if arch == "phydnet":
        weighted = dataclasses.replace(plain, moment_weight=0.7)
        more = objective(module, module, spec_of(arch), weighted, past, future, 0.0).item()
        kernels = module.physical.derivatives.weight  # type: ignore[union-attr]
        assert more - found == pytest.approx(0.7 * moment_error(kernels).item(), rel=1e-4)  # type: ignore[arg-type]


def test_truth_is_withdrawn_as_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of the sampling period that has passed, at steps of a run of 100 whose period is 40."""
    asked = []

    def spy(sampling: Any, done: float, *rest: Any) -> Tensor:
        asked.append(done)
        return draw_shown(sampling, done, *rest)

    monkeypatch.setattr("stzoo.train.objectives.draw_shown", spy)
    recipe = recipe_of("convlstm", sampling_share=0.4)
    clips = MovingDigits(drawn_digits(), 1, 1 << 20, 3, 3)
    run = Run(Assignment(spec_of("convlstm"), recipe, clips), ALONE)
    for step in (0, 10, 39, 80):
        run.step = step
        run.advance(100)
    assert asked == pytest.approx([0.0, 0.25, 0.975, 2.0])


def test_decoupling_is_the_mean_over_layers_and_steps() -> None:
    torch.manual_seed(0)
    spec = spec_of("predrnn")
    module: Any = build(spec)
    past, future = clips()
    with torch.no_grad():
        recipes = [recipe_of("predrnn", sampling="scheduled", decouple_weight=w) for w in (0.0, 1.0)]
        plain, weighted = (objective(module, module, spec, r, past, future, 0.0) for r in recipes)
        cosines = []
        for _, state in sampled(module, torch.cat([past, future], 1), torch.ones(5, 2, dtype=torch.bool)):
            for to_c, to_m in state.increments:
                a, b = (torch.einsum("oi,bihw->bohw", module.adapter.weight[:, :, 0, 0], x) for x in (to_c, to_m))
                dot = (a * b).sum((2, 3)) / (a.square().sum((2, 3)).sqrt() * b.square().sum((2, 3)).sqrt())
                cosines.append(dot.abs().mean().item())
    assert len(cosines) == 5 * 2
    assert (weighted - plain).item() == pytest.approx(sum(cosines) / 10, rel=1e-4)


@pytest.mark.slow
@each
def test_60_steps_in_bfloat16_stay_finite_and_learn(arch: str) -> None:
    recipe = recipe_of(arch, precision="bfloat16", lr=3e-3, ema=0.9)
    spec = spec_of(arch).replace(frames_in=2, frames_out=2)
    training = MovingDigits(drawn_digits(), 1, 1 << 20, 2, 2)
    run = Run(Assignment(spec, recipe, training), ALONE)
    with denormals_flushed():
        losses = [run.advance(60).item() for _ in range(60)]
    assert all(math.isfinite(x) for x in losses)
    run.check_finite()
    assert all(t.isfinite().all() for t in run.ema.module.state_dict().values())
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])


def test_a_recurrent_model_trains_and_resumes_exactly(tmp_path: Path) -> None:
    """Scheduled sampling draws from the random state that a checkpoint keeps."""
    spec, recipe = spec_of("convlstm"), recipe_of("convlstm", validate_every=4, validation_clips=2)
    data = [MovingDigits(drawn_digits(), seed, 1 << 20, 3, 3) for seed in (1, 2)]
    whole = train(spec, recipe, *data, tmp_path / "whole", steps=8, device="cpu", progress=False)
    training = data[0]

    class Stop(Exception):
        pass

    class Interrupted:
        def __len__(self) -> int:
            return len(training)

        def clips(self, start: int, stop: int) -> Any:
            if start >= 6 * recipe.batch:
                raise Stop
            return training.clips(start, stop)

    with pytest.raises(Stop):
        train(spec, recipe, Interrupted(), data[1], tmp_path / "parts", steps=8, device="cpu", progress=False)
    parts = train(spec, recipe, *data, tmp_path / "parts", steps=8, device="cpu", progress=False)
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        ("tau", {"sampling": "scheduled"}, r"recipe\.sampling is 'scheduled'"),
        ("convlstm", {"decouple_weight": 0.1}, r"recipe\.decouple_weight needs a predrnn whose spec\.params\.decouple"),
        ("predrnn", {"decouple_weight": 0.1, "sampling": "none"}, r"recipe\.decouple_weight needs recipe\.sampling"),
        ("predrnn", {"decouple_weight": 0.0}, r"spec\.params\.decouple is true"),
        ("convlstm", {"moment_weight": 0.1}, r"recipe\.moment_weight is for phydnet"),
        ("vqvae", {"sampling": "none", "compile": True}, r"recipe\.compile is for forecasters"),
        ("vqvae", {"sampling": "none", "horizon": 5}, r"recipe\.horizon is for forecasters"),
        ("vqvae", {"sampling": "none", "freeze": ("encoder", "codebook")}, r"recipe\.freeze names the codebook"),
        ("modular", {"emphasis": 0.1}, r"recipe\.emphasis weighs large values of frames"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(spec: str, changes: dict[str, Any], message: str) -> None:
    tau = ModelSpec(
        arch="tau", frames_in=3, frames_out=3, channels=1, height=64, width=64,
        params={"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2},
    )  # fmt: skip
    others = {"tau": tau, **{n: stzoo.info(f"{n}-mmnist").spec for n in ("vqvae", "tctn-modular")}}
    asked = others.get("tctn-modular" if spec == "modular" else spec) or spec_of(spec)
    with pytest.raises(SpecError, match=message):
        check(build(asked, "meta"), asked, dataclasses.replace(BASE, **changes))


def test_what_has_learnt_may_be_trained_further_without_its_own_loss() -> None:
    """PredRNN-V2's adapter and LMC-Memory's memory, by the recipe for fine-tuning."""
    lmc = stzoo.info("lmc-mmnist").spec
    for spec, loss in ((spec_of("predrnn"), "decouple_weight"), (lmc, "memory_weight")):
        recipe = read_recipe("fine-tune")
        with pytest.raises(SpecError, match=f"without recipe.{loss} .* would never learn"):
            check(build(spec, "meta"), spec, recipe)
        check(build(spec, "meta"), spec, recipe, learnt=True)
