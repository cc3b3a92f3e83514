"""From a checkpoint to one's own clips, in Python and in one command."""

import dataclasses
import json
import signal
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import stzoo
from stzoo.cli import main
from stzoo.data import Reading, own_clips
from stzoo.errors import DataError, SpecError, TrainingError
from stzoo.forecaster import Forecaster
from stzoo.opening import create
from stzoo.spec import ModelSpec
from stzoo.train import fine_tune, read_recipe, train
from stzoo.train.clips import endless
from stzoo.train.run import Run
from stzoo.unroll import unroll
from stzoo.weights import Origin

SPEC = ModelSpec(
    arch="tau", frames_in=3, frames_out=3, channels=1, height=16, width=16,
    params={"hid_s": 4, "hid_t": 16, "n_s": 2, "n_t": 2, "mlp_ratio": 2},
)  # fmt: skip
RECIPE = dataclasses.replace(
    read_recipe("fine-tune"), batch=4, lr=5e-3, fused=False, precision="float32", validate_every=20, validation_clips=20
)


@pytest.fixture
def model() -> Forecaster:
    torch.manual_seed(0)
    return create(SPEC)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three recordings of a bright bar that walks to the right, one column a frame."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for k in range(3):
        columns = (np.arange(16)[None] - np.arange(40)[:, None] - 5 * k) % 16
        np.save(folder / f"{k}.npy", np.repeat(((columns < 4) * 200).astype(np.uint8)[:, None], 16, 1))
    return folder


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_it_learns_the_clips_and_leaves_the_model_as_it_was(model: Forecaster, clips: Path, tmp_path: Path) -> None:
    before = {n: t.clone() for n, t in model.module.state_dict().items()}
    tuned = fine_tune(model, clips, steps=60, out=tmp_path / "run", recipe=RECIPE, progress=False)
    errors = [r["validation_mse"] for r in log(tmp_path / "run") if "validation_mse" in r]
    assert len(errors) == 4  # the untouched model first
    assert min(errors) < errors[0] * 0.5
    assert all(torch.equal(t, before[n]) for n, t in model.module.state_dict().items())
    test = own_clips.open_folder(clips, Reading.of(SPEC)).split("test", 3, 3).clips(0, 5)
    wrong = [(m.predict(test.past).float() - test.future.float()).square().mean().item() for m in (model, tuned)]
    assert wrong[1] < wrong[0] * 0.5
    assert torch.equal(stzoo.load(tmp_path / "run" / "best").predict(test.past), tuned.predict(test.past))


def test_with_a_horizon_it_is_validated_at_the_length_of_the_rollout(
    model: Forecaster, clips: Path, tmp_path: Path
) -> None:
    """Twelve frames ahead are four blocks of three."""
    tuned = fine_tune(model, clips, steps=20, horizon=12, out=tmp_path / "run", recipe=RECIPE, progress=False)
    held_out = own_clips.open_folder(clips, Reading.of(SPEC)).split("validation", 3, 12)
    clip = held_out.clips(0, min(20, len(held_out)))
    past, truth = (x.float() / 255 for x in (clip.past, clip.future))
    errors = [r["validation_mse"] for r in log(tmp_path / "run") if "validation_mse" in r]
    for forecaster, found in ((model, errors[0]), (tuned, min(errors))):
        with torch.no_grad():  # not clipped to the range of values
            made = torch.stack(list(unroll(forecaster.module, SPEC, past, 12)), 1)
        assert (made - truth).square().sum((2, 3, 4)).mean().item() == pytest.approx(found, rel=1e-3)
    with pytest.raises(SpecError, match=r"recipe\.horizon is 2000"):
        fine_tune(model, clips, steps=1, horizon=2000, progress=False)
    with pytest.raises(DataError, match="no recording has 103 frames"):
        fine_tune(model, clips, steps=1, horizon=100, progress=False)


def test_with_blend_the_weights_lie_between_the_two_models(model: Forecaster, clips: Path, tmp_path: Path) -> None:
    """Training itself is the same: what is kept is a quarter of the way, by float64, and that is what was validated."""
    begun = fine_tune(model, clips, steps=20, recipe=RECIPE, progress=False)
    whole = fine_tune(begun, clips, steps=20, recipe=RECIPE, progress=False).module.state_dict()
    part = fine_tune(begun, clips, steps=20, blend=0.25, out=tmp_path / "run", recipe=RECIPE, progress=False)
    for name, start in begun.module.state_dict().items():
        found = part.module.state_dict()[name]
        if start.is_floating_point():
            wanted = 0.75 * start.double() + 0.25 * whole[name].double()
            torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(found, whole[name])
    held_out = own_clips.open_folder(clips, Reading.of(SPEC)).split("validation", 3, 3)
    clip = held_out.clips(0, min(20, len(held_out)))
    past, truth = (x.float() / 255 for x in (clip.past, clip.future))
    with torch.no_grad():
        made = torch.stack(list(unroll(part.module, SPEC, past, 3)), 1)
    error = (made - truth).square().sum((2, 3, 4)).mean().item()
    assert error == pytest.approx(log(tmp_path / "run")[-1]["validation_mse"], rel=1e-3)
    for share in (0, 1.5):
        with pytest.raises(SpecError, match=r"recipe\.blend is"):
            fine_tune(begun, clips, steps=1, blend=share, progress=False)
    weights = tmp_path / "run" / "best" / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="the weights of step 20 take its place"):
        fine_tune(begun, clips, steps=20, blend=0.25, out=tmp_path / "run", recipe=RECIPE, progress=False)
    assert weights.read_bytes() == kept


def test_blend_needs_trained_weights_to_begin_from(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapted = stzoo.load("tau-mmnist", adapt={"frames_in": 5})
    with pytest.raises(SpecError, match=r"of these, translator\.\S+ begins anew; leave blend out"):
        fine_tune(adapted, clips, steps=1, blend=0.5, progress=False)
    with pytest.raises(SpecError, match="these are random; leave blend out"):
        fine_tune(create(SPEC), clips, steps=1, blend=0.5, progress=False)
    dataset = own_clips.open_folder(clips, Reading.of(SPEC))
    training, held_out = (dataset.split(part, 3, 3) for part in ("train", "validation"))
    recipe = dataclasses.replace(RECIPE, blend=0.5)
    with pytest.raises(SpecError, match=r"recipe\.blend is for fine-tuning"):
        train(SPEC, recipe, training, held_out, tmp_path / "run", steps=1, progress=False)
    copy = tmp_path / "copy.toml"
    copy.write_text((files("stzoo.train") / "recipes" / "tau-mmnist.toml").read_text() + "blend = 0.5\n")
    run = ["train", "tau-mmnist", "--recipe", str(copy), "--dataset", "clips", "--data", str(clips)]
    assert main([*run, "--out", str(tmp_path / "run")]) == 2
    assert "recipe.blend is for fine-tuning" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_was_tuned_does_not_call_itself_random(model: Forecaster, clips: Path, tmp_path: Path) -> None:
    tuned = fine_tune(model, clips, steps=1, recipe=RECIPE, progress=False)
    tuned.save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "Fine-tuned weights of the architecture tau" in card
    assert "andom weights" not in card


def test_what_was_tuned_says_who_published_the_weights_that_it_began_with(
    model: Forecaster, clips: Path, tmp_path: Path
) -> None:
    origin = Origin(name="tau-x.openstl-ep1", publisher="OpenSTL", url="https://example.org/x.pth", sha256="0" * 64)
    model.report = dataclasses.replace(model.report, origin=origin)
    tuned = fine_tune(model, clips, steps=1, out=tmp_path / "run", recipe=RECIPE, progress=False)
    for found in (tuned, stzoo.load(tmp_path / "run" / "best")):
        assert found.report.origin == dataclasses.replace(origin, changed=True)
    tuned.save_pretrained(tmp_path / "saved")
    assert "OpenSTL" in (tmp_path / "saved" / "README.md").read_text()
    (tmp_path / "run" / "best" / "config.json").unlink()  # which is mended when the run is looked at again
    fine_tune(model, clips, steps=1, out=tmp_path / "run", recipe=RECIPE, progress=False)
    assert stzoo.load(tmp_path / "run" / "best").report.origin == dataclasses.replace(origin, changed=True)


def test_a_folder_is_not_tuned_by_one_command_and_trained_from_scratch_by_another(
    model: Forecaster, clips: Path, tmp_path: Path
) -> None:
    fine_tune(model, clips, steps=2, out=tmp_path / "run", recipe=RECIPE, progress=False)
    parts = [own_clips.open_folder(clips, Reading.of(SPEC)).split(part, 3, 3) for part in ("train", "validation")]
    shown = endless(parts[0], SPEC, RECIPE.flips, RECIPE.seed, "cpu")
    with pytest.raises(TrainingError, match="holds a run with other weights to begin from"):
        train(SPEC, RECIPE, shown, parts[1], tmp_path / "run", steps=2, device="cpu", progress=False)


def test_what_an_interruption_saved_in_a_temporary_folder_is_there_to_go_on_from(
    model: Forecaster, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    advance = Run.advance

    def interrupted(self: Run, total: int) -> torch.Tensor:
        if self.step == 2:
            signal.raise_signal(signal.SIGINT)
        return advance(self, total)

    with pytest.raises(SpecError, match="nothing is left to learn"):
        fine_tune(model, clips, steps=1, recipe=RECIPE, freeze=["encoder", "translator", "decoder"], progress=False)
    assert not list((tmp_path / "temporary").iterdir())
    monkeypatch.setattr(Run, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(model, clips, steps=5, recipe=RECIPE, progress=False)
    monkeypatch.setattr(Run, "advance", advance)
    (left,) = (tmp_path / "temporary").iterdir()
    fine_tune(model, clips, steps=5, out=left, recipe=RECIPE, progress=False)
    assert log(left)[-1]["step"] == 5
    fine_tune(model, clips, steps=1, recipe=RECIPE, progress=False)
    assert list((tmp_path / "temporary").iterdir()) == [left]


def test_where_it_only_gets_worse_the_untouched_weights_come_back(model: Forecaster, clips: Path) -> None:
    tuned = fine_tune(model, clips, steps=60, recipe=RECIPE, progress=False)
    harmful = dataclasses.replace(RECIPE, lr=0.3, muon_lr=0.3, clip=0.0, warmup=0.0, schedule="cosine")
    try:
        again = fine_tune(tuned, clips, steps=20, recipe=harmful, progress=False)
    except TrainingError:
        pytest.skip("it diverged, which is an error of its own")
    state = tuned.module.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in again.module.state_dict().items())


def test_a_frozen_part_stays_and_a_wrong_name_is_told(model: Forecaster, clips: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tuned = fine_tune(model, clips, steps=20, out=run, recipe=RECIPE, freeze=["encoder"], progress=False)
    state = tuned.module.state_dict()
    changed = {n.split(".")[0] for n, t in model.module.state_dict().items() if not torch.equal(t, state[n])}
    assert changed == {"translator", "decoder"}
    with pytest.raises(SpecError, match="freeze names 'encodr', .* the parts are encoder, translator, decoder"):
        fine_tune(model, clips, steps=1, recipe=RECIPE, freeze=["encodr"], progress=False)
    with pytest.raises(SpecError, match="nothing is left to learn"):
        fine_tune(model, clips, steps=1, recipe=RECIPE, freeze=["encoder", "translator", "decoder"], progress=False)


def test_an_interrupted_run_goes_on_and_another_start_is_refused(
    model: Forecaster, clips: Path, tmp_path: Path
) -> None:
    whole = fine_tune(model, clips, steps=40, out=tmp_path / "whole", recipe=RECIPE, progress=False)
    recipe = dataclasses.replace(RECIPE, validate_every=10)
    fine_tune(model, clips, steps=40, out=tmp_path / "again", recipe=recipe, progress=False)
    with pytest.raises(TrainingError, match="holds a run with other weights to begin from"):
        fine_tune(whole, clips, steps=40, out=tmp_path / "again", recipe=recipe, progress=False)
    count = len(log(tmp_path / "again"))
    fine_tune(model, clips, steps=40, out=tmp_path / "again", recipe=recipe, progress=False)  # was finished
    assert len(log(tmp_path / "again")) == count


def test_one_command_adapts_tunes_and_leaves_a_folder(
    model: Forecaster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save_pretrained(tmp_path / "model")
    colour = tmp_path / "colour"
    colour.mkdir()
    rng = np.random.default_rng(0)
    for k in range(3):
        np.save(colour / f"{k}.npy", rng.integers(0, 255, (20, 3, 16, 16), dtype=np.uint8))
    recipe = tmp_path / "quick.toml"
    recipe.write_text('dataset = "clips"\nminutes = 1\nbatch = 2\nvalidate_every = 2\nprecision = "float32"\n')
    start = ["train", "--from", str(tmp_path / "model"), "--data", str(colour), "--recipe", str(recipe)]
    run = tmp_path / "mine"
    assert (
        main(
            [
                *start,
                "--out",
                str(run),
                "--channels",
                "3",
                "--freeze",
                "encoder.layers.1",
                "--steps",
                "4",
                "--horizon",
                "5",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "averaged over channels" in out
    assert f"stzoo evaluate {run / 'best'} --dataset clips --data {colour} --steps 5" in out
    mine = stzoo.load(run / "best")
    assert mine.predict(rng.integers(0, 255, (3, 3, 16, 16), dtype=np.uint8)).shape == (3, 3, 16, 16)
    frozen = load_file(tmp_path / "model" / "model.safetensors")["encoder.layers.1.conv.weight"]
    assert torch.equal(mine.module.state_dict()["encoder.layers.1.conv.weight"], frozen)
    assert main(["evaluate", str(run / "best"), "--data", str(colour), "--steps", "7", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["protocol"], len(report["steps"]["mse"])) == ("clips-3-7", 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name an entry to train from scratch, or a checkpoint to go on from with --from"),
        (["tau-mmnist", "--from", "tau-mmnist"], "not both"),
        (["tau-mmnist", "--freeze", "encoder"], "are for --from"),
        (["tau-mmnist", "--blend", "0.5"], "are for --from"),
        (["--from", "tau-mmnist", "--blend", "2"], "recipe.blend is 2.0"),
        (["--from", "tau-mmnist", "--codec", "x"], "--from brings its own codec"),
        (["--from", "tau-mmnist", "--every", "0"], "--every is 0"),
        (["--from", "tau-mmnist", "--horizon", "0"], "--horizon is 0; it must be positive"),
        (["--from", "tau-mmnist", "--download", "https://x"], "--download fetches MNIST's files"),
        (["tau-ut", "--dataset", "ut"], "holds no set1 or set2"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], message: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *options, "--data", str(clips), "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_clips_that_are_too_short_or_empty_are_refused(model: Forecaster, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no video"):
        fine_tune(model, tmp_path / "none", progress=False)
    np.save(tmp_path / "none" / "short.npy", np.zeros((6, 16, 16), np.uint8))
    with pytest.raises(
        DataError, match=r"no recording has 6 frames; .* the train part of .*short\.npy, split by time, has 5"
    ):
        fine_tune(model, tmp_path / "none", progress=False)


def test_statistics_below_a_frozen_part_stay_too(model: Forecaster, clips: Path) -> None:
    tuned = fine_tune(model, clips, steps=20, recipe=RECIPE, freeze=["translator"], progress=False)
    state = tuned.module.state_dict()
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, state[name]) == name.startswith("translator"), name
    assert "fine-tuned weights" in repr(tuned)  # the folder they came from is gone


def test_other_clips_are_another_run(model: Forecaster, clips: Path, tmp_path: Path) -> None:
    fine_tune(model, clips, steps=2, out=tmp_path / "run", recipe=RECIPE, progress=False)
    first = clips / "0.npy"
    np.save(first, 255 - np.load(first))
    with pytest.raises(TrainingError, match="holds a run with other clips"):
        fine_tune(model, clips, steps=2, out=tmp_path / "run", recipe=RECIPE, progress=False)


def test_what_begins_anew_lets_a_run_go_on(model: Forecaster, clips: Path, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    for _ in range(2):
        adapted = stzoo.load(tmp_path / "model", adapt={"frames_in": 2})
        assert adapted.report.adapted
        fine_tune(adapted, clips, steps=2, out=tmp_path / "run", recipe=RECIPE, progress=False)


def test_a_modular_model_brings_its_codec(tmp_path: Path) -> None:
    part = {"arch": "vqvae", "params": {"width": 8, "residual_layers": 1, "residual_width": 4, "codes": 16, "dim": 4}}
    predictor = {"arch": "convlstm", "params": {"layers": 1, "hidden": 4, "kernel": 3, "patch": 1}}
    spec = SPEC.replace(arch="modular")
    spec = ModelSpec.from_dict(spec.to_dict() | {"params": {"codec": part, "predictor": predictor}})
    model = create(spec)
    np.save(tmp_path / "clip.npy", np.random.default_rng(0).integers(0, 256, (80, 16, 16), dtype=np.uint8))
    tuned = fine_tune(model, tmp_path / "clip.npy", steps=4, recipe=RECIPE, progress=False)
    before, after = model.module.state_dict(), tuned.module.state_dict()
    assert all(torch.equal(after[n], before[n]) for n in before if n.startswith("codec."))
