"""Datasets. Each yields the same `Clip`: past and future frames in the units of the files, uint8 or float32.

A dataset is one file of this room, which has a function ``open_folder(folder, reading) -> Dataset``, and one record in
`DATASETS`. Nothing else has to know of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

from stzoo.errors import DataError
from stzoo.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Clip:
    """A batch of sequences, cut into past and future.

    Attributes:
        past: (B, T, C, H, W) uint8 or float32, in the units of the files.
        future: (B, T', C, H, W), of the same dtype and on the same device.
        valid: (B, T', 1, H, W) booleans, true where the future was observed; None if all of it was.
        seen: (B, T, 1, H, W) booleans, true where the past was observed; None if all of it was. Forecasts that are
            measured go by it, as `predict` does; training reads the values that stand for what was not observed.
    """

    past: Tensor
    future: Tensor
    valid: Tensor | None = None
    seen: Tensor | None = None


class ClipSource(Protocol):
    """Clips by number: clip i is the same in every process, on every machine, in every batch."""

    def __len__(self) -> int:
        """How many clips there are."""
        ...

    def clips(self, start: int, stop: int) -> Clip:
        """The clips start, start + 1, ... stop - 1 as one batch. Raises IndexError if there are not so many."""
        ...


@dataclass(frozen=True)
class FirstClips:
    """The first `count` clips of a source, which has at least so many."""

    source: ClipSource
    count: int

    def __len__(self) -> int:
        return self.count

    def clips(self, start: int, stop: int) -> Clip:
        """As `ClipSource.clips`."""
        if not 0 <= start <= stop <= self.count:
            raise IndexError(f"clips {start} to {stop} of {self.count}")
        return self.source.clips(start, stop)


class Dataset(Protocol):
    """A folder of files, split once and for all into clips to train on, to validate on and to test on."""

    def split(self, name: Split, frames_in: int, frames_out: int) -> ClipSource:
        """The clips of one part, each with `frames_in` past and `frames_out` future frames.

        Raises:
            DataError: the part has no such clips, or a file cannot be read. The message names the file or the folder.
        """
        ...

    def describe(self) -> str:
        """A few lines about what was found, and where."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files become frames of the size a model was trained on.

    Attributes:
        channels, height, width: of a frame. Images and videos are resized to it, and made gray or RGB.
        zoom: videos and images of the training part are read this many times larger, so that windows can be cut from
            them.
        value_range: (low, high) between which floats must lie; None allows all values.
        fill: the value that replaces missing values (NaN) in arrays; None refuses missing values.
        every: only the frames 0, every, 2 * every, ... of a recording are kept.
        skip_bad: leave out files that cannot be read, with a warning for each, instead of raising an error.
        own_size: frames of your own clips stay at the size that their file has, whatever `height` and `width` say.
        units: of a model of rain, the unit of the numbers in your own arrays and maps; None goes by the attribute of a
            map, and takes numbers without one as dBR.
    """

    channels: int
    height: int
    width: int
    zoom: float = 1.0
    value_range: tuple[float, float] | None = None
    fill: float | None = None
    every: int = 1
    skip_bad: bool = False
    own_size: bool = False
    units: str | None = None

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        *,
        zoom: float = 1.0,
        every: int = 1,
        skip_bad: bool = False,
        own_size: bool = False,
        units: str | None = None,
    ) -> Reading:
        """The reading that gives frames as `spec` describes them."""
        return cls(
            channels=spec.channels, height=spec.height, width=spec.width,
            zoom=zoom, value_range=spec.value_range, fill=spec.fill, every=every, skip_bad=skip_bad, own_size=own_size,
            units=units,
        )  # fmt: skip

    def larger(self) -> Reading:
        """The reading of the training part: height and width times `zoom`, rounded."""
        height, width = (round(side * self.zoom) for side in (self.height, self.width))
        return replace(self, height=height, width=width)


@dataclass(frozen=True)
class DatasetRecord:
    """All that the rest of the package needs to know of a dataset.

    Attributes:
        module: the name of its file in this room, without the suffix.
        files: what its folder must hold, in words.
        definition: how the metrics of its figures are defined: a key of `stzoo.metrics.DEFINITIONS`.
        matched: the catalogue keeps figures of matched forecasts as well, since some metrics are about areas.
    """

    module: str
    files: str
    definition: str = "stzoo"
    matched: bool = False


DATASETS: Mapping[str, DatasetRecord] = MappingProxyType(
    {
        "clips": DatasetRecord(
            "own_clips", "your own videos, animations, folders of images, .npy, .npz, netCDF or Zarr files"
        ),
        "kitti-caltech": DatasetRecord(
            "kitti_caltech", "the synced drives of KITTI raw and Caltech Pedestrian's .seq files"
        ),
        "kth": DatasetRecord("kth", "the avi files of KTH Actions and their list 00sequences.txt"),
        "mfmnist": DatasetRecord("mfmnist", "the IDX files of Fashion-MNIST"),
        "mmnist": DatasetRecord("mmnist", "the IDX files of MNIST"),
        "ped2": DatasetRecord("ped2", "the clips of UCSD Ped2 as videos, training_01.mp4 to testing_12.mp4"),
        "people": DatasetRecord("people", "the folders ut_interaction and ped2 with the files of those datasets"),
        "radar": DatasetRecord(
            "radar", "one .npz a rain event, with frames (T, H, W) in steps of 0.2 dBR", "stzoo-rain"
        ),
        "radar-crops": DatasetRecord("radar_crops", "the same files as of radar", "stzoo-rain-rates", matched=True),
        "radar-fields": DatasetRecord("radar_fields", "the same files as of radar", "stzoo-rain-rates", matched=True),
        "taxibj": DatasetRecord("taxibj", "the four files BJ13 to BJ16_M32x32_T30_InOut.h5"),
        "taxinyc": DatasetRecord("taxinyc", "the five files taxinyc_10.h5 to taxinyc_14.h5", "stzoo-units"),
        "ut": DatasetRecord("ut_interaction", "the segmented avi files of UT-Interaction in set1 and set2"),
    }
)


def open_dataset(name: str, folder: Path, reading: Reading) -> Dataset:
    """Open a dataset.

    Args:
        name: a key of `DATASETS`.
        folder: where its files lie.
        reading: what its frames shall be like.

    Raises:
        DataError: there is no such dataset, or the folder does not exist or does not hold the files, or the dataset
            has no frames like these.
        MissingExtraError: a package that reads the files is not installed.
    """
    if name not in DATASETS:
        raise DataError(f"there is no dataset {name!r}; there are {', '.join(DATASETS)}")
    if not folder.exists():
        raise DataError(f"{folder} does not exist; give the folder with {DATASETS[name].files}")
    dataset: Dataset = import_module(f"stzoo.data.{DATASETS[name].module}").open_folder(folder, reading)
    return dataset


def protocol_name(
    dataset: str, frames_in: int, frames_out: int, *, codec: bool = False, every: int = 1, matched: bool = False
) -> str:
    """The name of what is measured, such as "kth-10-20": KTH's test part, 10 frames given, 20 frames forecast.

    Args:
        dataset: a key of `DATASETS`.
        frames_in, frames_out: how many frames are given and forecast.
        codec: single frames are encoded and decoded instead; the name is then such as "mmnist-frames".
        every: only the frames 0, every, 2 * every, ... are used; with 3, the name ends in "-every-3".
        matched: forecasts get the values of the last past frame, see `stzoo.engine.matching`; the name ends in
            "-matched".
    """
    horizon = "frames" if codec else f"{frames_in}-{frames_out}"
    return f"{dataset}-{horizon}" + (f"-every-{every}" if every > 1 else "") + ("-matched" if matched else "")
