"""A codec, then a predictor on its latents: trained, cached, packed and loaded, with digits drawn here."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stzoo
from stzoo import catalog
from stzoo.codec import Codec
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.errors import IntegrityError, MismatchError, SpecError, TrainingError
from stzoo.hub import file_sha256
from stzoo.release import enter_run as entering
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, train
from stzoo.train.assignment import Assignment, weights_digest
from stzoo.train.codebook import CodebookAverage
from stzoo.train.objectives import sampled
from stzoo.train.processes import Processes
from stzoo.train.run import Run
from stzoo.unroll import unroll
from stzoo.weights import save_folder

ALONE = Processes(torch.device("cpu"))

CODEC = {"width": 16, "residual_layers": 1, "residual_width": 4, "codes": 32, "dim": 8}
VQVAE = ModelSpec(arch="vqvae", frames_in=1, frames_out=1, channels=1, height=64, width=64, params=CODEC)
MODULAR = ModelSpec(
    arch="modular", frames_in=3, frames_out=3, channels=1, height=64, width=64,
    params={
        "codec": {"arch": "vqvae", "params": CODEC},
        "predictor": {"arch": "convlstm", "params": {"layers": 1, "hidden": 8, "kernel": 3, "patch": 1}},
    },
)  # fmt: skip
BASE = Recipe(
    dataset="mmnist", minutes=1, batch=4, ddr_weight=0.0, precision="float32", validate_every=10, validation_clips=4,
    lr=2e-3, ema=0.9,
)  # fmt: skip
SCHEDULED = dataclasses.replace(BASE, sampling="scheduled")


def clips(seed: int, length: int = 3) -> MovingDigits:
    return MovingDigits(drawn_digits(), seed, 1 << 20, length, length)


def trained(spec: ModelSpec, recipe: Recipe, out: Path, steps: int, codec: Codec | None = None) -> Path:
    data = clips(1, spec.frames_in), clips(2, spec.frames_in)
    return train(spec, recipe, *data, out, steps=steps, device="cpu", progress=False, codec=codec)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a codec."""
    folder = tmp_path_factory.mktemp("codec")
    trained(VQVAE, BASE, folder, 150)
    return folder


@pytest.fixture(scope="module")
def codec(run: Path) -> Codec:
    return stzoo.load_codec(run / "best")


def test_a_codec_learns_and_its_codes_are_counted(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    rows = [r for r in rows if "validation_mse" in r]
    assert rows[-1]["validation_mse"] < 0.6 * rows[0]["validation_mse"]
    assert 2 < rows[-1]["perplexity"] <= rows[-1]["codes_used"] <= 32
    assert len(list((run / "samples").iterdir())) == 15


@pytest.mark.parametrize("codebook", ["ema", "loss"])
def test_training_a_codec_resumes_exactly(codebook: Any, tmp_path: Path) -> None:
    recipe = dataclasses.replace(BASE, codebook=codebook, codebook_decay=0.1, validate_every=4)  # codes die all along
    training = clips(1, 1)

    class Stop(Exception):
        pass

    class Interrupted:
        def __len__(self) -> int:
            return len(training)

        def clips(self, start: int, stop: int) -> Any:
            if start >= 6 * recipe.batch:
                raise Stop
            return training.clips(start, stop)

    trained(VQVAE, recipe, tmp_path / "whole", 8)
    with pytest.raises(Stop):
        train(
            VQVAE, recipe, Interrupted(), clips(2, 1), tmp_path / "parts", steps=8, device="cpu", progress=False
        )  # fmt: skip
    trained(VQVAE, recipe, tmp_path / "parts", 8)
    one, other = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["module"] for name in ("whole", "parts")
    )
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_codec_of_colour_frames_at_128_pixels_trains() -> None:
    spec = VQVAE.replace(channels=3, height=128, width=128)

    class Noise:
        def __len__(self) -> int:
            return 100

        def clips(self, start: int, stop: int) -> Any:
            from stzoo.data import Clip

            frames = torch.rand(stop - start, 2, 3, 128, 128, generator=torch.Generator().manual_seed(start))
            return Clip(frames[:, :1], frames[:, 1:])

    run = Run(Assignment(spec, dataclasses.replace(BASE, batch=1), Noise()), ALONE)
    losses = [run.advance(10).item() for _ in range(10)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_codec_is_as_it_was_after_training(precision: Any, codec: Codec, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in codec.module.state_dict().items()}
    recipe = dataclasses.replace(SCHEDULED, precision=precision, weight_decay=0.1)
    best = trained(MODULAR, recipe, tmp_path, 12, codec)
    after: Any = stzoo.load(best).module
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["module"]
    for name, tensor in before.items():
        assert torch.equal(after.codec.state_dict()[name], tensor)
        assert torch.equal(checkpoint["codec." + name], tensor)
        assert torch.equal(codec.module.state_dict()[name], tensor)
    torch.manual_seed(recipe.seed)  # what the run began with
    start = stzoo.create(MODULAR).module.predictor.state_dict()  # type: ignore[union-attr, operator]
    assert not any(torch.equal(after.predictor.state_dict()[name], t) for name, t in start.items() if t.std() > 0)


def test_a_predictor_learns_among_latents(codec: Codec, tmp_path: Path) -> None:
    trained(MODULAR, dataclasses.replace(SCHEDULED, lr=1e-2), tmp_path, 100, codec)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]


def test_a_block_predictor_is_trained_through_the_same_loop(codec: Codec, tmp_path: Path) -> None:
    tau = {"arch": "tau", "params": {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2}}
    best = trained(MODULAR.replace(predictor=tau), dataclasses.replace(BASE, ddr_weight=0.1), tmp_path, 4, codec)
    assert stzoo.load(best).predict(np.zeros((3, 64, 64), np.uint8)).shape == (3, 64, 64)


def test_a_modular_run_needs_its_codec(codec: Codec, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="latents of a trained codec; pass one as `codec`"):
        trained(MODULAR, SCHEDULED, tmp_path, 1)
    other = MODULAR.replace(codec={"arch": "vqvae", "params": CODEC | {"dim": 4}})
    with pytest.raises(
        SpecError, match=r"that the spec describes: it has params VqVaeConfig\(.*dim=8,.*\) for VqVae.*dim=4,.*\)"
    ):
        trained(other, SCHEDULED, tmp_path, 1, codec)
    with pytest.raises(SpecError, match=r"that the spec describes: it has channels 1 for 2"):
        trained(MODULAR.replace(channels=2), SCHEDULED, tmp_path, 1, codec)
    with pytest.raises(SpecError, match=r"mean \[0\.0\] for \[0\.5\], std \[1\.0\] for \[0\.5\]"):
        trained(MODULAR.replace(mean=(0.5,), std=(0.5,)), SCHEDULED, tmp_path, 1, codec)
    with pytest.raises(SpecError, match="architecture vqvae takes no codec"):
        trained(VQVAE, BASE, tmp_path, 1, codec)


def test_a_run_goes_on_with_the_codec_it_began_with(codec: Codec, tmp_path: Path) -> None:
    trained(MODULAR, SCHEDULED, tmp_path / "run", 2, codec)
    other = stzoo.load_codec(trained(VQVAE, BASE, tmp_path / "other", 2))
    with pytest.raises(TrainingError, match="holds a run with another codec"):
        trained(MODULAR, SCHEDULED, tmp_path / "run", 2, other)


def test_cached_latents_train_as_encoded_ones(codec: Codec, tmp_path: Path) -> None:
    """The first six clips over and over, each encoded once; the disk keeps them in float16."""
    training, seen = clips(1), []

    class Repeated:
        def __len__(self) -> int:
            return len(training)

        def clips(self, start: int, stop: int) -> Any:
            from stzoo.data import Clip

            several = [training.clips(i % 6, i % 6 + 1) for i in range(start, stop)]
            return Clip(torch.cat([c.past for c in several]), torch.cat([c.future for c in several]))

    class Watched:
        def __len__(self) -> int:
            return len(training)

        def clips(self, start: int, stop: int) -> Any:
            seen.extend(range(start, stop))
            return training.clips(start, stop)

    cached = dataclasses.replace(SCHEDULED, cached_clips=6)
    data = clips(2)
    plain = train(
        MODULAR, SCHEDULED, Repeated(), data, tmp_path / "a", steps=10, device="cpu", progress=False, codec=codec
    )  # fmt: skip
    kept = train(
        MODULAR, cached, Watched(), data, tmp_path / "b", steps=10, device="cpu", progress=False, codec=codec
    )  # fmt: skip
    # once each; the first also to know whose latents, of what shape, and with one far away which clips these are
    assert sorted(seen) == [0, 0, 0, 0, 1, 2, 3, 4, 5, len(training) // 2]
    one, other = (stzoo.load(folder).module.state_dict() for folder in (plain, kept))
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=0.02, atol=0.01)


def test_a_cache_holds_what_the_run_would_read(codec: Codec, tmp_path: Path) -> None:
    recipe = dataclasses.replace(SCHEDULED, cached_clips=11)
    run = Run(Assignment(MODULAR, recipe, clips(1), codec=codec), ALONE, tmp_path)
    cache = run.batches.cache
    assert cache is not None
    for _ in range(2):  # encoded, then read from the disk
        found = cache.clips(9, 14)  # over the end: clips 9, 10, 0, 1, 2
        wanted = [
            torch.cat(x) for x in zip(*(run.batches.shown(clips(1).clips(*r)) for r in ((9, 11), (0, 3))), strict=True)
        ]
        for one, other in zip(found, wanted, strict=True):
            assert one.shape == other.shape
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert not torch.equal(found[0], found[1])


def test_another_codec_has_a_cache_of_its_own(codec: Codec, tmp_path: Path) -> None:
    recipe = dataclasses.replace(SCHEDULED, cached_clips=3)
    changed = stzoo.load_codec(codec.report.source.removesuffix("/model.safetensors"))
    with torch.no_grad():
        changed.module.codebook.add_(1)
    caches = []
    for one in (codec, changed, codec):
        run = Run(Assignment(MODULAR, recipe, clips(1), codec=one), ALONE, tmp_path)
        cache = run.batches.cache
        assert cache is not None
        caches.append((cache.folder, cache.clips(0, 3)[0]))
    assert caches[0][0] == caches[2][0] != caches[1][0]
    assert torch.equal(caches[0][1], caches[2][1])
    assert not torch.equal(caches[0][1], caches[1][1])
    assert weights_digest(codec.module.state_dict()) != weights_digest(changed.module.state_dict())


def test_a_codec_without_a_file_is_pinned_as_well(codec: Codec, tmp_path: Path) -> None:
    alone = Codec(codec.spec, codec.module, dataclasses.replace(codec.report, sha256=None))
    trained(MODULAR, SCHEDULED, tmp_path, 2, alone)
    trained(MODULAR, SCHEDULED, tmp_path, 2, codec)  # the same tensors
    plan = json.loads((tmp_path / "plan.json").read_text())
    del plan["codec"], plan["sha256"]  # as an early version wrote it
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(TrainingError, match="holds a run with another codec"):
        trained(MODULAR, SCHEDULED, tmp_path, 2, codec)


def test_all_steps_at_once_run_compiled(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    tctn = {"arch": "tctn", "params": {"layers": 1, "hidden": 8, "heads": 2, "patch": 1}}
    recipe = dataclasses.replace(BASE, sampling="parallel", compile=True)
    run = Run(Assignment(MODULAR.replace(predictor=tctn), recipe, clips(1), codec=codec), ALONE)
    assert run.advance(10).isfinite()


def test_latents_that_are_no_numbers_leave_the_report_to_the_loop(run: Path) -> None:
    module: Any = stzoo.load_codec(run / "best").module
    average = CodebookAverage(module, BASE, ALONE)
    latents = torch.full((1, 8, 16, 16), torch.nan)
    average.update(latents, module.nearest(latents))  # codes are dead, and none can be drawn


def test_the_decoded_error_is_that_of_painted_frames(codec: Codec) -> None:
    """By hand: the predictor's forecasts of the future, and the true latents, go through the codec's own decoder."""
    recipe = dataclasses.replace(BASE, decoded_weight=0.7)
    run = Run(Assignment(MODULAR, recipe, clips(1), codec=codec), ALONE)
    clip = run.batches.batch(0, 4)
    before = {name: tensor.clone() for name, tensor in run.module.codec.state_dict().items()}
    mean, std = codec.module.units()
    with torch.no_grad():
        forecast = torch.stack(list(unroll(run.part, run.part_spec, clip.past, 3)), 1)
        between_latents = (forecast - clip.future).square().mean()
        painted, wanted = (codec.module.decode(x.flatten(0, 1) * std + mean) for x in (forecast, clip.future))
        between_frames = (painted - wanted).square().mean()
    loss, _ = run._backward(clip, 0.5)
    assert loss.item() == pytest.approx((between_latents + 0.7 * between_frames).item(), rel=1e-4)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in run.part.parameters())
    assert all(p.grad is None for p in run.module.codec.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.module.codec.state_dict().items())


def test_the_decoded_error_is_taken_over_the_future(codec: Codec) -> None:
    """With true frames shown the past is forecast too, and only its latents count."""
    losses = []
    for weight in (0.0, 1.0):
        recipe = dataclasses.replace(SCHEDULED, decoded_weight=weight)
        run = Run(Assignment(MODULAR, recipe, clips(1), codec=codec), ALONE)
        losses.append(run._backward(run.batches.batch(0, 4), 0.0)[0].item())
    clip, (mean, std) = run.batches.batch(0, 4), codec.module.units()
    frames = torch.cat([clip.past, clip.future], 1)
    with torch.no_grad():
        shown = torch.ones(5, 4, dtype=torch.bool)
        forecast = torch.stack([f for f, _ in sampled(run.part, frames, shown)], 1)[:, -3:]
        painted, wanted = (codec.module.decode(x.flatten(0, 1) * std + mean) for x in (forecast, clip.future))
    assert losses[1] - losses[0] == pytest.approx((painted - wanted).square().mean().item(), rel=1e-3)


def test_the_decoded_error_may_be_the_only_one(codec: Codec) -> None:
    recipe = dataclasses.replace(BASE, decoded_weight=2.0, l2_weight=0.0)
    run = Run(Assignment(MODULAR, recipe, clips(1), codec=codec), ALONE)
    clip, (mean, std) = run.batches.batch(0, 4), codec.module.units()
    with torch.no_grad():
        forecast = torch.stack(list(unroll(run.part, run.part_spec, clip.past, 3)), 1)
        painted, wanted = (codec.module.decode(x.flatten(0, 1) * std + mean) for x in (forecast, clip.future))
    loss, _ = run._backward(clip, 0.5)
    assert loss.item() == pytest.approx(2 * (painted - wanted).square().mean().item(), rel=1e-4)
    with pytest.raises(SpecError, match=r"recipe\.decoded_weight, or nothing is learnt"):
        dataclasses.replace(BASE, l2_weight=0.0)


def test_only_a_modular_model_has_a_decoder(codec: Codec, tmp_path: Path) -> None:
    recipe = dataclasses.replace(BASE, decoded_weight=1.0)
    plain = ModelSpec.from_dict(MODULAR.to_dict() | {"arch": "convlstm", "params": {"layers": 1, "hidden": 8}})
    with pytest.raises(SpecError, match="decoded_weight is for modular"):
        trained(plain, recipe, tmp_path / "a", 1)
    with pytest.raises(SpecError, match="decoded_weight needs spec.params.paints = 'continuous'"):
        trained(MODULAR.replace(paints="quantised"), recipe, tmp_path / "b", 1, codec)


def test_caching_is_for_modular_models(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cached_clips is for modular"):
        trained(VQVAE, dataclasses.replace(BASE, cached_clips=5), tmp_path, 1)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A manifest with a codec's and a modular entry, both without weights, and an empty folder of checkpoints."""
    texts = {"summary": "s", "unsuited": "u", "license": "l", "data_terms": "t", "citation": "c"}
    common = texts | {"dataset": "mmnist", "weights": None}
    models = {
        "small-codec": common | {"spec": VQVAE.to_dict(), "kind": "codec"},
        "small-modular": common | {"spec": MODULAR.to_dict(), "codec": {"entry": "small-codec"}},
    }
    manifest = tmp_path / "weights_manifest.json"
    manifest.write_text(json.dumps({"schema": 1, "models": models}))
    monkeypatch.setattr(catalog, "manifest_path", lambda: manifest)
    monkeypatch.setattr(catalog, "CHECKPOINTS", tmp_path / "checkpoints")
    catalog.entries.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    catalog.entries.cache_clear()


def packed(name: str, run: Path, length: int) -> Any:
    data = dataclasses.replace(clips(3, length), count=6)
    return entering.enter_run(
        name, run, [entering.Measurement("p", data, "stzoo", f"stzoo evaluate {name}")], "a machine"
    )[0]


def test_a_codec_is_stored_once_and_pinned(run: Path, codec: Codec, checkout: Path, tmp_path: Path) -> None:
    report = packed("small-codec", run, 1)
    metrics = stzoo.info("small-codec").metrics[0]
    assert (metrics.codes_used, metrics.persistence_mse) == (report.codes_used, None)
    assert "codes in use, perplexity" in str(stzoo.info("small-codec"))
    stored = stzoo.load_codec("small-codec")

    trained(MODULAR, SCHEDULED, tmp_path / "elsewhere", 2, codec)  # in float32, which the stored file is not
    with pytest.raises(TrainingError, match="another codec than the weights of small-codec"):
        packed("small-modular", tmp_path / "elsewhere", 3)

    best = trained(MODULAR, SCHEDULED, tmp_path / "run", 4, stored)
    packed("small-modular", tmp_path / "run", 3)
    entry = stzoo.info("small-modular")
    assert entry.codec is not None
    assert entry.codec.sha256 == file_sha256(checkout / "checkpoints" / "small-codec.safetensors")
    assert "codec         small-codec" in str(entry)
    alone = checkout / "checkpoints" / "small-modular.safetensors"
    with pytest.raises(MismatchError, match=r"missing: codec\..*a predictor alone.*load it by its name"):
        stzoo.load(alone)

    packed("small-codec", run, 1)  # the very same weights are measured again
    assert entry.codec.sha256 == file_sha256(checkout / "checkpoints" / "small-codec.safetensors")
    shutil.copytree(run, tmp_path / "other")
    other = stzoo.load_codec(run / "best")
    with torch.no_grad():
        next(other.module.parameters()).add_(0.5)
    save_folder(tmp_path / "other" / "best", other.spec, other.module.state_dict())
    with pytest.raises(TrainingError, match="small-modular need the codec that small-codec has now; not packed"):
        packed("small-codec", tmp_path / "other", 1)

    frames = clips(5).clips(0, 1).past
    loaded, whole = stzoo.load("small-modular"), stzoo.load(best)
    torch.testing.assert_close(loaded.predict(frames), whole.predict(frames), rtol=0, atol=2)
    loaded.save_pretrained(tmp_path / "saved")  # holds the codec too
    assert torch.equal(stzoo.load(tmp_path / "saved").predict(frames), loaded.predict(frames))

    manifest = json.loads((checkout / "weights_manifest.json").read_text())
    wrong = manifest["models"]["small-modular"]["codec"]["sha256"][::-1]
    manifest["models"]["small-modular"]["codec"]["sha256"] = wrong
    (checkout / "weights_manifest.json").write_text(json.dumps(manifest))
    catalog.entries.cache_clear()
    found = file_sha256(checkout / "checkpoints" / "small-codec.safetensors")
    with pytest.raises(IntegrityError, match=rf"small-modular .* codec small-codec with sha256 {wrong}.*{found}"):
        stzoo.load("small-modular")
