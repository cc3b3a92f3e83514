"""Pages that follow from the manifest, and animations of the clips that an independent ranking chooses."""

import io
import json
import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from release.shared import TEXTS, Checkout, options

import stzoo
from stzoo import catalog, viz
from stzoo.catalog import parse_manifest
from stzoo.charts import Learned, errors_chart, learning_chart
from stzoo.cli import main
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.errors import DataError, ManifestError
from stzoo.forecaster import Forecaster
from stzoo.release import pages
from stzoo.release.pages import INDEX, card_text, charts, index_text
from stzoo.release.pictures import spread, typical_and_worst
from stzoo.unroll import unroll

PAGES = Path(__file__).parents[2] / "docs" / "models"
AGAIN = "the manifest says something else by now; run: stzoo catalog cards"
COUNT, STILL = 13, 4  # test clips, and the one of them in which nothing moves


@pytest.fixture
def one(checkout: Checkout, forecaster: Forecaster, tmp_path: Path) -> np.ndarray:
    """An entry "one" that is measured on clips of drawn digits, which are returned: (COUNT, 8, 16, 16) uint8."""
    moving = MovingDigits(drawn_digits(), 3, COUNT, 4, 4).sequences(0, COUNT)[..., ::4, ::4].numpy().copy()
    moving[STILL] = moving[STILL, :1]
    for file in checkout.clips.iterdir():
        file.unlink()
    for part in ("train", "validation", "test"):
        (checkout.clips / part).mkdir()
        for k, clip in enumerate(moving):
            np.save(checkout.clips / part / f"{k:02}.npy", clip)
    forecaster.save_pretrained(tmp_path / "model")
    assert main(options(tmp_path / "model", "one", checkout)) == 0
    return moving


def filmed(checkout: Checkout, out: Path) -> str:
    assert main(["catalog", "cards", "one", "--data", str(checkout.clips), "--out", str(out)]) == 0
    return (out / "one.md").read_text()


def links(text: str) -> set[str]:
    return set(re.findall(r"!\[[^]]*\]\((.*?)\)", text))


def ratios(moving: np.ndarray) -> list[tuple[float, int, float]]:
    """Error relative to persistence, clip and error, the least first, by the plain module in float64."""
    model = stzoo.load("one")
    frames = torch.from_numpy(moving).double()[:, :, None] / 255
    with torch.no_grad():
        forecast = torch.stack(list(unroll(model.module.double(), model.spec, frames[:, :4], 4)), 1)
    mse, last = ((x - frames[:, 4:]).square().sum((2, 3, 4)).mean(1) for x in (forecast, frames[:, 3:4]))
    moved = [k for k in range(len(moving)) if k != STILL]
    return sorted((mse[k].item() / last[k].item(), k, mse[k].item()) for k in moved)


@pytest.mark.parametrize("name", sorted(catalog.entries()))
def test_the_pages_of_this_checkout_are_those_of_its_manifest(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text("utf-8")
    assert text == card_text(stzoo.info(name), PAGES), AGAIN
    assert all((PAGES / picture).is_file() for picture in links(text))
    drawn = charts(stzoo.info(name))
    assert set(drawn) <= links(text)
    for file, content in drawn.items():
        ours, there = (np.asarray(Image.open(x), float) for x in (io.BytesIO(content), PAGES / file))
        assert np.array_equal(ours, there), AGAIN


def test_there_is_a_page_for_each_entry_and_for_nothing_else() -> None:
    assert (PAGES / INDEX).read_text("utf-8") == index_text(PAGES), AGAIN
    assert {p.name for p in PAGES.glob("*.md")} == {INDEX, *(f"{name}.md" for name in catalog.entries())}
    pictures = {p.name for p in PAGES.iterdir() if p.suffix in (".gif", ".png")}
    linked = [links((PAGES / f"{name}.md").read_text("utf-8")) for name in catalog.entries()]
    assert pictures == set().union(*linked)
    assert all(p.stat().st_size < 300_000 for p in PAGES.glob("*.gif"))


def test_every_entry_says_what_it_is_not_for() -> None:
    """Those without weights, too: packing some must not fail after hours of measuring."""
    assert [entry.name for entry in catalog.entries().values() if not entry.unsuited] == []


def test_a_page_says_what_the_entry_does(one: np.ndarray, checkout: Checkout, tmp_path: Path) -> None:
    assert main(["catalog", "cards", "--out", str(tmp_path / "docs")]) == 0
    text = (tmp_path / "docs" / "one.md").read_text()
    (m,) = stzoo.info("one").metrics
    for said in (
        "## What it is not for\n\nu\n",
        'stzoo.load("one")',
        m.command,
        "by hand",
        "Licence of the weights: MIT",
    ):
        assert said in text
    assert f"| clips-4-4 | MSE | {m.mse:.2f} | {m.persistence_mse:.2f} |" in text
    assert "typical" not in text
    row = f"| [`one`](one.md) | s | {stzoo.load('one').report.parameters:,} | clips-4-4 | {m.mse:.2f} |"
    assert row in (tmp_path / "docs" / INDEX).read_text()


def test_an_entry_without_weights_claims_none(checkout: Checkout, spec: Any, tmp_path: Path) -> None:
    checkout.write({"one": TEXTS | {"spec": spec.to_dict(), "weights": None}})
    assert main(["catalog", "cards", "one", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "one.md").read_text()
    for said in (
        "stzoo train one --data DIR --out RUN",
        'stzoo.create("one")',
        "Terms of the data: mine",
        "## What it is",
    ):
        assert said in text
    for untrue in ("Figures", "Trained on", "Licence of the weights", "stzoo.load"):
        assert untrue not in text


def test_the_error_at_each_step_is_kept_and_drawn(
    one: np.ndarray, checkout: Checkout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (m,) = stzoo.info("one").metrics
    capsys.readouterr()
    assert main(["evaluate", "one", "--data", str(checkout.clips), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert m.mse_steps == tuple(round(v, 4) for v in report["steps"]["mse"])
    assert m.persistence_mse_steps == tuple(round(v, 4) for v in report["persistence_steps"]["mse"])
    assert "[" not in str(m)  # the curve is for the page
    assert main(["catalog", "cards", "one", "--out", str(tmp_path)]) == 0
    assert links((tmp_path / "one.md").read_text()) == {"one-curve.png"}
    drawn = errors_chart({"one": m.mse_steps, "persistence": m.persistence_mse_steps or ()}, "MSE, clips-4-4")
    assert (tmp_path / "one-curve.png").read_bytes() == drawn.png()


def test_what_was_learned_when_is_drawn(one: np.ndarray, checkout: Checkout, tmp_path: Path) -> None:
    def drawn(seen: list[int], mse: list[float]) -> str:
        models = checkout.read()
        models["one"]["training"] |= {"curve_sequences": seen, "curve_mse": mse}
        checkout.write(models)
        assert main(["catalog", "cards", "one", "--out", str(tmp_path)]) == 0
        return (tmp_path / "one.md").read_text()

    assert "learning" not in drawn([12], [3.0])
    text = drawn([0, 3_000, 12_000], [100.0, 50.0, 25.0])
    assert "100 after 0 sequences, 25 after 12,000. The chart shows the first training run only" in text
    again = drawn([4, 12, 20], [100.0, 25.0, 50.0])  # the entry's sequences are 12
    assert "100 after 4 sequences, 50 after 20; the lowest is 25, after 12.\n" in again
    assert "first training run" not in drawn([4, 8, 12], [100.0, 25.0, 25.0])  # equal as they were rounded
    drawn([0, 3_000, 12_000], [100.0, 50.0, 25.0])
    learned = Learned("", ([0, 3_000, 12_000], [100.0, 50.0, 25.0]))
    expected = learning_chart([learned], "sequences seen in training").png()
    assert (tmp_path / "one-learning.png").read_bytes() == expected
    models = checkout.read()
    models["one"]["spec"]["value_range"] = [0.0, 2.0]
    models["one"]["training"]["curve_quantity"] = True
    checkout.write(models)
    said = pages._learning_text(catalog.info("one"))
    assert "training (here of rates in mm/h, summed over a frame): 100 after 0 sequences, 25 after 12,000" in said


def test_without_matplotlib_nothing_is_written(
    one: np.ndarray,
    checkout: Checkout,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ["catalog", "cards", "one", "--data", str(checkout.clips), "--out", str(tmp_path / "docs")]
    assert main(words) == 2
    assert capsys.readouterr().err == 'stzoo: charts need an extra: pip install "stzoo[plot]"\n'
    assert not (tmp_path / "docs").exists()


def test_the_animations_show_the_right_clips(one: np.ndarray, checkout: Checkout, tmp_path: Path) -> None:
    text = filmed(checkout, tmp_path)
    assert links((tmp_path / INDEX).read_text()) == {"one-typical.gif"}
    ranked = ratios(one)
    assert len(ranked) == 12
    found = json.loads((tmp_path / "one-clips.json").read_text())
    assert found["among"] == COUNT
    assert found["worse"] == 1 + sum(ratio > 1 for ratio, *_ in ranked)  # where nothing moves, persistence is right
    shown = {"typical": ranked[6], "worst": ranked[10]}  # ten of twelve are better than the worse one
    for kind, (ratio, clip, mse) in shown.items():
        assert found[kind]["clip"] == clip
        assert found[kind]["mse"] == pytest.approx(mse, rel=1e-3)
        assert f"Clip {clip}, " in text
        assert f"{ratio:.2f} times that of persistence" in text
        with Image.open(tmp_path / f"one-{kind}.gif") as file:
            pictures = [np.asarray(f.convert("L"), float) for f in ImageSequence.Iterator(file)]
        assert len(pictures) == 8
        for shown, truth in zip(pictures, one[clip], strict=True):
            panel = shown[20 : 20 + 128, 2 : 2 + 128][4::8, 4::8]  # 16x16 pixels, each eight times as large
            np.testing.assert_allclose(panel, truth / one[clip].max() * 255, atol=255 / 31 / 2 + 1)
    assert links(text) == {"one-curve.png", "one-typical.gif", "one-worst.gif"}
    assert "Made by `stzoo catalog cards one --data DIR`" in text
    assert {p.suffix for p in tmp_path.glob("one*")} == {".gif", ".json", ".md", ".png"}


def test_a_page_keeps_its_animations_until_the_weights_change(
    one: np.ndarray, checkout: Checkout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = filmed(checkout, tmp_path)
    again = ["catalog", "cards", "--out", str(tmp_path)]
    assert main(again) == 0
    assert (tmp_path / "one.md").read_text() == text
    facts = tmp_path / "one-clips.json"
    whole = facts.read_text()
    facts.write_text(whole[:-20])
    assert main(again) == 2
    assert f"stzoo: {facts} is damaged; remove it, and make the animations again" in capsys.readouterr().err
    assert (tmp_path / "one.md").read_text() == text
    facts.write_text(whole.replace(json.loads(whole)["sha256"], "0" * 64))
    assert main(again) == 0
    assert links((tmp_path / "one.md").read_text()) == {"one-curve.png"}
    facts.write_text(whole)
    (tmp_path / "one-worst.gif").unlink()
    assert main(again) == 0
    assert links((tmp_path / "one.md").read_text()) == {"one-curve.png"}


def test_an_accident_leaves_no_figures_of_other_animations(
    one: np.ndarray, checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filmed(checkout, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}

    def full(path: Path, *_: Any, **__: Any) -> None:
        path.write_bytes(b"GIF89a")
        raise OSError("no space left on device")

    monkeypatch.setattr(viz, "animation", full)
    assert main(["catalog", "cards", "one", "--data", str(checkout.clips), "--out", str(tmp_path)]) == 2
    after = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert {p: c for p, c in before.items() if p.name != "one-clips.json"} == after


def test_clips_in_which_nothing_moves_are_passed_over() -> None:
    ten = np.stack([np.arange(10.0, 0, -1), np.ones(10)], 1)
    assert typical_and_worst(ten) == (4, 0)  # clip 9 is best and clip 0 worst: ranks 5 and 9 of 10
    still = np.array([[3.0, 0.0], [np.nan, np.nan], [1.0, 2.0], [0.0, 0.0]])
    assert typical_and_worst(still) == (2, 2)
    with pytest.raises(DataError, match="nothing moves in any of 1 clips"):
        typical_and_worst(still[:1])


@pytest.mark.parametrize(("count", "most"), [(1, 200), (13, 200), (200, 200), (498, 200), (10_000, 200), (9, 4)])
def test_clips_are_chosen_from_all_over_the_test_part(count: int, most: int) -> None:
    numbers = spread(count, most)
    assert len(numbers) == min(count, most)
    assert (numbers[0], numbers[-1]) == (0, count - 1)
    gaps = {after - before for before, after in pairwise(numbers)}
    assert all(abs(gap - (count - 1) / (len(numbers) - 1)) < 1 for gap in gaps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "no model 'nobody'"),
        (["one", "nobody", "--data", "CLIPS"], "no model 'nobody'"),
        (["squeeze", "--data", "CLIPS"], "squeeze is a codec, which forecasts nothing"),
        (["bare", "--data", "CLIPS"], "bare has no weights yet"),
        (["one", "--data", "nowhere"], "nowhere does not exist"),
        (["one", "--mnist", "CLIPS"], "one is shown on clips, the data is mmnist"),
        (["one", "--data", "CLIPS", "--dataset", "ut"], "one is shown on clips, the data is ut"),
        (["one", "--mnist", "CLIPS", "--dataset", "ut"], "--mnist names the digits of mmnist, --dataset is ut"),
        (["one", "--dataset", "clips"], "name the folder of the dataset with --data DIR"),
        (["--data", "CLIPS"], "with --dataset, or name the entries"),
        (["bare", "--data", "EMPTY"], "bare has no weights yet"),
        (["one", "--data", "EMPTY"], "holds no video"),
    ],
)
def test_what_is_refused_writes_nothing(
    arguments: list[str],
    message: str,
    three: Checkout,
    spec: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    three.write(three.read() | {"bare": TEXTS | {"spec": spec.to_dict(), "weights": None}})
    (tmp_path / "empty").mkdir()
    places = {"CLIPS": str(three.clips), "EMPTY": str(tmp_path / "empty")}
    out = tmp_path / "docs"
    assert main(["catalog", "cards", *(places.get(a, a) for a in arguments), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("stzoo: ")
    assert message in err
    assert err.count("\n") == 1
    assert not out.exists()


def test_a_dataset_is_for_every_forecaster_that_was_trained_on_it(
    three: Checkout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--dataset", "clips", "--data", str(three.clips), "--out", str(tmp_path / "docs")]
    assert main(["catalog", "cards", *given]) == 0
    written = {Path(line).name for line in capsys.readouterr().out.splitlines() if line.endswith((".gif", ".md"))}
    films = {f"{name}-{kind}.gif" for name in ("one", "two") for kind in ("typical", "worst")}
    assert written == {INDEX, "one.md", "squeeze.md", "two.md"} | films


def test_what_a_manifest_may_not_say_of_steps_and_uses(three: Checkout) -> None:
    def refused(name: str, message: str, **changed: Any) -> None:
        models = three.read()
        models[name] |= {k: v for k, v in changed.items() if k != "steps"}
        models[name]["metrics"][0] |= changed.get("steps", {})
        with pytest.raises(ManifestError, match=message):
            parse_manifest(json.dumps({"schema": 1, "models": models}).encode())

    refused("one", "one has weights but no unsuited", unsuited=None)
    refused("one", "one has weights but no unsuited", unsuited="  ")
    seen = {"recipe": "r", "sequences_seen": 1, "hardware": "h", "hours": 1.0, "curve_sequences": [1, 2]}
    refused("one", r"training.curve_sequences and curve_mse have 2 and None values", training=seen)
    seen |= {"curve_mse": [2.0, 1.0]}
    for curve in ([-1, 2], [2, 2], [3, 2]):
        refused(
            "one", r"curve_sequences is \[.*\]; they must be at least 0", training=seen | {"curve_sequences": curve}
        )
    refused("one", "training.hours is -3", training=seen | {"hours": -3.0})
    models = three.read()
    models["one"]["metrics"] *= 2
    with pytest.raises(ManifestError, match="metrics hold the same protocol twice"):
        parse_manifest(json.dumps({"schema": 1, "models": models}).encode())
    refused("one", "have 1 and 2 values", steps={"mse_steps": [1.0], "persistence_mse_steps": [1.0, 2.0]})
    refused("one", "have None and 4 values", steps={"mse_steps": None})
    refused("one", "have 0 and 0 values", steps={"mse_steps": [], "persistence_mse_steps": []})
    curve = {"mse_steps": [1.0], "persistence_mse_steps": [1.0]}
    refused("squeeze", "squeeze is a codec; only a forecaster has mse_steps", steps=curve)


def test_other_cards_and_info_say_what_a_model_is_not_for(
    one: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["info", "one"]) == 0
    assert "\n  unsuited      u\n" in capsys.readouterr().out
    stzoo.load("one").save_pretrained(tmp_path / "saved")
    text = (tmp_path / "saved" / "README.md").read_text()
    assert "## What it is not for\n\nu\n" in text
    assert "mse_steps" not in text
    entry = stzoo.info("one")
    assert "unsuited" not in str(replace(entry, unsuited=None))


def test_a_known_entry_without_the_text_is_given_it(
    checkout: Checkout, spec: Any, forecaster: Forecaster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {key: text for key, text in TEXTS.items() if key != "unsuited"}
    checkout.write({"one": texts | {"spec": spec.to_dict(), "weights": None}})
    forecaster.save_pretrained(tmp_path / "model")
    given = options(tmp_path / "model", "one", checkout, **dict.fromkeys(TEXTS))
    before = checkout.snapshot()
    assert main(given) == 2
    assert "one needs --unsuited" in capsys.readouterr().err
    assert checkout.snapshot() == before
    assert main([*given, "--unsuited", "Not for anything."]) == 0
    assert checkout.read()["one"]["unsuited"] == "Not for anything."
