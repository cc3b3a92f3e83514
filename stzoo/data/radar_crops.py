"""Crops of the events of `stzoo.data.radar`, dry ones too: the climate's share of dry and wet, to train on.

Crops that are mostly unobserved are left out, and no others. In the training part each event has the same number of
clips, because a large grid holds many more crops than a small one and is no more typical of the radars that a model
will meet: they are drawn once from all crops on the grid, and those of a small event come several times.

How far rain changes from one frame to the next depends on the time between them. So that a model learns it for one
step, frames of the training part are about `STEP` minutes apart: of faster events every second frame is used, or every
third, and slower ones are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from stzoo.data import Reading, Split
from stzoo.data.joined import JoinedClips, Part
from stzoo.data.radar import OBSERVED, RadarEvents, open_events, places_of
from stzoo.data.recordings import RecordedClips, Recording
from stzoo.errors import DataError

HOP: Mapping[Split, tuple[int, int]] = MappingProxyType(
    {"train": (1, 16), "validation": (1, 32), "test": (3, 64)}
)  # between clips: frames, cells
STEP = 5.0  # minutes from frame to frame in the training part, between 0.8 and 1.25 times which an event's may be
PER_EVENT = 4000  # clips of each event of the training part


def open_folder(folder: Path, reading: Reading) -> RadarCrops:
    """Every ``.npz`` file of the folder is an event. Raises `DataError` as `stzoo.data.radar.open_events`."""
    return RadarCrops(open_events(folder, reading))


@dataclass(frozen=True)
class RadarCrops:
    """Crops of the reading's size, on a grid in space and time, wherever enough was observed.

    Each event is a part of the joined clips of the test, so that figures can be told for each.
    """

    events: RadarEvents

    def split(self, name: Split, frames_in: int, frames_out: int) -> RecordedClips | JoinedClips:
        reading, length = self.events.reading, frames_in + frames_out
        recordings = tuple(self.events.recordings(name))
        if name == "train":
            recordings = tuple(part for each in recordings for part in self._in_steps(each))
        places = places_of(recordings, (length, reading.height, reading.width), *HOP[name])
        if not len(places):
            raise DataError(
                f"{self.events.folder}: the {name} part has no crop of {length} frames of "
                f"{reading.height}x{reading.width} of which at least {OBSERVED:.0%} was observed"
            )
        if name == "train":
            places = _as_many_of_each(places, [each.name for each in recordings])
        clips = RecordedClips(recordings, places, frames_in, frames_out, reading.height, reading.width)
        return self._by_event(clips) if name == "test" else clips

    def _in_steps(self, event: Recording) -> list[Recording]:
        """The event in frames about `STEP` minutes apart: several times, if it is thinned; as it is if nobody knows."""
        minutes = self.events.step_minutes(event.name)
        if minutes is None:
            return [event]
        every = max(1, round(STEP / minutes))
        if not 0.8 <= every * minutes / STEP <= 1.25:
            return []
        return [
            replace(event, frames=event.frames[first::every], valid=event.valid[first::every])  # type: ignore[index]
            for first in range(every)
        ]

    def _by_event(self, clips: RecordedClips) -> JoinedClips:
        parts = []
        for number in np.unique(clips.places[:, 0]):
            event = clips.recordings[number].name
            own = replace(clips, places=clips.places[clips.places[:, 0] == number])
            parts.append(Part(event, own, self.events.step_minutes(event)))
        return JoinedClips(tuple(parts))

    def describe(self) -> str:
        return self.events.describe()


def _as_many_of_each(places: np.ndarray, events: list[str]) -> np.ndarray:
    """(n, 4) places -> `PER_EVENT` of each event that has any, drawn at random but always the same.

    Args:
        places: they begin with the number of a recording.
        events: for each recording the event that it is of.
    """
    order = np.random.default_rng(0).permutation(places)
    event = np.array(events)[order[:, 0]]
    return np.concatenate([np.resize(order[event == name], (PER_EVENT, 4)) for name in np.unique(event)])
