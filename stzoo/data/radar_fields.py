"""Whole fields of the events of `stzoo.data.radar`, each event at its own size: to measure on, and not to train on.

A clip starts at every `HOP`-th frame of an event. Nothing is left out, however dry or unobserved it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stzoo.data import Reading, Split
from stzoo.data.joined import JoinedClips, Part
from stzoo.data.radar import RadarEvents, open_events
from stzoo.data.recordings import sliding_clips
from stzoo.errors import DataError

HOP = 2  # frames from the start of one clip to the next


def open_folder(folder: Path, reading: Reading) -> RadarFields:
    """Every ``.npz`` file of the folder is an event. Raises `DataError` as `stzoo.data.radar.open_events`."""
    return RadarFields(open_events(folder, reading))


@dataclass(frozen=True)
class RadarFields:
    """Whole fields. Each event is a part of the joined clips, because fields of different events differ in size."""

    events: RadarEvents

    def split(self, name: Split, frames_in: int, frames_out: int) -> JoinedClips:
        if name == "train":
            raise DataError("radar-fields are to measure on; train on radar-crops, of the same files")
        parts = []
        for event in self.events.recordings(name):
            clips = sliding_clips([event], frames_in, frames_out, HOP)
            parts.append(Part(event.name, clips, self.events.step_minutes(event.name)))
        if not parts:
            raise DataError(f"{self.events.folder}: the {name} part has no event")
        return JoinedClips(tuple(parts))

    def describe(self) -> str:
        return self.events.describe()
