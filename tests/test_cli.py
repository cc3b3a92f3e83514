import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stzoo
from stzoo import catalog
from stzoo.cli import main
from stzoo.data import mmnist as digits_room
from stzoo.data.digits import drawn_digits
from stzoo.forecaster import Forecaster
from stzoo.frames.images import read_images


def test_list_and_info_speak_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "tau-*", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"tau-mmnist", "tau-mmnist-paper"} <= {r["name"] for r in rows}
    assert main(["list", "tau-ut"]) == 0
    assert "UT-Interaction, research use" in capsys.readouterr().out
    assert main(["info", "tau-mmnist-paper", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spec"]["params"]["hid_t"] == 512
    assert main(["info", "tau-mmnist-paper"]) == 0
    assert "stzoo train tau-mmnist-paper" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["info", "tau-mnist"], "did you mean tau-mmnist"),
        (["predict", "nothing.gif", "--model", "tau-mmnist", "-o", "x.gif"], "nothing.gif"),
        (["rollout", "x", "--model", "tau-mmnist", "--steps", "3", "-o", "x.mkv"], "cannot write x.mkv"),
        (["evaluate", "tau-mmnist-paper", "--mnist", "nowhere"], "no published weights"),
        (["train", "tau-mmnist", "--mnist", "nowhere", "--out", "x"], "nowhere does not exist"),
        (["train", "tau-mmnist", "--mnist", "nowhere", "--out", "x", "--steps", "-1"], "must be positive"),
        (["train", "tau-mmnist", "--mnist", "nowhere", "--out", "x", "--minutes", "nan"], "must be positive"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    command: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("stzoo: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_rollout_reads_and_writes_animations(
    forecaster: Forecaster, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    first, *rest = [Image.fromarray(f) for f in frames]
    first.save(tmp_path / "in.png", save_all=True, append_images=rest)
    model = ["--model", str(tmp_path / "model")]
    assert main(["rollout", str(tmp_path / "in.png"), *model, "--steps", "7", "-o", str(tmp_path / "out.png")]) == 0
    assert "7 frames" in capsys.readouterr().out
    written = np.stack([np.asarray(i) for i in read_images(tmp_path / "out.png")])
    np.testing.assert_array_equal(written, forecaster.rollout(frames, 7))
    assert main(["predict", str(tmp_path / "in.png"), *model, "-o", str(tmp_path / "folder")]) == 0
    assert len(list((tmp_path / "folder").iterdir())) == 4


def test_steps_of_zero_and_files_in_the_way_are_refused(
    forecaster: Forecaster, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    first, *rest = [Image.fromarray(f) for f in frames]
    first.save(tmp_path / "in.png", save_all=True, append_images=rest)
    start = ["rollout", str(tmp_path / "in.png"), "--model", str(tmp_path / "model")]
    assert main([*start, "--steps", "0", "-o", str(tmp_path / "out.png")]) == 2
    assert "steps is 0" in capsys.readouterr().err
    assert main([*start, "--steps", "3", "-o", str(tmp_path / "model")]) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*start, "--steps", "3", "-o", "/proc/out.png"]) == 2
    assert capsys.readouterr().err.startswith("stzoo: ")


@pytest.mark.slow
def test_train_then_evaluate(mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text("dataset = 'mmnist'\nminutes = 1\nbatch = 2\nvalidate_every = 4\nvalidation_clips = 4\n")
    run = ["train", "tau-mmnist", "--mnist", str(mnist), "--out", str(tmp_path / "run")]
    assert main([*run, "--recipe", str(recipe), "--steps", "4"]) == 0
    best = str(tmp_path / "run" / "best")
    assert best in capsys.readouterr().out
    assert main(["evaluate", best, "--mnist", str(mnist), "--limit", "8", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["clips"] == 8
    assert "first 8 sequences only" in report["protocol"]
    assert report["persistence_total"]["mse"] == pytest.approx(285, abs=120)


@pytest.fixture
def idx_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like MNIST's, of drawn digits, and a test set of eight sequences of them."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for name, count in (("train-images-idx3-ubyte", 10_010), ("t10k-images-idx3-ubyte", 10)):
        images = drawn_digits()[np.arange(count) % 10].numpy().tobytes()
        (folder / name).write_bytes(struct.pack(">4i", 0x803, count, 28, 28) + images)
    monkeypatch.setattr(
        digits_room, "protocol_set",
        lambda folder, a=10, b=10: digits_room.MovingDigits(digits_room.read_digits(folder, "test"), 0, 8, a, b),
    )  # fmt: skip
    return folder


@pytest.fixture
def two_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Entries of a small codec and a small modular model, without weights, and the options that train them at once."""
    codec: dict[str, Any] = {"arch": "vqvae", "params": {"width": 8, "residual_width": 4, "codes": 16, "dim": 4}}
    predictor = {"arch": "tctn", "params": {"layers": 1, "hidden": 8, "heads": 2, "patch": 1}}
    frame = {"channels": 1, "height": 64, "width": 64}
    common = {"summary": "s", "dataset": "mmnist", "weights": None, "license": "l", "data_terms": "t", "citation": "c"}
    entries = {
        "vqvae-mmnist": common | {"kind": "codec", "spec": codec | frame | {"frames_in": 1, "frames_out": 1}},
        "tctn-modular-mmnist": common
        | {
            "codec": {"entry": "vqvae-mmnist"},
            "spec": frame
            | {"arch": "modular", "frames_in": 10, "frames_out": 10}
            | {"params": {"codec": codec, "predictor": predictor}},
        },
        "vqvae-kth": common | {"kind": "codec", "spec": codec | frame | {"frames_in": 1, "frames_out": 1}},
    }
    parsed = catalog.parse_manifest(json.dumps({"schema": 1, "models": entries}).encode())
    monkeypatch.setattr(catalog, "entries", lambda: parsed)
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        "dataset = 'mmnist'\nminutes = 1\nbatch = 2\nvalidate_every = 4\nvalidation_clips = 2\n"
        "ddr_weight = 0.0\nsampling = 'parallel'\n"
    )
    return ["--recipe", str(recipe), "--steps", "2"]


def test_one_command_trains_a_codec_and_a_predictor_on_it(
    idx_files: Path, two_stages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["train", "tctn-modular-mmnist", "--mnist", str(idx_files), "--out", str(tmp_path / "run"), *two_stages]
    run += ["--codec-minutes", "0.02"]
    assert main(run) == 0
    assert "first the codec, vqvae-mmnist" in capsys.readouterr().err
    codec = stzoo.load_codec(tmp_path / "run" / "codec" / "best")
    model: Any = stzoo.load(tmp_path / "run" / "best")
    for name, tensor in codec.module.state_dict().items():
        assert np.array_equal(model.module.codec.state_dict()[name], tensor)
    before = (tmp_path / "run" / "codec" / "checkpoint.pt").read_bytes()
    assert main(run) == 0  # both are finished: nothing is trained again
    assert (tmp_path / "run" / "codec" / "checkpoint.pt").read_bytes() == before

    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run" / "codec" / "best"), "--mnist", str(idx_files), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["protocol"], report["frames"], report["precision"]) == ("mmnist-frames", 16, "float32")
    assert 1 <= report["perplexity"] <= report["codes_used"] <= 16
    for option in ("--csv", "--limit=3"):
        assert main(["evaluate", str(tmp_path / "run" / "codec" / "best"), "--mnist", str(idx_files), option]) == 0
    out = capsys.readouterr().out
    assert "mse,mae,ssim,psnr,codes_used,perplexity" in out
    assert "first 3 sequences only: 6 frames" in out
    evaluation = ["evaluate", str(tmp_path / "run" / "best"), "--mnist", str(idx_files), "--precision", "bfloat16"]
    assert main(evaluation) == 0
    assert "8 sequences, metrics as defined by stzoo, forecasts in bfloat16" in capsys.readouterr().out


def test_a_codec_may_be_given(
    idx_files: Path, two_stages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = stzoo.load_codec("vqvae-mmnist", pretrained=False)
    given.save_pretrained(tmp_path / "given")
    run = ["train", "tctn-modular-mmnist", "--mnist", str(idx_files), "--out", str(tmp_path / "run"), *two_stages]
    assert main([*run, "--codec", str(tmp_path / "given")]) == 0
    assert not (tmp_path / "run" / "codec").exists()
    assert main([*run, "--codec", str(tmp_path / "given"), "--codec-minutes", "1"]) == 2
    assert "--codec-minutes is for a codec that must be trained first" in capsys.readouterr().err
    assert main([*run, "--codec", "tau-mmnist"]) == 2
    assert "stzoo: no model 'tau-mmnist'" in capsys.readouterr().err


def test_codec_options_are_for_modular_entries(
    idx_files: Path, two_stages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["train", "vqvae-mmnist", "--mnist", str(idx_files), "--out", str(tmp_path / "run")]
    assert main([*run, "--codec-minutes", "1"]) == 2
    assert "stzoo: vqvae-mmnist has no codec; --codec and" in capsys.readouterr().err
    assert main([*run, "--codec-minutes", "-1"]) == 2
    assert "stzoo: --codec-minutes is -1.0; it must be positive" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Twenty frames of colour noise, 38x20, which not every model takes."""
    video = pytest.importorskip("stzoo.frames.video")
    pytest.importorskip("av")
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (20, 38, 3), dtype=np.uint8)) for _ in range(20)]
    video.write_video(tmp_path / "in.avi", images)
    return tmp_path / "in.avi"


@pytest.mark.parametrize("out", ["out.gif", "out.png", "out.webp", "out.mp4", "out.avi", "out", "out.npy", "out.npz"])
def test_a_recording_becomes_any_kind_of_file(
    forecaster: Forecaster, recording: Path, out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    command = ["rollout", str(recording), "--model", str(tmp_path / "model"), "--steps", "6", "--every", "3"]
    assert main([*command, "-o", str(tmp_path / out)]) == 0
    assert "6 frames" in capsys.readouterr().out
    expected = np.stack([np.asarray(i) for i in forecaster.rollout(recording, 6, resize=True, every=3)])
    if out.startswith("out.np"):
        written = np.load(tmp_path / out)
        written = written if out == "out.npy" else written["frames"]
    else:
        from stzoo.frames.video import read_video

        read: Any = read_video if out in ("out.mp4", "out.avi") else read_images
        written = np.stack([np.asarray(i.convert("L")) for i in read(tmp_path / out)])
    tolerance = 12 if out in ("out.mp4", "out.avi") else 0  # on average
    assert np.abs(written.astype(float) - expected).mean() <= tolerance
    assert {p.name for p in tmp_path.iterdir()} == {"in.avi", "model", out}


def test_a_recording_may_keep_its_size_where_the_model_takes_it(
    forecaster: Forecaster, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    command = ["predict", str(recording), "--model", str(tmp_path / "model"), "-o", str(tmp_path / "out.png")]
    assert main([*command, "--keep-size"]) == 0
    assert {image.size for image in read_images(tmp_path / "out.png")} == {(38, 20)}
    assert main(command) == 0
    assert {image.size for image in read_images(tmp_path / "out.png")} == {(16, 16)}
    (tmp_path / "out.png").unlink()
    stzoo.create(forecaster.spec.replace(n_s=4)).save_pretrained(tmp_path / "model")
    capsys.readouterr()
    assert main([*command, "--keep-size"]) == 2
    assert "in.avi: height and width must be multiples of 4, given 20x38" in capsys.readouterr().err
    assert main([*command, "--every", "0"]) == 2
    assert "every is 0" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_arrays_and_fields_come_back_as_what_they_were(
    forecaster: Forecaster, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xarray = pytest.importorskip("xarray")
    forecaster.save_pretrained(tmp_path / "model")
    model = ["--model", str(tmp_path / "model"), "--steps", "5"]
    np.savez(tmp_path / "in.npz", frames=frames)
    field = xarray.DataArray((frames / 255).astype("f4"), dims=("time", "y", "x"), name="rain")
    field.assign_coords(time=np.arange(6) * 5).to_netcdf(tmp_path / "in.nc")
    for name, outs in (("in.npz", ("a.npy", "a.gif")), ("in.nc", ("b.nc", "b.zarr", "b.npy"))):
        for out in outs:
            assert main(["rollout", str(tmp_path / name), *model, "-o", str(tmp_path / out)]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), forecaster.rollout(frames, 5))
    pictures = [np.asarray(i.convert("L")) for i in read_images(tmp_path / "a.gif")]
    np.testing.assert_array_equal(np.stack(pictures), forecaster.rollout(frames, 5))
    with xarray.open_dataset(tmp_path / "b.nc") as written:
        assert written.rain.time.values.tolist() == [30, 35, 40, 45, 50]
        np.testing.assert_array_equal(written.rain.values, np.load(tmp_path / "b.npy"))
    capsys.readouterr()
    np.save(tmp_path / "floats.npy", frames / 255)
    for name, out, message in (
        ("in.nc", "c.gif", "cannot write c.gif from in.nc; use .nc"),
        ("in.npz", "c.nc", "cannot write c.nc from in.npz; use .gif"),
        ("floats.npy", "c.gif", "are no pictures"),
        ("in.nc", "b.zarr", "exists"),
        ("in.npz", "nowhere/c.npy", "does not exist"),
    ):
        assert main(["rollout", str(tmp_path / name), *model, "-o", str(tmp_path / out)]) == 2
        assert message in capsys.readouterr().err
        assert not list(tmp_path.glob("c.*"))


def test_any_horizon_is_measured_on_clips_of_ones_own(
    forecaster: Forecaster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    clips = tmp_path / "clips"
    clips.mkdir()
    for k in range(3):
        np.save(clips / f"{k}.npy", np.random.default_rng(k).integers(0, 256, (20, 16, 16), dtype=np.uint8))
    start = ["evaluate", str(tmp_path / "model"), "--data", str(clips)]
    assert main([*start, "--steps", "9", "--limit", "1"]) == 0
    out = capsys.readouterr().out
    assert "clips-4-9, first 1 sequences only" in out
    assert main([*start, "--steps", "9", "--every", "2", "--json"]) == 2  # ten frames are left, thirteen needed
    assert "no recording has 13 frames" in capsys.readouterr().err
    assert main([*start, "--steps", "0"]) == 2
    assert "--steps is 0" in capsys.readouterr().err
