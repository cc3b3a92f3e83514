"""Pictures for the page of an entry: animations of two of its test clips."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stzoo import viz
from stzoo.catalog import Entry
from stzoo.data import ClipSource
from stzoo.data.joined import together
from stzoo.errors import DataError, NotPublishedError, SpecError
from stzoo.evaluate.measuring import forecast, scaled
from stzoo.files import replacing, write_atomically
from stzoo.forecaster import Forecaster
from stzoo.metrics import mse
from stzoo.opening import load
from stzoo.spec import from_mapping

AMONG = 200  # clips of a test part, evenly spread, from which two are chosen
_SEEN = 48  # past frames that an animation shows, at most
_PANEL, _GRAYS = 128, 32  # height of a panel in pixels, about, and how many grays it has: both keep animations small


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The clip that an animation shows.

    Attributes:
        clip: its number in the test part.
        mse, persistence_mse: errors of the forecast and of persistence, means over steps.
    """

    clip: int
    mse: float
    persistence_mse: float


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What is known of the two animations of an entry; a file beside them says so.

    Attributes:
        sha256: of the weights that made the forecasts.
        among: how many clips of the test part, evenly spread over it, they were chosen from.
        worse: on how many of those the forecast has a larger error than persistence.
        typical, worst: what the two animations show.
        command: it makes the animations.
    """

    sha256: str
    among: int
    worse: int
    typical: Shown
    worst: Shown
    command: str


@dataclass(frozen=True)
class Footage:
    """The test clips of an entry, and the command that makes animations of them."""

    clips: ClipSource
    command: str


def check_filmed(entry: Entry) -> None:
    """Raises `SpecError` for a codec and `NotPublishedError` for an entry without weights; neither can forecast."""
    if entry.kind == "codec":
        raise SpecError(f"{entry.name} is a codec, which forecasts nothing; leave out the data")
    if entry.weights is None:
        raise NotPublishedError(f"{entry.name} has no weights yet, so it forecasts nothing; leave out the data")


def film(entry: Entry, footage: Footage, folder: Path) -> Iterator[Path]:
    """Write NAME-typical.gif, NAME-worst.gif and NAME-clips.json, which says what the two show; yield each file.

    NAME-clips.json is removed first and written last, so that it never describes other animations.

    Raises:
        DataError: nothing moves in the clips; the files are then as they were.
    """
    assert entry.weights is not None
    model = load(entry.name)
    numbers = spread(len(footage.clips), AMONG)
    errors = errors_of(model, footage.clips, numbers)
    typical, worst = typical_and_worst(errors)
    facts = folder / f"{entry.name}-clips.json"
    facts.unlink(missing_ok=True)
    for kind, place in (("typical", typical), ("worst", worst)):
        past, truth, made, _ = (x[0] for x in _forecast(model, footage.clips, numbers[place : place + 1]))
        past = past[-_SEEN:]  # of two weeks of hours the last days are enough to look at
        brightest = max(past.max(), truth.max()) or 1.0  # fields that use a small part of their range would look black
        panels = {"truth": _grays(past, truth, brightest), "forecast": _grays(past, made, brightest)}
        path = folder / f"{entry.name}-{kind}.gif"
        with replacing(path) as partial:
            scale = max(1, round(_PANEL / past.shape[-2]))
            viz.animation(partial, panels, given=len(past), scale=scale, seconds=0.2)
        yield path
    pictures = Pictures(
        sha256=entry.weights.sha256,
        among=len(numbers),
        worse=int((errors[:, 0] > errors[:, 1]).sum()),
        typical=_shown(numbers[typical], errors[typical]),
        worst=_shown(numbers[worst], errors[worst]),
        command=footage.command,
    )
    write_atomically(facts, (json.dumps(dataclasses.asdict(pictures), indent=2) + "\n").encode())
    yield facts


def pictures_of(entry: Entry, folder: Path) -> Pictures | None:
    """What is known of the animations of an entry in `folder`; None if one is missing, or they show other weights.

    Raises:
        SpecError: NAME-clips.json is damaged.
    """
    facts = folder / f"{entry.name}-clips.json"
    files = [facts, *(folder / f"{entry.name}-{kind}.gif" for kind in ("typical", "worst"))]
    if entry.weights is None or not all(file.exists() for file in files):
        return None
    try:
        found = from_mapping(Pictures, json.loads(facts.read_text("utf-8")), facts.name)
    except ValueError as error:  # a SpecError is one
        raise SpecError(f"{facts} is damaged; remove it, and make the animations again: {error}") from error
    return found if found.sha256 == entry.weights.sha256 else None


def spread(count: int, most: int) -> list[int]:
    """The numbers of at most `most` of `count` clips, evenly spread, the first and the last included."""
    return [int(number) for number in np.linspace(0, count - 1, min(count, most)).round()]


def errors_of(model: Forecaster, clips: ClipSource, numbers: Sequence[int], batch: int = 16) -> np.ndarray:
    """The MSE of the forecast and of persistence, means over steps, for each of these clips: (len(numbers), 2)."""
    found = []
    for start in range(0, len(numbers), batch):
        past, truth, made, valid = _forecast(model, clips, numbers[start : start + batch])
        last = np.broadcast_to(past[:, -1:], truth.shape)
        found.append(np.stack([np.nanmean(mse(x, truth, valid), 1) for x in (made, last)], 1))
    return np.concatenate(found)


def typical_and_worst(errors: np.ndarray) -> tuple[int, int]:
    """The places in `errors` (N, 2) of the clips with the median and the ninth decile of error relative to persistence.

    Clips in which nothing moves, or nothing was observed, have no such ratio and are passed over.

    Raises:
        DataError: no clip is left.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = errors[:, 0] / errors[:, 1]
    ranked = [int(i) for i in np.argsort(ratio, kind="stable") if np.isfinite(ratio[i])]
    if not ranked:
        raise DataError(f"nothing moves in any of {len(errors)} clips; there is nothing to show")
    return ranked[len(ranked) // 2], ranked[len(ranked) * 9 // 10]


def _shown(clip: int, errors: np.ndarray) -> Shown:
    error, persistence = (round(float(value), 4) for value in errors)
    return Shown(clip=clip, mse=error, persistence_mse=persistence)


def _grays(past: np.ndarray, future: np.ndarray, brightest: float) -> np.ndarray:
    """Past (T, C, H, W) and future (T', C, H, W) -> (T + T', H, W) whole grays; `brightest` is white.

    Channels are averaged.
    """
    frames = (np.concatenate([past, future]).mean(1) / brightest).clip(0, 1)
    return np.rint(frames * (_GRAYS - 1)) / (_GRAYS - 1)


@torch.no_grad()
def _forecast(
    model: Forecaster, clips: ClipSource, numbers: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Past, future and forecast (B, T, C, H, W), with the spec's range as [0, 1], and where the future was observed."""
    clip = together([clips.clips(number, number + 1) for number in numbers])
    made = forecast(model.engine, model.spec, clip)
    past, future, coming = (scaled(x, model.spec.value_range or (0.0, 1.0)).numpy() for x in made)
    valid = torch.ones_like(clip.future[:, :, :1], dtype=torch.bool) if clip.valid is None else clip.valid
    return past, future, coming, valid.numpy()
