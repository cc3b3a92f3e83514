"""Cards say what is known of exactly these weights. The YAML is read back by huggingface_hub and by PyYAML alone."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

import stzoo
from stzoo import catalog
from stzoo.catalog import Training
from stzoo.errors import SpecError, WeightsError
from stzoo.figures import Metrics
from stzoo.files import write_atomically
from stzoo.forecaster import Forecaster
from stzoo.hub import sharing
from stzoo.hub.card import Card, written_here

FIGURES = Metrics(protocol="mine-4-4", mse=1.5, mae=2.0, ssim=0.5, psnr=20.0, persistence_mse=3.0, command="stzoo e")
OWN = Card(
    summary="Waves on a pond", license="CC-BY-4.0", datasets=("mine", "yours"), data_terms="ask me",
    citation="Me, 2026", metrics=(FIGURES,),
    training=Training(recipe="by hand", sequences_seen=1234, hardware="an abacus", hours=2.0),
)  # fmt: skip


def opened(name: str) -> Any:
    return (stzoo.load_codec if stzoo.info(name).kind == "codec" else stzoo.load)(name)


def saved(model: Any, folder: Path, card: Card | None = None) -> tuple[dict[str, Any], str]:
    """The front matter and the body of the card."""
    model.save_pretrained(folder, card=card)
    text = (folder / "README.md").read_text()
    empty, front, body = re.split(r"^---\n", text, maxsplit=2, flags=re.MULTILINE)
    assert empty == ""
    return yaml.safe_load(front), body


def numbers(metrics: Metrics) -> dict[str, float]:
    values = dataclasses.asdict(metrics)
    return {k: v for k, v in values.items() if isinstance(v, (int, float))}


@pytest.mark.parametrize("name", ["tau-ut", "tau-radar", "vqvae-mmnist", "predrnn-modular-mmnist"])
def test_unchanged_weights_of_an_entry_carry_what_the_catalogue_says(name: str, tmp_path: Path) -> None:
    entry = stzoo.info(name)
    front, body = saved(opened(name), tmp_path / "model")
    assert (front["license"], front["datasets"], front["library_name"]) == ("apache-2.0", [entry.dataset], "stzoo")
    (index,) = front["model-index"]
    assert index["name"] == name
    found = {r["dataset"]["name"]: {m["type"]: m["value"] for m in r["metrics"]} for r in index["results"]}
    assert found == {m.protocol: numbers(m) for m in entry.metrics}
    read = ModelCard((tmp_path / "model" / "README.md").read_text())
    assert len(read.data.eval_results) == sum(len(numbers(m)) for m in entry.metrics)
    assert {entry.spec.arch, "stzoo"} <= set(read.data.tags)
    assert entry.training is not None
    for text in (entry.summary, entry.data_terms, entry.citation, entry.training.recipe, entry.training.hardware):
        assert text in body
    for m in entry.metrics:
        assert m.command in body
        beside = "" if m.persistence_mse is None else f" {m.persistence_mse:.2f} |"
        assert f"| {m.protocol} | MSE | {m.mse:.2f} |{beside}\n" in body


def test_the_lines_that_load_a_model_work(forecaster: Forecaster, frames: Any, tmp_path: Path) -> None:
    _, body = saved(forecaster, tmp_path / "model")
    (code,) = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    names = {"frames": frames}
    exec(code.replace("path/to/this/folder", str(tmp_path / "model")), names)
    assert (names["future"] == forecaster.predict(frames)).all()


def figureless(front: dict[str, Any], body: str, entry: catalog.Entry) -> None:
    assert front.keys() == {"library_name", "tags"}
    assert "No figures have been measured with these weights." in body
    for m in entry.metrics:
        assert m.command not in body
        for value in numbers(m).values():
            assert f" {value:.2f} " not in body
    assert entry.training is not None
    assert entry.training.recipe not in body


def test_weights_that_changed_since_carry_no_figures(tmp_path: Path) -> None:
    model = stzoo.load("tau-ut")
    parameter = list(model.module.parameters())[-1]
    with torch.no_grad():
        parameter.view(-1)[-1] += 1e-4
    front, body = saved(model, tmp_path / "model")
    figureless(front, body, stzoo.info("tau-ut"))
    assert "began as those of tau-ut" in body
    assert "UT-Interaction, research use" in body  # the terms of the data go on


def test_adapted_weights_and_coarser_ones_carry_no_figures(tmp_path: Path) -> None:
    adapted = stzoo.load("tau-ut", adapt={"frames_out": 3})
    figureless(*saved(adapted, tmp_path / "adapted"), stzoo.info("tau-ut"))
    coarse = stzoo.load("tau-ut")
    coarse.module.bfloat16()
    figureless(*saved(coarse, tmp_path / "coarse"), stzoo.info("tau-ut"))
    unlike = stzoo.load("tau-ut")
    unlike.spec = unlike.spec.replace(value_range=[0.0, 2.0])
    figureless(*saved(unlike, tmp_path / "unlike"), stzoo.info("tau-ut"))


def test_another_codec_inside_a_modular_model_is_a_change(tmp_path: Path) -> None:
    model: Any = stzoo.load("predrnn-modular-mmnist")
    with torch.no_grad():
        model.module.codec.codebook[3, 3] += 1
    front, body = saved(model, tmp_path / "model")
    figureless(front, body, stzoo.info("predrnn-modular-mmnist"))


def test_the_file_is_looked_at_again_when_saving(tmp_path: Path) -> None:
    weights = stzoo.info("tau-ut").weights
    assert weights is not None
    copy = tmp_path / "copy.safetensors"
    shutil.copy(catalog.CHECKPOINTS / weights.file, copy)
    model = stzoo.load(copy)
    front, _ = saved(model, tmp_path / "model")
    assert front["license"] == "apache-2.0"  # the pinned file, wherever it lies
    write_atomically(copy, b"something else")  # not in place: the module's tensors still lie in the old file
    not_known(*saved(model, tmp_path / "model"))
    copy.unlink()
    not_known(*saved(model, tmp_path / "model"))


def not_known(front: dict[str, Any], body: str) -> None:
    """The weights of tau-ut can be compared with nothing: no figures, but no word of a change either."""
    figureless(front, body, stzoo.info("tau-ut"))
    assert "began as those of tau-ut" in body
    assert "whether they were changed since is not known" in body
    assert "and were changed since" not in body


def test_of_a_codec_that_is_gone_no_change_is_claimed(tmp_path: Path) -> None:
    model: Any = stzoo.load("predrnn-modular-mmnist")
    model.report = dataclasses.replace(model.report, codec=str(tmp_path / "gone"))
    front, body = saved(model, tmp_path / "model")
    figureless(front, body, stzoo.info("predrnn-modular-mmnist"))
    assert "began as those of predrnn-modular-mmnist" in body
    assert "whether they were changed since is not known" in body


def test_a_file_named_by_a_relative_path_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(catalog.CHECKPOINTS / "tau-ut.safetensors", tmp_path)
    monkeypatch.chdir(tmp_path)
    model = stzoo.load("./tau-ut.safetensors")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    front, _ = saved(model, tmp_path / "model")
    assert front["license"] == "apache-2.0"


def test_random_weights_and_those_from_elsewhere_say_so(forecaster: Forecaster, tmp_path: Path) -> None:
    front, body = saved(forecaster, tmp_path / "model")
    assert front.keys() == {"library_name", "tags"}
    assert "Random weights, never trained" in body
    again = stzoo.load(tmp_path / "model")
    front, body = saved(again, tmp_path / "again")
    assert front.keys() == {"library_name", "tags"}
    assert "The weights of model/model.safetensors." in body
    assert str(tmp_path) not in body  # nobody's paths are published
    assert "No figures have been measured with these weights." in body
    next(again.module.parameters()).data.add_(1)
    assert "began as those of model/model.safetensors, and were changed since" in saved(again, tmp_path / "again")[1]


def test_a_card_of_ones_own(forecaster: Forecaster, tmp_path: Path) -> None:
    front, body = saved(forecaster, tmp_path / "pond", OWN)
    assert (front["license"], front["datasets"]) == ("cc-by-4.0", ["mine", "yours"])
    (index,) = front["model-index"]
    (result,) = index["results"]
    assert (index["name"], result["dataset"]["config"], result["dataset"]["split"]) == ("pond", "mine-4-4", "test")
    assert {m["type"]: m["value"] for m in result["metrics"]} == numbers(FIGURES)
    for text in (
        "# pond\n",
        "Waves on a pond.",
        "ask me",
        "Me, 2026",
        "1,234 sequences in 2 h on an abacus",
        "by hand",
    ):
        assert text in body
    assert "| mine-4-4 | MSE | 1.50 | 3.00 |" in body


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        (None, {}),
        ("MIT", {"license": "mit"}),
        ("Research use only!", {"license": "other", "license_name": "research-use-only"}),
        ("x\n---\nmodel-index: 3", {"license": "other", "license_name": "x-model-index-3"}),
    ],
)
def test_a_licence_is_never_guessed(
    license: str | None, expected: dict[str, str], forecaster: Forecaster, tmp_path: Path
) -> None:
    card = Card(summary="a: [b\n---\n", license=license, datasets=("- &x {: '\n---",))
    front, _ = saved(forecaster, tmp_path / "model", card)
    assert {k: v for k, v in front.items() if k.startswith("license")} == expected
    assert front["datasets"] == ["- &x {: '\n---"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"summary": " "}, "card.summary is ' '; it must be text"),
        ({"license": ""}, "card.license is ''"),
        ({"citation": 3}, "card.citation is 3"),
        ({"datasets": ["mmnist"]}, "card.datasets"),
        ({"metrics": ({"mse": 1},)}, "must be a tuple of Metrics"),
        ({"training": "much"}, "it must be a Training"),
    ],
)
def test_a_card_that_is_none(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Card(**{"summary": "s"} | values)


def test_what_is_no_card_is_refused_before_anything_is_written(forecaster: Forecaster, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="card is a dict; it must be a stzoo.Card"):
        forecaster.save_pretrained(tmp_path / "model", card={"license": "mit"})  # type: ignore[arg-type]
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("kind", ["own", "edited", "folder", "link", "bytes"])
def test_what_somebody_wrote_is_kept(kind: str, forecaster: Forecaster, frames: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    path = folder / "README.md"
    forecaster.save_pretrained(folder)
    card = path.read_text()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        edited = card.replace("# model", "# My model").encode()
        path.write_bytes({"own": b"# Mine\n", "edited": edited, "bytes": b"\xff\xfe"}[kind])
    content = path.read_bytes() if path.is_file() else None
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match="was written or edited by somebody; move it away"):
        forecaster.save_pretrained(folder, card=OWN)
    assert not (folder / "config.json").exists()
    with pytest.warns(UserWarning, match=r"README\.md was written or edited by somebody and is left as it is"):
        forecaster.save_pretrained(folder)
    assert (path.read_bytes() if path.is_file() else None) == content
    assert (stzoo.load(folder).predict(frames) == forecaster.predict(frames)).all()


def test_our_own_card_is_replaced_also_with_other_line_ends(forecaster: Forecaster, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    forecaster.save_pretrained(tmp_path, card=OWN)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert written_here(path)
    forecaster.save_pretrained(tmp_path)
    assert "Waves" not in path.read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_an_interrupted_save_leaves_no_figures_of_other_weights(
    forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stzoo.load("tau-ut").save_pretrained(tmp_path)
    assert "## Training" in (tmp_path / "README.md").read_text()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sharing, "save_folder", killed)
    with pytest.raises(KeyboardInterrupt):
        forecaster.save_pretrained(tmp_path)
    assert not (tmp_path / "README.md").exists()


def test_a_modular_model_is_not_saved_beside_a_codec_that_would_take_its_place(tmp_path: Path) -> None:
    (tmp_path / "codec.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="save into another folder"):
        stzoo.load("predrnn-modular-mmnist").save_pretrained(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["codec.safetensors"]
