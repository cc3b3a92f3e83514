"""The modular design: any predictor of the zoo on a frozen codec's latents."""

from collections import Counter
from typing import Any

import pytest
import torch
from recurrent_modules import SMALL
from torch import Tensor

import stzoo
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.engine.compiling import compiled
from stzoo.errors import SpecError
from stzoo.models import architectures, build, stride_of
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

CODEC = {"arch": "vqvae", "params": {"width": 16, "residual_layers": 1, "residual_width": 4, "codes": 32, "dim": 8}}
VAE = {"arch": "vae", "params": {"width": 16, "residual_layers": 1, "residual_width": 4, "dim": 8}}
CODECS = {"vae": VAE, "vqvae": CODEC}
BLOCKS: dict[str, dict[str, Any]] = {
    "conv": {"hid_s": 8, "hid_t": 16, "n_s": 2, "n_t": 2},
    "simvp": {"hid_s": 8, "hid_t": 16, "n_s": 2, "n_t": 2},
    "tau": {"hid_s": 8, "hid_t": 16, "n_s": 2, "n_t": 2},
    "pfgnet": {"hid_s": 4, "n_s": 2, "n_t": 2},
    "lmc": {"width": 2, "layers": 1, "slots": 8, "pools": 3},
    "predformer": {"dim": 16, "heads": 2, "head_dim": 8, "blocks": 2, "mlp_ratio": 2, "patch": 4},
}
SQUEEZED = {arch: SMALL[arch] | {"sigmoid": False} for arch in ("phydnet", "swinlstm")}  # latents have no range
PREDICTORS = BLOCKS | SMALL | SQUEEZED
each = pytest.mark.parametrize("arch", PREDICTORS)
each_codec = pytest.mark.parametrize("codec", CODECS)


def spec_of(arch: str = "predrnn", channels: int = 2, **changes: Any) -> ModelSpec:
    part = {"arch": arch, "params": PREDICTORS[arch]}
    return ModelSpec(
        arch="modular", frames_in=3, frames_out=2, channels=channels, height=32, width=32,
        params={"codec": CODEC, "predictor": part} | changes,
    )  # fmt: skip


def module_of(spec: ModelSpec) -> Any:
    """Codes spread as latents are, so that quantising neither merges all nor changes little; units are not 0 and 1."""
    torch.manual_seed(0)
    module: Any = build(spec).eval()
    if spec.params["codec"]["arch"] == "vqvae":
        module.codec.codebook.copy_(0.2 * torch.randn(module.codec.codebook.shape))
    else:
        module.codec.latent_mean.normal_()
        module.codec.latent_std.fill_(0.3)
    return module


def clip(frames: int = 3, channels: int = 2) -> Tensor:
    return torch.rand(2, frames, channels, 32, 32, generator=torch.Generator().manual_seed(1))


def test_every_forecaster_of_the_zoo_is_tried_here() -> None:
    forecasters = {name for name, a in architectures().items() if not a.is_codec}
    assert set(PREDICTORS) == forecasters - {"modular"}
    assert set(CODECS) == {name for name, a in architectures().items() if a.is_codec}


@each_codec
@each
def test_any_predictor_fits_any_codec(arch: str, codec: str) -> None:
    model = stzoo.create(spec_of(arch, codec=CODECS[codec]))
    past = clip()
    future = model.predict(past)
    assert future.shape == (2, 2, 2, 32, 32)
    assert torch.equal(model.rollout(past, 5)[:, :2], future)
    assert not any(p.requires_grad for p in model.module.codec.parameters())  # type: ignore[union-attr]
    assert all(p.requires_grad for p in model.module.predictor.parameters())  # type: ignore[union-attr]


@torch.no_grad()
@pytest.mark.parametrize("quantised", [False, True])
def test_what_is_read_is_painted_as_the_codec_would(quantised: bool) -> None:
    kind = "quantised" if quantised else "continuous"
    module, frames = module_of(spec_of(reads=kind, paints="continuous")), clip()
    z = module.codec.encode(frames.flatten(0, 1))
    wanted = module.codec.decode(module.codec.quantise(z)[0] if quantised else z)
    painted = torch.stack([module.paint(latents) for latents in module.read(frames).unbind(1)], 1)
    torch.testing.assert_close(painted.flatten(0, 1), wanted, rtol=0, atol=1e-5)
    late = module_of(spec_of(reads="continuous", paints=kind))  # quantised on the way out instead
    painted = torch.stack([late.paint(latents) for latents in late.read(frames).unbind(1)], 1)
    torch.testing.assert_close(painted.flatten(0, 1), wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_predictor_meets_the_codebook_at_unit_scale() -> None:
    module = module_of(spec_of(reads="quantised"))
    module.codec.codebook.mul_(7).add_(3)
    mean, std = module.codec.units()
    codes = (module.codec.codebook.t()[:, :, None] - mean) / std
    assert codes.mean(1).abs().max() < 1e-5
    assert codes.square().mean().item() == pytest.approx(1, abs=1e-4)


@torch.no_grad()
def test_without_a_codebook_the_measured_units_count() -> None:
    module = module_of(spec_of(codec=VAE))
    latents = module.codec.encode(clip().flatten(0, 1))
    read = module.read(clip()).flatten(0, 1)
    torch.testing.assert_close(0.3 * read + module.codec.latent_mean[:, None, None], latents, rtol=0, atol=1e-5)
    torch.testing.assert_close(module.paint(read), module.codec.decode(latents), rtol=0, atol=1e-5)


@each
@torch.no_grad()
def test_a_rollout_stays_among_latents(arch: str) -> None:
    """The past is encoded once, a frame is decoded when it is asked for, and what is fed back was never a frame."""
    spec = spec_of(arch)
    module, calls = module_of(spec), Counter[str]()
    module.codec.encoder.register_forward_hook(lambda m, inputs, out: calls.update(encoded=len(inputs[0])))
    module.codec.decoder.register_forward_hook(lambda m, inputs, out: calls.update(decoded=len(inputs[0])))
    frames = unroll(module, spec, clip())
    for t in range(1, 8):
        next(frames)
        assert calls == {"encoded": 2 * 3, "decoded": 2 * t}
    latents = unroll(module.predictor, module.predictor_spec, module.read(clip()), 8)
    wanted = [module.paint(z) for z in latents]
    for found, frame in zip(unroll(module, spec, clip(), 8), wanted, strict=True):
        assert torch.equal(found, frame)


def test_compiling_reaches_every_part() -> None:
    """Without running a compiler: what `unroll` drives is the module's own functions, wrapped."""
    module = module_of(spec_of())
    fast = compiled(module, spec_of())
    assert fast.predictor_spec == module.predictor_spec
    assert set(vars(fast)) == {"predictor", "predictor_spec", "read", "paint"}
    assert hasattr(fast.predictor, "step")


def test_training_mode_is_the_predictors() -> None:
    module = module_of(spec_of("tau"))
    module.train()
    assert module.predictor.training
    assert not any(m.training for m in module.codec.modules())
    module.eval()
    assert not module.predictor.training


@pytest.mark.parametrize("changes", [{"reads": "quantised"}, {"codec": VAE}], ids=["vqvae", "vae"])
def test_the_whole_is_saved_and_loaded(changes: dict[str, Any], tmp_path: Any) -> None:
    model = stzoo.create(spec_of("tctn", **changes))
    if "codec" in changes:
        model.module.codec.latent_std.fill_(0.3)  # type: ignore[union-attr]
    model.save_pretrained(tmp_path)
    again = stzoo.load(tmp_path)
    assert again.spec == model.spec
    assert torch.equal(again.predict(clip()), model.predict(clip()))
    assert not any(p.requires_grad for p in again.module.codec.parameters())  # type: ignore[union-attr]


def test_parameters_beside_the_papers() -> None:
    """4 ST-LSTM layers of 64 (5x5 gates, no biases) and a 1x1; the paper prints 6.60 M + 2.17 M."""
    module: Any = build(stzoo.info("predrnn-modular-mmnist").spec, "meta")
    layer = 25 * 64 * 64 * (7 + 4 + 3 + 2) + 2 * 64 * 64
    assert sum(p.numel() for p in module.predictor.parameters()) == 4 * layer + 64 * 64 == 6_590_464
    assert sum(p.numel() for p in module.codec.parameters()) == 2_167_873


def test_the_large_one_has_the_papers_parameters() -> None:
    module = build(stzoo.info("predrnn-large-mmnist").spec, "meta")
    assert sum(p.numel() for p in module.parameters()) / 1e6 == pytest.approx(27.79, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predictor": {"arch": "predrnn", "channels": 32}}, r"predictor\.channels is 32; the codec's latents have 8"),
        ({"predictor": {"arch": "vqvae"}}, r"params\.predictor\.arch is 'vqvae'; it may be conv, convlstm"),
        ({"predictor": {"arch": "modular"}}, r"params\.predictor\.arch is 'modular'"),
        ({"predictor": {"arch": "predrnn", "channels": 10**5000}}, r"predictor\.channels is a number of absurd size"),
        ({"codec": {"arch": "tau"}}, r"params\.codec\.arch is 'tau'; it may be vae, vqvae"),
        ({"codec": VAE, "reads": "quantised"}, r"params\.reads is 'quantised', but vae has no codebook; set it to"),
        ({"codec": VAE, "paints": "quantised"}, r"params\.paints is 'quantised', but vae has no codebook; set it to"),
        ({"codec": VAE | {"params": {"codes": 8}}}, r"in the codec: spec\.params\.codes is not a known key"),
        ({"codec": {"arch": "vqvae", "params": {"dims": 8}}}, r"in the codec: spec\.params\.dims is not a known key"),
        ({"predictor": {"arch": "tctn", "params": {"hidden": 7}}}, r"in the predictor: spec\.params\.hidden is 7"),
        ({"predictor": {"arch": "predrnn", "params": {"patch": 3}}}, r"in the predictor: .*patch is 3.* 8x8"),
        ({"reads": "pixels"}, r"params\.reads is 'pixels'; it may be 'continuous' or 'quantised'"),
        ({"predictor": {}}, r"params\.predictor\.arch is missing"),
        ({"predictor": 3}, r"params\.predictor must be a mapping"),
    ],
)
def test_parts_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(spec_of(**changes), "meta")


@pytest.mark.parametrize("arch", ["predrnn", "tau"])
def test_sizes_that_do_not_fit(arch: str) -> None:
    with pytest.raises(SpecError, match=r"30x32.*multiples of 4"):
        build(spec_of(arch).replace(height=30), "meta")
    model = stzoo.create(spec_of(arch))
    assert stride_of(model.module) == 4 * {"predrnn": 4, "tau": 2}[arch]
    assert model.predict(torch.rand(3, 2, 32, 36)).shape == (2, 2, 32, 36)


def test_digits_are_forecast_as_uint8() -> None:
    clips = MovingDigits(drawn_digits(), 0, 4, 3, 2).clips(0, 1)
    model = stzoo.create(spec_of(channels=1).replace(height=64, width=64))
    assert model.predict(clips.past).dtype == torch.uint8
