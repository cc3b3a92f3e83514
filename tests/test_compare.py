"""Several models on the same frames: the figures of each are those that `evaluate` gives it on its own past."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from showing.parsed import Parsed
from torch import Tensor, nn

from stzoo.data import Clip, ClipSource
from stzoo.data.joined import JoinedClips, Part
from stzoo.errors import DataError, SpecError
from stzoo.evaluate import Comparison, compare, evaluate
from stzoo.forecaster import Forecaster
from stzoo.opening import create
from stzoo.spec import ModelSpec
from stzoo.weights import LoadReport


@dataclass(frozen=True)
class Noise:
    """Clips of noise that fades over time, of `past` and `future` frames."""

    past: int = 4
    future: int = 5
    channels: int = 1
    unobserved: bool = False

    def __len__(self) -> int:
        return 5

    def clips(self, start: int, stop: int) -> Clip:
        made = []
        for number in range(start, stop):
            frames = np.random.default_rng(number).random((9, self.channels, 16, 16), np.float32)
            made.append(frames * np.linspace(1, 0.5, 9, dtype=np.float32)[:, None, None, None])
        frames = torch.from_numpy(np.stack(made))
        future = frames[:, 4 : 4 + self.future]
        valid = torch.ones_like(future[:, :, :1], dtype=torch.bool)
        valid[..., :5] = False
        return Clip(frames[:, 4 - self.past : 4], future, valid if self.unobserved else None)


class Add(nn.Module):
    """The last past frame, plus `amount` at every pass."""

    stride = 1

    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = nn.Parameter(torch.tensor(amount))

    def forward(self, past: Tensor) -> Tensor:
        return (past[:, -1:] + self.amount).expand_as(past)


def adding(amount: float, frames_in: int, frames_out: int, **fields: Any) -> Forecaster:
    spec = ModelSpec(arch="tau", frames_in=frames_in, frames_out=frames_out, channels=1, height=16, width=16)
    return Forecaster(spec.replace(**fields), Add(amount), LoadReport("", None, 0, 0, ""))


@pytest.fixture
def models(forecaster: Forecaster) -> dict[str, Forecaster]:
    """One with a network that reads four frames, and two that read fewer and forecast one or two at a time."""
    return {"net": forecaster, "bright": adding(0.1, 2, 2), "dark": adding(-0.1, 1, 1)}


def compared(models: dict[str, Forecaster], clips: ClipSource | None = None, **options: Any) -> Comparison:
    return compare(models, Noise() if clips is None else clips, protocol="p", progress=False, **options)


def figures(found: Comparison) -> dict[str, Any]:
    return {name: (report.steps, report.total) for name, report in found.reports.items()}


@pytest.mark.parametrize("definition", ["stzoo", "openstl", "stzoo-rain"])
@pytest.mark.parametrize("unobserved", [False, True])
def test_figures_are_those_of_evaluate(models: dict[str, Forecaster], definition: str, unobserved: bool) -> None:
    found = compared(models, Noise(unobserved=unobserved), definition=definition, batch=2)
    for name, model in models.items():
        own = Noise(past=model.spec.frames_in, unobserved=unobserved)
        alone = evaluate(model, own, name=name, protocol="p", definition=definition, progress=False, batch=2)
        assert found.reports[name] == alone
        assert found.first.persistence_steps == alone.persistence_steps
    assert list(found.reports) == ["net", "bright", "dark"]


def test_a_model_of_short_forecasts_goes_on_from_its_own() -> None:
    """Clip 0 alone: at step t the model that adds 0.1 has added it as often as it was asked."""
    found = compared({"two": adding(0.1, 2, 2), "one": adding(0.1, 1, 1)}, clip=0)
    frames = Noise().clips(0, 1)
    last = frames.past[0, -1].numpy()
    assert found.shown is not None
    for name, passes in (("one", [1, 2, 3, 4, 5]), ("two", [1, 1, 2, 2, 3])):
        expected = np.stack([last + 0.1 * count for count in passes])
        np.testing.assert_allclose(found.shown.forecasts[name], expected, atol=1e-6)
    np.testing.assert_array_equal(found.shown.truth, frames.future[0])
    np.testing.assert_array_equal(found.shown.past, frames.past[0])


def test_what_is_shown_is_the_forecast_of_that_clip(models: dict[str, Forecaster]) -> None:
    found = compared(models, clip=3)
    past = Noise().clips(3, 4).past[0]
    assert found.shown is not None
    assert found.shown.number == 3
    for name, model in models.items():
        expected = model.rollout(past, 5).numpy()  # which clips it to the range
        np.testing.assert_allclose(found.shown.forecasts[name].clip(0, 1), expected, atol=1e-6)


def test_values_of_another_range_are_measured_and_shown_from_0_to_1() -> None:
    class Wide(Noise):
        def clips(self, start: int, stop: int) -> Clip:
            clip = super().clips(start, stop)
            return Clip(clip.past * 20 - 10, clip.future * 20 - 10)

    wide, usual = adding(2.0, 2, 2, value_range=[-10.0, 10.0]), adding(0.1, 2, 2)
    one, other = compared({"a": wide}, Wide(), clip=1), compared({"a": usual}, clip=1)
    assert one.reports["a"].steps["mse"] == pytest.approx(other.reports["a"].steps["mse"], rel=1e-4)
    assert one.shown is not None
    assert other.shown is not None
    np.testing.assert_allclose(one.shown.forecasts["a"], other.shown.forecasts["a"], atol=1e-5)
    np.testing.assert_allclose(one.shown.past, other.shown.past, atol=1e-5)


def test_it_is_a_table_json_and_csv(models: dict[str, Forecaster]) -> None:
    found = compared(models)
    heading, names, *rows = str(found).splitlines()
    assert heading == "p: 5 sequences, metrics as defined by stzoo, forecasts in float32"
    assert names.split() == ["model", "parameters", "mse", "mae", "ssim", "psnr", "skill"]
    assert [row.split()[0] for row in rows] == ["net", "bright", "dark", "persistence"]
    assert len({len(row) for row in (names, *rows)}) == 1
    report = found.reports["bright"]
    assert rows[1].split()[1:] == ["1", *(f"{v:.4f}" for v in report.total.values()), f"{report.skill:.4f}"]
    assert rows[3].split()[1:] == ["-", *(f"{v:.4f}" for v in report.persistence_total.values()), "-"]

    values = json.loads(found.to_json())
    assert (values["protocol"], values["clips"], values["definition"]) == ("p", 5, "stzoo")
    assert [model["model"] for model in values["models"]] == list(models)
    assert values["models"][0]["steps"] == found.reports["net"].steps
    assert values["models"][1]["skill"] == report.skill
    assert values["persistence"]["total"] == report.persistence_total

    table = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [(row["model"], row["step"]) for row in table] == [
        (name, str(step)) for name in (*models, "persistence") for step in range(1, 6)
    ]
    assert [float(row["ssim"]) for row in table[5:10]] == pytest.approx(report.steps["ssim"], rel=1e-5)
    assert [float(row["mse"]) for row in table[15:]] == pytest.approx(report.persistence_steps["mse"], rel=1e-5)
    assert (table[5]["parameters"], table[15]["parameters"]) == ("1", "")


def test_large_figures_stay_apart(models: dict[str, Forecaster]) -> None:
    found = compared(models)
    report = found.reports["dark"]
    large = {name: value * 1e6 for name, value in report.total.items()}
    steps = {name: [value * 1e6 for value in values] for name, values in report.steps.items()}
    found = replace(found, reports={**found.reports, "dark": replace(report, total=large, steps=steps)})
    rows = str(found).splitlines()[1:]
    assert {len(row.split()) for row in rows} == {7}
    assert len({len(row) for row in rows}) == 1
    assert {len(row.split()) for row in str(found.reports["dark"]).splitlines()[2:]} == {10}


def test_many_metrics_are_several_tables() -> None:
    rain = {"value_range": [-10.4, 40.6]}

    class Rain(Noise):
        def clips(self, start: int, stop: int) -> Clip:
            clip = super().clips(start, stop)
            return Clip(clip.past * 51 - 10.4, clip.future * 51 - 10.4)

    parts = JoinedClips((Part("near", Rain(), 5.0), Part("far", Rain(), 5.0)))
    found = compared({"a": adding(0.1, 2, 2, **rain)}, parts, definition="stzoo-rain-rates", clip=7)
    text = str(found)
    assert found.first.clips == 10
    assert text.count("persistence") == text.count("parameters") == 4
    assert text.count("skill") == 1
    for metric in ("csi_1", "mse"):
        chart = found.chart(metric)
        above, _ = chart.figure.axes
        assert above.get_xlabel() == "steps ahead, of 5 minutes"


def test_values_without_a_range_are_compared_in_units_and_drawn_by_the_range_of_the_past() -> None:
    class Counts(Noise):
        def clips(self, start: int, stop: int) -> Clip:
            clip = super().clips(start, stop)
            return Clip(clip.past * 1000, clip.future * 1000)

    model = adding(100.0, 4, 4, value_range=None)  # and so 200 at the fifth step, in the second block
    with pytest.raises(DataError, match="the values of a have no range; use the metrics stzoo-units"):
        compared({"a": model}, Counts())
    found = compared({"a": model}, Counts(), definition="stzoo-units", clip=1)
    whole = Counts().clips(0, 5)
    added = torch.tensor([100.0, 100.0, 100.0, 100.0, 200.0])[:, None, None, None]
    wanted = (whole.past[:, -1:] + added - whole.future).double().square().mean((0, 2, 3, 4))
    assert found.reports["a"].steps["mse"] == pytest.approx(wanted.tolist(), rel=1e-5)
    clip, shown = Counts().clips(1, 2), found.shown
    assert shown is not None
    low, high = clip.past.min(), clip.past.max()
    np.testing.assert_allclose(shown.past, ((clip.past[0] - low) / (high - low)).numpy(), atol=1e-6)
    np.testing.assert_allclose(shown.truth, ((clip.future[0] - low) / (high - low)).numpy(), atol=1e-6)


def drawn(chart: Any) -> tuple[dict[str, list[float]], np.ndarray, Sequence[str]]:
    """The curves of a chart by name, the image of its strip, and the names of its rows."""
    above, below = chart.figure.axes
    names = [text.get_text() for text in chart.figure.legends[0].get_texts()]
    curves = {name: line.get_ydata().tolist() for name, line in zip(names, above.lines, strict=True)}
    return curves, below.images[0].get_array(), [text.get_text() for text in below.get_yticklabels()]


@pytest.mark.parametrize("metric", ["mse", "ssim"])
def test_a_chart_shows_the_figures_and_the_clip(models: dict[str, Forecaster], metric: str) -> None:
    found = compared(models, clip=2)
    curves, sheet, rows = drawn(found.chart(metric))
    expected = {name: report.steps[metric] for name, report in found.reports.items()}
    assert curves == {**expected, "persistence": found.first.persistence_steps[metric]}
    assert rows == ["truth", *models]
    frames = Noise().clips(2, 3)
    cells = sheet.reshape(4, 18, 9, 18, 4)[:, 1:-1, :, 1:-1]  # each frame of 16x16 has a gap of one pixel around it
    brightest = max(frames.past.max().item(), frames.future.max().item())
    for column in range(4):
        np.testing.assert_allclose(cells[0, :, column, :, 0], frames.past[0, column, 0] / brightest, atol=1e-6)
        assert (cells[1:, :, column, :, 3] == 0).all()  # nothing is forecast of the past
    for step in range(5):
        np.testing.assert_allclose(cells[0, :, 4 + step, :, 1], frames.future[0, step, 0] / brightest, atol=1e-6)
        for row, name in enumerate(models, 1):
            assert found.shown is not None
            made = (found.shown.forecasts[name][step, 0] / brightest).clip(0, 1)
            np.testing.assert_allclose(cells[row, :, 4 + step, :, 2], made, atol=1e-6)


def test_unobserved_cells_of_the_truth_are_empty(models: dict[str, Forecaster]) -> None:
    _, sheet, _ = drawn(compared(models, Noise(unobserved=True), clip=0).chart())
    cells = sheet.reshape(4, 18, 9, 18, 4)[:, 1:-1, :, 1:-1]
    assert (cells[0, :, 4:, :5, 3] == 0).all()
    assert (cells[0, :, 4:, 5:, 3] == 1).all()
    assert (cells[1:, :, 4:, :, 3] == 1).all()


def test_of_a_long_clip_some_frames_are_shown() -> None:
    class Long(Noise):
        def clips(self, start: int, stop: int) -> Clip:
            clip = super().clips(start, stop)
            return Clip(clip.past.repeat(1, 3, 1, 1, 1), clip.future.repeat(1, 8, 1, 1, 1))

    chart = compared({"a": adding(0.0, 2, 2)}, Long(), clip=0).chart()
    labels = [text.get_text() for text in chart.figure.axes[1].get_xticklabels()]
    assert labels[:5] == ["-3", "-2", "-1", "0", "+1"]
    assert labels[-1] == "+40"
    assert len(labels) == 20
    assert len(set(labels)) == 20


def test_colour_is_shown_in_colour() -> None:
    model = adding(0.0, 2, 2, channels=3)
    _, sheet, _ = drawn(compared({"a": model}, Noise(channels=3), clip=0).chart())
    assert not np.allclose(sheet[..., 0], sheet[..., 1])


def test_a_chart_needs_no_clip(models: dict[str, Forecaster]) -> None:
    found = compared(models)
    assert found.shown is None
    assert len(found.chart().figure.axes) == 1
    with pytest.raises(
        SpecError, match="there is no metric 'lpips' in the definition stzoo; it has mse, mae, ssim, psnr"
    ):
        found.chart("lpips")


def test_what_cannot_be_compared_is_refused(spec: ModelSpec) -> None:
    def refused(message: str, *others: ModelSpec, error: type[Exception] = SpecError, **options: Any) -> None:
        with pytest.raises(error, match=message):
            compared({f"m{number}": create(each) for number, each in enumerate((spec, *others))}, **options)

    refused("m0 and m1 cannot read the same frames: channels 1 and 3; compare", spec.replace(channels=3))
    refused(
        r"range of values \(0.0, 1.0\) and \(0.0, 2.0\), value for what is missing None and 0.5",
        spec.replace(value_range=[0.0, 2.0], fill=0.5),
    )
    refused("there is no clip 5; the number may be 0 to 4", clip=5)
    refused("there is no clip -1", clip=-1)
    refused("4 past frames of 1x16x16; m1 reads 6 of 1 channels", spec.replace(frames_in=6), error=DataError)
    with pytest.raises(DataError, match="the clips have no future frames"):
        compared({"m": create(spec)}, Noise(future=0))
    with pytest.raises(SpecError, match="there is no model to compare; name one at least"):
        compared({})
    with pytest.raises(SpecError, match="a model is called persistence"):
        compared({"persistence": create(spec)})


def test_no_model_is_measured_if_one_of_them_cannot_be() -> None:
    asked = []

    class Asked(Noise):
        def clips(self, start: int, stop: int) -> Clip:
            asked.append(stop - start)
            return super().clips(start, stop)

    fixed = adding(0.1, 2, 2, height=8)
    fixed.module.stride = None  # type: ignore[assignment]
    with pytest.raises(DataError, match="16x16; 8x16 is the only size that fixed takes, because its weights"):
        compared({"net": adding(0.1, 2, 2), "fixed": fixed}, Asked())
    assert max(asked) == 1  # looked at, and not forecast


def test_names_stay_on_their_lines(models: dict[str, Forecaster]) -> None:
    found = compared({"a\nb\x1b[31m": models["dark"]})
    assert str(found).splitlines()[2].startswith(r"a\nb\x1b[31m ")
    assert len(str(found).splitlines()) == 4
    assert str(found.first).splitlines()[0].startswith(r"a\nb\x1b[31m on p: ")
    assert found.to_csv().splitlines()[1] == '"a'  # programs get the name itself


def test_a_notebook_shows_the_table(models: dict[str, Forecaster]) -> None:
    found = compared({"<b>net</b>": models["net"], "dark": models["dark"]})
    head, *rows = Parsed(found._repr_html_()).rows
    assert head == ["model", "parameters", *found.first.total, "skill"]
    assert [row[0] for row in rows] == ["<b>net</b>", "dark", "persistence"]
    assert rows[1][2] == f"{found.reports['dark'].total['mse']:.4f}"
