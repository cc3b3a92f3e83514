import csv
import dataclasses
import io
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stzoo.data import Clip
from stzoo.data.joined import JoinedClips, Part, first_clips, parts_of
from stzoo.errors import DataError
from stzoo.evaluate import evaluate
from stzoo.forecaster import Forecaster
from stzoo.spec import ModelSpec
from stzoo.weights import LoadReport


class Repeat(nn.Module):
    """Persistence as a model."""

    stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, past: Tensor) -> Tensor:
        return past[:, -1:].expand_as(past)


class Ramp:
    """Clip i brightens by (i + 1) / 100 a frame, from black; the metrics are known by arithmetic."""

    def __len__(self) -> int:
        return 5

    def clips(self, start: int, stop: int) -> Clip:
        slope = torch.arange(start + 1, stop + 1) / 100
        frames = (slope[:, None] * torch.arange(6))[:, :, None, None, None].expand(-1, -1, 1, 8, 8)
        return Clip(frames[:, :2], frames[:, 2:])


@pytest.fixture
def persistence() -> Forecaster:
    spec = ModelSpec(arch="tau", frames_in=2, frames_out=2, channels=1, height=8, width=8)
    return Forecaster(spec, Repeat(), LoadReport("", None, 0, 0, ""))


def test_frames_that_are_too_small_for_ssim_are_refused_before_they_are_forecast(persistence: Forecaster) -> None:
    class Strips(Ramp):
        def clips(self, start: int, stop: int) -> Clip:
            clip = super().clips(start, stop)
            return Clip(clip.past[..., :5], clip.future[..., :5])

    with pytest.raises(DataError, match=r"SSIM needs frames of at least 7x7 pixels, not 8x5; .*stzoo-units"):
        evaluate(persistence, Strips(), name="n", protocol="p", progress=False)
    report = evaluate(persistence, Strips(), name="n", protocol="p", definition="stzoo-units", progress=False)
    assert report.total["mse"] > 0


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_figures_are_means_over_clips_and_steps(persistence: Forecaster, batch: int) -> None:
    report = evaluate(persistence, Ramp(), name="n", protocol="p", batch=batch, progress=False)
    slopes = np.arange(1, 6) / 100
    expected = [64 * np.mean((slopes * step) ** 2) for step in (1, 2, 3, 4)]
    assert report.clips == 5
    assert report.steps["mse"] == pytest.approx(expected, rel=1e-5)
    assert report.total["mse"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert report.steps == report.persistence_steps
    assert report.total == report.persistence_total


def test_figures_do_not_depend_on_the_units_of_the_spec(persistence: Forecaster) -> None:
    """Values in [-1, 1] are measured as if they lay in [0, 1]."""

    class Shifted(Ramp):
        def clips(self, start: int, stop: int) -> Clip:
            clip = super().clips(start, stop)
            return Clip(clip.past * 2 - 1, clip.future * 2 - 1)

    signed = Forecaster(persistence.spec.replace(value_range=[-1.0, 1.0]), Repeat(), persistence.report)
    ours = evaluate(persistence, Ramp(), name="n", protocol="p", progress=False).total
    assert evaluate(signed, Shifted(), name="n", protocol="p", progress=False).total == pytest.approx(ours, rel=1e-4)


@pytest.mark.parametrize("value_range", [None, [0.0, 400.0]])
def test_errors_of_a_cell_are_in_units_with_a_range_or_without(persistence: Forecaster, value_range: Any) -> None:
    """A count of 100 becomes 110, 120, 130 and 140 in half of the frame, the first of which nobody saw."""

    class Counts(Ramp):
        def clips(self, start: int, stop: int) -> Clip:
            counts = torch.tensor([100.0, 100.0, 110.0, 120.0, 130.0, 140.0])[None, :, None, None, None]
            frames = counts.expand(stop - start, -1, 1, 8, 8).clone()
            frames[..., 4:] = 100.0
            valid = torch.ones(stop - start, 4, 1, 8, 8, dtype=torch.bool)
            valid[:, 0, :, :, :4] = False
            return Clip(frames[:, :2], frames[:, 2:], valid)

    model = Forecaster(persistence.spec.replace(value_range=value_range), Repeat(), persistence.report)
    report = evaluate(model, Counts(), name="n", protocol="p", definition="stzoo-units", progress=False)
    assert report.steps == report.persistence_steps
    assert report.steps["mse"] == pytest.approx([0, 200, 450, 800])
    assert report.steps["mae"] == pytest.approx([0, 10, 15, 20])


def test_what_cannot_be_measured_is_refused(persistence: Forecaster) -> None:
    class Empty(Ramp):
        def __len__(self) -> int:
            return 0

    def run(spec: ModelSpec, clips: Ramp, definition: str = "stzoo") -> None:
        model = Forecaster(spec, Repeat(), persistence.report)
        evaluate(model, clips, name="n", protocol="p", definition=definition, progress=False)

    with pytest.raises(DataError, match="no range; use the metrics stzoo-units"):
        run(persistence.spec.replace(value_range=None), Ramp())
    with pytest.raises(DataError, match="2 past frames of 1x8x8; this model reads 3 of 1"):
        run(persistence.spec.replace(frames_in=3), Ramp())
    with pytest.raises(DataError, match="of 2 channels"):
        run(persistence.spec.replace(channels=2), Ramp())
    with pytest.raises(DataError, match="no clips"):
        run(persistence.spec, Empty())
    with pytest.raises(DataError, match="it may be stzoo"):
        run(persistence.spec, Ramp(), "other")


def test_a_report_is_text_json_and_csv(persistence: Forecaster) -> None:
    report = evaluate(persistence, Ramp(), name="n", protocol="p", progress=False)
    assert json.loads(report.to_json())["total"] == report.total
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert [float(r["persistence_mse"]) for r in rows] == pytest.approx(report.persistence_steps["mse"], rel=1e-5)
    assert "n on p: 5 sequences, metrics as defined by stzoo" in str(report)
    assert len(str(report).splitlines()) == 2 + 4 + 1


def test_the_definition_is_the_one_asked_for(persistence: Forecaster) -> None:
    ours = evaluate(persistence, Ramp(), name="n", protocol="p", progress=False)
    theirs = evaluate(persistence, Ramp(), name="n", protocol="p", definition="simvp-2022", progress=False)
    assert theirs.definition == "simvp-2022"
    assert theirs.total["mse"] == ours.total["mse"]
    assert theirs.total["psnr"] != ours.total["psnr"]


class Half(Ramp):
    """The same clips; in the left half the truth is unknown and the files hold nonsense."""

    def clips(self, start: int, stop: int) -> Clip:
        clip = super().clips(start, stop)
        valid = torch.ones_like(clip.future, dtype=torch.bool)
        valid[..., :4] = False
        return Clip(clip.past, torch.where(valid, clip.future, torch.tensor(0.77)), valid)


def test_unknown_cells_change_no_figure(persistence: Forecaster) -> None:
    """Frames are flat, so that half of one has the error per cell, and the likeness, of the whole."""
    masked, plain = (evaluate(persistence, c, name="n", protocol="p", progress=False) for c in (Half(), Ramp()))
    for metric in ("mse", "mae", "psnr"):
        assert masked.steps[metric] == pytest.approx(plain.steps[metric], rel=1e-6)
    assert masked.persistence_total["mse"] == pytest.approx(plain.persistence_total["mse"], rel=1e-6)


def test_the_critical_success_index_is_pooled_over_clips(persistence: Forecaster) -> None:
    """Persistence forecasts the last past frame, slope * 1; the truth of step k is slope * (k + 1). In [0, 1] the
    threshold of 1 mm/h is 10.4 / 51 = 0.2039; make the slopes so large that some clips pass it."""

    class Steep(Ramp):
        def clips(self, start: int, stop: int) -> Clip:
            clip = super().clips(start, stop)
            return Clip(clip.past * 8, (clip.future * 8).clamp(max=1.0))

    report = evaluate(persistence, Steep(), name="n", protocol="p", definition="stzoo-rain", progress=False, batch=2)
    slopes = 0.08 * np.arange(1, 6)
    forecast = slopes >= 10.4 / 51
    truth = [np.minimum(slopes * step, 1) >= 10.4 / 51 for step in (2, 3, 4, 5)]
    expected = [(forecast & t).sum() / (forecast | t).sum() for t in truth]
    assert report.steps["csi_1"] == pytest.approx(expected)
    assert report.persistence_steps["csi_1"] == pytest.approx(expected)
    assert 0 < report.total["csi_1"] < 1
    assert "csi_5" in str(report)


class Wide(Ramp):
    """Two clips of another size, steeper."""

    def __len__(self) -> int:
        return 2

    def clips(self, start: int, stop: int) -> Clip:
        frames = (0.1 * torch.arange(6))[None, :, None, None, None].expand(stop - start, -1, 1, 9, 12)
        return Clip(frames[:, :2], frames[:, 2:])


def test_parts_of_different_sizes_are_measured_together_and_each_for_itself(persistence: Forecaster) -> None:
    clips = JoinedClips((Part("narrow", Ramp(), 5.0), Part("wide", Wide(), 6.0)))
    report = evaluate(persistence, clips, name="n", protocol="p", progress=False, batch=3)
    assert report.clips == 7
    assert {name: part.clips for name, part in report.parts.items()} == {"narrow": 5, "wide": 2}
    for name, source in (("narrow", Ramp()), ("wide", Wide())):
        alone = evaluate(persistence, source, name="n", protocol="p", progress=False)
        for metric, curve in alone.steps.items():
            assert report.parts[name].steps[metric] == pytest.approx(curve)
        assert report.parts[name].protocol == f"p, {name}"
    narrow, wide = (report.parts[name].steps["mse"] for name in ("narrow", "wide"))
    assert report.steps["mse"] == pytest.approx([(5 * a + 2 * b) / 7 for a, b in zip(narrow, wide, strict=True)])
    assert report.step_minutes is None  # they differ
    text = str(report)
    assert text.count("persist. mse") == 3
    assert "3 (15 min)" in text
    assert "3 (18 min)" in text
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert [(r["part"], r["step"], r["minutes"]) for r in rows[:1] + rows[6:7] + rows[-1:]] == [
        ("", "1", ""),
        ("narrow", "3", "15"),
        ("wide", "4", "24"),
    ]
    values = json.loads(report.to_json())
    assert values["parts"]["wide"]["steps"] == report.parts["wide"].steps
    assert values["parts"]["wide"]["skill"] == report.parts["wide"].skill


def test_the_first_clips_of_several_parts(persistence: Forecaster) -> None:
    clips = JoinedClips((Part("narrow", Ramp()), Part("wide", Wide()), Part("more", Wide())))
    few, some = (first_clips(clips, count) for count in (5, 6))
    assert [(p.name, len(p.source)) for p in parts_of(few)] == [("narrow", 5)]
    assert [(p.name, len(p.source)) for p in parts_of(some)] == [("narrow", 5), ("wide", 1)]
    assert len(some) == 6
    assert len(first_clips(Ramp(), 3)) == 3


def test_rain_rates_are_in_mm_per_hour(persistence: Forecaster) -> None:
    """From 1 to 2, 3, 4 and 5 mm/h in half of the frame."""

    class Heavier(Ramp):
        def clips(self, start: int, stop: int) -> Clip:
            rates = torch.tensor([1.0, 1.0, 2.0, 3.0, 4.0, 5.0])[None, :, None, None, None]
            frames = (10 * rates.log10()).expand(stop - start, -1, 1, 8, 8).clone()
            frames[..., 4:] = -10.2
            return Clip(frames[:, :2], frames[:, 2:])

    model = Forecaster(persistence.spec.replace(value_range=[-10.4, 40.6]), Repeat(), persistence.report)
    report = evaluate(model, Heavier(), name="n", protocol="p", definition="stzoo-rain-rates", progress=False)
    assert report.steps["mse"] == pytest.approx([0.5, 2, 4.5, 8], rel=1e-4)
    assert report.steps["mae"] == pytest.approx([0.5, 1, 1.5, 2], rel=1e-4)
    assert report.steps["csi_1"] == [1, 1, 1, 1]
    assert report.steps["bias_5"][-1] == 0
    assert len(str(report).splitlines()) == 1 + 4 * (1 + 4 + 1)


def test_json_has_null_where_a_figure_is_not_defined(persistence: Forecaster) -> None:
    whole = evaluate(persistence, Ramp(), name="p", protocol="q", progress=False)
    report = dataclasses.replace(whole, total=whole.total | {"ssim": math.nan, "psnr": math.inf})

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    values = json.loads(report.to_json(), parse_constant=refuse)
    assert (values["total"]["ssim"], values["total"]["psnr"]) == (None, None)
    assert values["total"]["mse"] == whole.total["mse"]
