"""A folder becomes an entry, measured on its packaged file; whatever goes wrong leaves everything as it was."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from release.shared import CODEC, FRAME, MODULAR, TEXTS, Checkout, constant, options
from safetensors import safe_open

import stzoo
from stzoo import catalog
from stzoo.cli import main
from stzoo.data import Reading, open_dataset
from stzoo.release import candidate, enter_folder, manifest
from stzoo.spec import ModelSpec


def truth(checkout: Checkout, spec: ModelSpec, steps: int) -> np.ndarray:
    clips = open_dataset("clips", checkout.clips, Reading.of(spec)).split("test", spec.frames_in, steps)
    return np.asarray(clips.clips(0, len(clips)).future, np.float64) / 255


def test_a_folder_becomes_an_entry(checkout: Checkout, spec: ModelSpec, tmp_path: Path, capsys: Any) -> None:
    constant(spec, 0.5).save_pretrained(tmp_path / "one")
    assert main(options(tmp_path / "one", "one", checkout)) == 0
    assert "one on clips-4-4" in capsys.readouterr().out
    file = checkout.checkpoints / "one.safetensors"
    values = checkout.read()["one"]
    assert {key: values[key] for key in TEXTS} == TEXTS
    assert ModelSpec.from_dict(values["spec"]) == spec
    assert values["weights"] == {
        "file": "one.safetensors", "size": file.stat().st_size, "sources": ["package"],
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }  # fmt: skip
    (metrics,) = values["metrics"]
    future = truth(checkout, spec, 4)
    assert metrics["mse"] == pytest.approx(((future - 0.5) ** 2).sum((2, 3, 4)).mean(), abs=1e-4)
    assert metrics["mae"] == pytest.approx(abs(future - 0.5).sum((2, 3, 4)).mean(), abs=1e-4)
    assert metrics["persistence_mse"] > metrics["mse"]
    assert metrics["command"] == "stzoo evaluate one --data DIR"
    assert (values["golden"]["output_mean"], values["golden"]["output_std"]) == (0.5, 0.0)
    assert values["training"] == {"recipe": "by hand", "sequences_seen": 12, "hardware": "a machine", "hours": 0.5}
    with safe_open(file, "np") as tensors:
        assert {str(tensors.get_tensor(n).dtype) for n in tensors.keys() if "running" not in n} <= {"float16", "int64"}  # noqa: SIM118
    assert [p.name for p in checkout.checkpoints.iterdir()] == ["one.safetensors"]

    catalog.entries.cache_clear()
    model = stzoo.load("one")
    assert model.report.source == str(file)
    assert (model.predict(np.zeros((4, 16, 16), np.uint8)) == 128).all()
    for command in (["list"], ["info", "one"], ["info", "one", "--json"], ["catalog", "verify"]):
        assert main(command) == 0
    assert main(["train", "one", "--data", str(checkout.clips), "--out", str(tmp_path / "run")]) == 2
    assert "stzoo: there is no recipe one" in capsys.readouterr().err  # its training is described in words


def test_the_figures_are_those_that_evaluate_prints(
    checkout: Checkout, forecaster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "one")
    given = options(tmp_path / "one", "one", checkout)
    assert main([*given, "--horizons", "4", "7"]) == 0
    metrics = checkout.read()["one"]["metrics"]
    assert [m["protocol"] for m in metrics] == ["clips-4-4", "clips-4-7"]
    capsys.readouterr()
    for m in metrics:
        assert main([*m["command"].replace("DIR", str(checkout.clips)).split()[1:], "--json"]) == 0
        total = json.loads(capsys.readouterr().out)["total"]
        assert {k: m[k] for k in total} == {k: round(v, 4) for k, v in total.items()}


def test_an_entry_without_weights_is_filled_and_keeps_its_text(
    checkout: Checkout, spec: ModelSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = {k: v for k, v in spec.to_dict().items() if k not in ("mean", "std", "fill")}  # defaults may be left out
    other = TEXTS | {"spec": short, "weights": None}
    checkout.write({"first": other, "one": TEXTS | {"spec": short, "weights": None}, "last": other})
    before = checkout.manifest.read_text().splitlines()
    constant(spec, 0.5).save_pretrained(tmp_path / "one")
    given = options(tmp_path / "one", "one", checkout, **dict.fromkeys(TEXTS))
    assert main([*given, "--license", "MIT", "--citation", "another"]) == 2
    assert "one is described in the manifest already; leave out --citation" in capsys.readouterr().err
    assert main(given) == 0
    after = checkout.manifest.read_text().splitlines()
    start = before.index('    "one": {')
    assert after[:start] == before[:start]
    rest = before[before.index('    "last": {') :]
    assert after[-len(rest) :] == rest
    assert list(checkout.read()["one"])[:4] == ["summary", "dataset", "license", "data_terms"]
    assert checkout.read()["one"]["spec"] == short


def test_a_modular_model_is_stored_without_its_codec(three: Checkout) -> None:
    values = three.read()["two"]
    assert values["codec"] == {"entry": "squeeze", "sha256": three.read()["squeeze"]["weights"]["sha256"]}
    with safe_open(three.checkpoints / "two.safetensors", "np") as tensors:
        assert not [n for n in tensors.keys() if n.startswith("codec.")]  # noqa: SIM118
    assert three.read()["squeeze"]["kind"] == "codec"
    assert three.read()["squeeze"]["metrics"][0]["protocol"] == "clips-frames"
    catalog.entries.cache_clear()
    assert stzoo.load("two").report.codec == str(three.checkpoints / "squeeze.safetensors")


def test_a_modular_model_with_a_codec_of_its_own_is_refused(
    three: Checkout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = three.snapshot()
    stzoo.create(ModelSpec.from_dict(MODULAR)).save_pretrained(tmp_path / "lonely")
    assert main(options(tmp_path / "lonely", "lonely", three)) == 2
    assert "the codec inside is that of no entry" in capsys.readouterr().err
    assert three.snapshot() == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "one"}, "one is in the catalogue, with weights; choose another name"),
        ({"name": "Bad_Name"}, "'Bad_Name' is no name for a model"),
        ({"name": "../x"}, "'../x' is no name for a model"),
        ({"license": None, "data-terms": None}, "a new entry needs --license, --data-terms"),
        ({"summary": "  "}, "a new entry needs --summary"),
        ({"dataset": None}, "a new entry needs --dataset"),
        ({"sequences": "-1"}, "sequences_seen is -1"),
        ({"hours": "nan"}, "hours is nan; it must be finite"),
        ({"hours": "-1"}, "hours that are not negative"),
        ({"recipe": " "}, "needs a recipe"),
        ({"data": "nowhere"}, "nowhere does not exist"),
        ({"dataset": "kth"}, "sequences"),
        ({"horizons": "9"}, "--horizons must hold the model's own, 4"),
        ({"every": "0"}, "--every is 0"),
    ],
)
def test_what_is_refused_changes_nothing(
    changed: dict[str, str | None],
    message: str,
    three: Checkout,
    forecaster: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = three.snapshot()
    forecaster.save_pretrained(tmp_path / "model")
    given = {"name": "fresh"} | changed
    assert main(options(tmp_path / "model", given.pop("name") or "", three, **given)) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("stzoo: ")
    assert err.count("\n") == 1
    assert three.snapshot() == before


def test_another_spec_than_the_entrys_is_refused(
    checkout: Checkout, spec: ModelSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.write({"one": TEXTS | {"spec": spec.replace(frames_out=2).to_dict(), "weights": None}})
    before = checkout.snapshot()
    constant(spec, 0.5).save_pretrained(tmp_path / "one")
    assert main(options(tmp_path / "one", "one", checkout)) == 2
    assert "has another spec than one: frames_out 4 for 2" in capsys.readouterr().err
    assert checkout.snapshot() == before


@pytest.mark.parametrize("fault", ["absent", "empty", "spec", "tensor", "cut", "nan", "overflow", "kind"])
def test_a_folder_that_is_no_good_is_refused(
    fault: str, checkout: Checkout, forecaster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    before = checkout.snapshot()
    if fault in ("nan", "overflow"):
        next(forecaster.module.parameters()).data.fill_(torch.nan if fault == "nan" else 1e6)
    if fault != "absent":
        forecaster.save_pretrained(folder)
    message = {
        "absent": "is no folder that save_pretrained wrote", "empty": "holds no config.json", "spec": "differ; save",
        "tensor": "does not fit its spec", "cut": "cannot be read as safetensors", "nan": "", "overflow": "float16",
        "kind": "--horizons are for forecasters",
    }[fault]  # fmt: skip
    if fault == "empty":
        (folder / "config.json").unlink()
    if fault == "spec":
        (folder / "config.json").write_text(json.dumps(forecaster.spec.replace(frames_out=2).to_dict()))
    if fault == "tensor":
        from stzoo.weights import save_weights

        state = dict(list(forecaster.module.state_dict().items())[1:])
        save_weights(folder / "model.safetensors", forecaster.spec, state)
    if fault == "cut":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-5])
    given = options(folder, "fresh", checkout)
    if fault == "kind":
        from stzoo.codec import Codec
        from stzoo.weights import random_module

        made = ModelSpec.from_dict(FRAME | CODEC | {"frames_in": 1, "frames_out": 1})
        Codec(made, *random_module(made)).save_pretrained(folder)  # type: ignore[arg-type]
        given += ["--horizons", "2"]
    assert main(given) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("stzoo: ")
    assert message in err
    assert checkout.snapshot() == before


@pytest.mark.parametrize(
    ("limit", "message"), [("MAX_FILE", "a packaged checkpoint may"), ("MAX_TOGETHER", "they may")]
)
def test_what_is_too_large_for_the_package_is_refused(
    limit: str,
    message: str,
    three: Checkout,
    forecaster: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = three.snapshot()
    forecaster.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(candidate, limit, 10_000 if limit == "MAX_FILE" else 40_000)
    assert main(options(tmp_path / "model", "fresh", three)) == 2
    assert message in capsys.readouterr().err
    assert three.snapshot() == before


@pytest.mark.parametrize("where", ["measure", "weights_values", "manifest", "replace"])
@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_an_accident_at_any_point_leaves_everything_as_it_was(
    where: str,
    error: BaseException,
    three: Checkout,
    forecaster: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = three.snapshot()
    forecaster.save_pretrained(tmp_path / "model")

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    room, name = {"manifest": (manifest, "write_atomically"), "replace": (manifest.os, "replace")}.get(
        where, (enter_folder, where)
    )
    monkeypatch.setattr(room, name, fail)
    code = main(options(tmp_path / "model", "fresh", three))
    assert code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert three.snapshot() == before


def test_a_full_disk_does_not_put_half_a_copy_in_place_of_a_checkpoint(
    three: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is replaced, so its present file is copied first."""
    (name, *_), before = [file.stem for file in three.checkpoints.glob("*.safetensors")], three.snapshot()

    def full(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(manifest.shutil, "copyfile", full)
    (tmp_path / "new.safetensors").write_bytes(b"new")
    with pytest.raises(OSError, match="no space left"):
        manifest.enter(name, tmp_path / "new.safetensors", {})
    assert three.snapshot() == before


def test_the_manifest_of_this_checkout_is_written_as_it_is_kept() -> None:
    content = catalog.manifest_path().read_bytes()
    assert manifest.manifest_text(json.loads(content)) == content
