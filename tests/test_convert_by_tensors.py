"""Published checkpoints whose tensors tell what model they hold, without anyone naming it."""

import json
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models.published_shapes import published_shapes
from safetensors.torch import load_file
from test_convert import GATED, frame_names, gated_names, published, spec_of

import stzoo
from stzoo.cli import main
from stzoo.convert import convert
from stzoo.errors import MismatchError, SpecError, WeightsError
from stzoo.models import build
from stzoo.spec import ModelSpec

SIZE = {"frames_out": 3, "height": 16, "width": 16}
WRAPPINGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "model": lambda s: {"model": s, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "lr": 0.1}, "epoch": 3},
    "model_state_dict": lambda s: {"args": {"lr": 0.1, "name": "tau"}, "model_state_dict": s},
    "net_param": lambda s: {"net_param": s},
    "ema": lambda s: {"ema": s, "model": None},
    "state_dict in model": lambda s: {"model": {"state_dict": s, "epoch": 3}},
    "module.model._orig_mod.": lambda s: {f"module.model._orig_mod.{k}": t for k, t in s.items()},
    "_orig_mod.module.module.": lambda s: {"state_dict": {f"_orig_mod.module.module.{k}": t for k, t in s.items()}},
}


@pytest.mark.parametrize("name", ["tau", "gsta", "incepu"])
def test_it_is_what_a_spec_would_have_made_of_it(name: str, tmp_path: Path) -> None:
    torch.save(published(name)[1], tmp_path / "ckpt.pth")
    convert("openstl", tmp_path / "ckpt.pth", spec_of(name), tmp_path / "named")
    report = convert("openstl", tmp_path / "ckpt.pth", None, tmp_path / "told", known=SIZE)
    assert (report.locked, report.unused) == (False, ())
    one, other = stzoo.load(tmp_path / "named"), stzoo.load(tmp_path / "told")
    assert other.spec == report.spec
    assert {**other.spec.params, "translator": ""} == {**one.spec.params, "translator": ""}
    assert all(torch.equal(t, one.module.state_dict()[k]) for k, t in other.module.state_dict().items())


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_tensors_are_found_in_what_trainers_wrap_around_them(wrapping: str, old: bool, tmp_path: Path) -> None:
    content = WRAPPINGS[wrapping](published("tau")[1])
    torch.save(content, tmp_path / "ckpt.pth", _use_new_zipfile_serialization=not old)
    report = convert("openstl", tmp_path / "ckpt.pth", None, tmp_path / "out", known=SIZE)
    assert (report.spec, report.unused) == (spec_of("tau"), ())


def circle() -> Any:
    content: dict[str, Any] = {}
    content["model"] = content
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"net_param": {"a": 3}}, r"ckpt\.pth, net_param: 'a' is int, not a tensor"),
        ({"model": {"state_dict": []}}, r"ckpt\.pth, model, state_dict holds list, not named tensors"),
        ({"state_dict": {}, "args": Namespace(lr=1)}, r"ckpt\.pth, state_dict holds dict, not named tensors"),
        ({"args": Namespace(lr=1)}, r"it names argparse\.Namespace, .* not run, under the key 'args'"),
        ({"model": {"a": torch.zeros(1), "module.a": torch.zeros(1)}}, r"holds a twice"),
        (circle(), r"'model' is dict, not a tensor"),
        ({"a": torch.zeros(2)}, r"does not tell its model: no architecture is known .* name it \(--model\)"),
    ],
)
def test_what_cannot_be_read_is_named(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "ckpt.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        convert("openstl", tmp_path / "ckpt.pth", None, tmp_path / "out", known=SIZE)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_small_file_does_not_explain_a_large_model_by_itself(tmp_path: Path) -> None:
    """Its tensors would say how large the model is that they claim to be."""
    spec = spec_of("tau").replace(hid_t=4096, hid_s=256)
    tensors = {k: torch.zeros(()).expand(t.shape) for k, t in their_names(spec).items()}
    torch.save(tensors, tmp_path / "ckpt.pth")
    with pytest.raises(WeightsError, match="no model is named that has so many values"):
        convert("openstl", tmp_path / "ckpt.pth", None, tmp_path / "out", known=SIZE)


def their_names(spec: ModelSpec) -> dict[str, torch.Tensor]:
    names = frame_names(3) | gated_names(3)
    ours = build(spec, "meta").state_dict()
    return {names[k]: t.flatten() if k.endswith(("scale1", "scale2")) else t for k, t in ours.items()}


@pytest.mark.parametrize(
    ("known", "error", "message"),
    [
        ({}, SpecError, r"holds a tau, tells frames_out, height and width; .* \(--frames-out and --size\)"),
        ({"height": 16, "width": 16}, SpecError, r"tells frames_out; .* \(--frames-out\)$"),
        (SIZE | {"frames_in": 5}, MismatchError, r"holds a model with frames_in 3, not 5"),
        (SIZE | {"channels": 1}, MismatchError, r"frames of 2 channels, not of 1"),
        (SIZE | {"arch": "simvp"}, MismatchError, r"holds a model with arch tau, not 'simvp'"),
        (SIZE | {"params": {"hid_t": 64}}, MismatchError, r"holds a model with params\.hid_t 32, not 64"),
        (SIZE | {"params": {"head": 4}}, SpecError, r"spec\.params\.head is not a known key"),
        (SIZE | {"channels": -1}, SpecError, r"spec\.channels is -1"),
        (SIZE | {"depth": 3}, SpecError, r"spec\.depth is not a known key"),
    ],
)
def test_what_tensors_do_not_tell_must_be_known_and_what_they_tell_holds(
    known: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    torch.save(published("tau")[1], tmp_path / "ckpt.pth")
    with pytest.raises(error, match=message):
        convert("openstl", tmp_path / "ckpt.pth", None, tmp_path / "out", known=known)


PREDFORMER = {"dim": 32, "heads": 2, "head_dim": 24, "blocks": 1}


def test_heads_of_a_predformer_follow_from_their_size_and_their_size_from_them(tmp_path: Path) -> None:
    """The tensors tell that all heads together have 48 channels, and no more."""
    frames: dict[str, Any] = {"frames_in": 4, "frames_out": 4, "channels": 2, "height": 32, "width": 32}
    shapes = published_shapes(ModelSpec(arch="predformer", params=PREDFORMER, **frames), "official")
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "x.pth")

    def converted(**params: int) -> tuple[int, int]:
        out = tmp_path / f"model{'-'.join(f'{name}{value}' for name, value in params.items())}"
        found = convert("official", tmp_path / "x.pth", None, out, known=frames | {"params": params}).spec.params
        return found["heads"], found["head_dim"]

    assert converted(heads=2) == converted(head_dim=24) == converted(heads=2, head_dim=24) == (2, 24)
    assert converted(heads=3) == (3, 16)
    with pytest.raises(SpecError, match=r"heads times head_dim is 48 in .*; give one: --set heads=VALUE$"):
        converted()
    with pytest.raises(MismatchError, match=r"is 48 in the tensors of .*, which heads 5 cannot make"):
        converted(heads=5)
    with pytest.raises(MismatchError, match=r", which heads 2 and head_dim 16 cannot make"):
        converted(heads=2, head_dim=16)


@pytest.mark.parametrize("said", ["heads", "head_dim"])
def test_what_follows_from_what_is_said_is_not_called_assumed(said: str, tmp_path: Path) -> None:
    frames: dict[str, Any] = {"frames_in": 4, "frames_out": 4, "channels": 2, "height": 32, "width": 32}
    shapes = published_shapes(ModelSpec(arch="predformer", params=PREDFORMER, **frames), "official")
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "x.pth")
    known = frames | {"params": {said: PREDFORMER[said]}}
    report = convert("official", tmp_path / "x.pth", None, tmp_path / "out", known=known)
    assert report.decision is not None
    assert not report.decision.assumed.keys() & {"heads", "head_dim"}
    assert "form" in report.decision.assumed


def test_what_is_only_presumed_gives_way(tmp_path: Path) -> None:
    torch.save(published("tau")[1], tmp_path / "ckpt.pth")
    presumed = {"frames_in": 5, "params": {**GATED, "hid_t": 64, "drop_path": 0.1}}
    report = convert("openstl", tmp_path / "ckpt.pth", None, tmp_path / "out", known=SIZE, presumed=presumed)
    assert report.spec == spec_of("tau").replace(drop_path=0.1)
    with pytest.raises(SpecError, match="a spec says everything"):
        convert("openstl", tmp_path / "ckpt.pth", spec_of("tau"), tmp_path / "other", known=SIZE)
    with pytest.raises(SpecError, match="the origin is 'nobody'; it may be"):
        convert("nobody", tmp_path / "ckpt.pth", None, tmp_path / "other", known=SIZE)
    with pytest.raises(SpecError, match="layouts of official are known for"):
        convert("official", tmp_path / "ckpt.pth", None, tmp_path / "other", known=SIZE)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = ModelSpec(arch="tau", frames_in=4, frames_out=4, channels=2, height=32, width=32, params=GATED)
    names = {k: torch.zeros_like(t, device="cpu") for k, t in their_names(spec).items()}
    torch.save(names, tmp_path / "ckpt.pth")
    command = ["convert", "openstl", str(tmp_path / "ckpt.pth"), "--out", str(tmp_path / "out")]
    for options, message in (
        (["--size", "32"], "--size is '32'; write height and width as in 64x64"),
        (["--set", "heads"], "--set is 'heads'; write KEY=VALUE"),
        (["--model", "tau-taxibj", "--dataset", "taxibj"], "--model says everything; leave out --dataset"),
        (["--dataset", "kth"], "frames of 2 channels, not of 1"),
        (["--dataset", "taxibj", "--set", "heads=4"], "spec.params.heads is not a known key"),
        (["--size", "32x32"], "tells frames_out; give the data set that it was trained for (--dataset), or these"),
    ):
        assert main([*command, *options]) == 2
        assert message in capsys.readouterr().err
    assert (
        main([*command, "--dataset", "taxibj", "--frames-out", "8", "--size", "64x32", "--set", "value_range=null"])
        == 0
    )
    out = capsys.readouterr().out
    assert "every tensor was used" in out
    assert "4 frames in, 8 out, 2x64x32 (channels x height x width), values without a range" in out
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (found["frames_out"], found["height"], found["width"], found["value_range"]) == (8, 64, 32, None)


GOLDEN = {
    **{f"simvp_{kind}": [] for kind in (
        "vit", "swin", "uniformer", "mlpmixer", "convmixer", "poolformer", "convnext", "van", "hornet", "moganet",
    )},
    "phydnet": [], "predrnnv2": [], "mau": ["--set", "tau=3"], "swinlstm_d": [],
    "predformer_tsst": ["--set", "heads=4"],
}  # fmt: skip
LOCKED = ("mau", "predformer_tsst", "simvp_mlpmixer")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files_forecast_what_their_publisher_forecast(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where published/golden lies beside STZOO_DATA; see tests/models/test_published_goldens.py."""
    folder = Path(os.environ.get("STZOO_DATA", "")).parent / "published" / "golden"
    if not (folder / f"{name}.pth").is_file():
        pytest.skip("put the folder published/ beside the one that STZOO_DATA names to run this test")
    range_of = [] if name in ("phydnet", "swinlstm_d") else ["--set", "value_range=null"]  # so that nothing is clipped
    options = ["--channels", "1", "--frames-in", "4", "--frames-out", "4", "--size", "32x32", *range_of, *GOLDEN[name]]
    assert main(["convert", "openstl", str(folder / f"{name}.pth"), "--out", str(tmp_path / "out"), *options]) == 0
    assert ("it takes frames of 32x32 alone" in capsys.readouterr().out) == (name in LOCKED)
    io = load_file(folder / f"{name}.io.safetensors")
    torch.testing.assert_close(stzoo.load(tmp_path / "out").predict(io["x"]), io["y"], rtol=0, atol=1e-4)
