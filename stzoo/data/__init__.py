"""Datasets. Each yields the same `Clip`: past and future frames in the units of the files, uint8 or float32."""

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
    """A batch of sequences cut into past (B, T, C, H, W) and future (B, T', C, H, W), of one dtype, on one device.

    `valid` (B, T', 1, H, W) is true where the future was observed; None where all of it was.
    """

    past: Tensor
    future: Tensor
    valid: Tensor | None = None


class ClipSource(Protocol):
    """Clips by number: clip i is the same in every process, on every machine, in every batch."""

    def __len__(self) -> int: ...

    def clips(self, start: int, stop: int) -> Clip:
        """Clips start, start + 1, ... stop - 1. Raises IndexError beyond the end."""
        ...


@dataclass(frozen=True)
class Part:
    """The first `count` clips of a source."""

    source: ClipSource
    count: int

    def __len__(self) -> int:
        return self.count

    def clips(self, start: int, stop: int) -> Clip:
        if not 0 <= start <= stop <= self.count:
            raise IndexError(f"clips {start} to {stop} of {self.count}")
        return self.source.clips(start, stop)


class Dataset(Protocol):
    """A folder of files in a published layout, split once and for all."""

    def split(self, name: Split, frames_in: int, frames_out: int) -> ClipSource:
        """The clips of one part. Raises `DataError` where it has none; the message names the file or the folder."""
        ...

    def describe(self) -> str:
        """What was found where, in a few lines."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files become frames of the size a model was trained on.

    Attributes:
        channels, height, width: of a frame; images and videos are resized, and made gray or RGB.
        zoom: videos and images of the training part are read that many times larger, for windows to be cut from.
        value_range: what floats must lie in; None: anything.
        fill: what stands for missing values (NaN) in arrays, see `ModelSpec`; None: there may be none.
        every: keep the frames 0, every, 2 * every, ... of a recording.
        skip_bad: go on without files that cannot be read; a warning names each.
    """

    channels: int
    height: int
    width: int
    zoom: float = 1.0
    value_range: tuple[float, float] | None = None
    fill: float | None = None
    every: int = 1
    skip_bad: bool = False

    @classmethod
    def of(cls, spec: ModelSpec, *, zoom: float = 1.0, every: int = 1, skip_bad: bool = False) -> Reading:
        """As `spec` wants it."""
        return cls(
            channels=spec.channels, height=spec.height, width=spec.width,
            zoom=zoom, value_range=spec.value_range, fill=spec.fill, every=every, skip_bad=skip_bad,
        )  # fmt: skip

    def larger(self) -> Reading:
        """As the training part is read."""
        height, width = (round(side * self.zoom) for side in (self.height, self.width))
        return replace(self, height=height, width=width)


@dataclass(frozen=True)
class Known:
    """A dataset that can be opened.

    Attributes:
        module: the file of this room that opens it.
        files: what belongs into its folder, in words.
        definition: how the metrics of its figures are defined, a key of `stzoo.metrics.DEFINITIONS`.
    """

    module: str
    files: str
    definition: str = "stzoo"


DATASETS: Mapping[str, Known] = MappingProxyType(
    {
        "clips": Known("own_clips", "your own videos, animations, folders of images, .npy, .npz, netCDF or Zarr files"),
        "kitti-caltech": Known("kitti_caltech", "the synced drives of KITTI raw and Caltech Pedestrian's .seq files"),
        "kth": Known("kth", "the avi files of KTH Actions and their list 00sequences.txt"),
        "mmnist": Known("mmnist", "the IDX files of MNIST"),
        "radar": Known("radar", "one .npz a rain event, with frames (T, H, W) in steps of 0.2 dBR", "stzoo-rain"),
        "taxibj": Known("taxibj", "the four files BJ13 to BJ16_M32x32_T30_InOut.h5"),
        "ut": Known("ut_interaction", "the segmented avi files of UT-Interaction in set1 and set2"),
    }
)


def open_dataset(name: str, folder: Path, reading: Reading) -> Dataset:
    """The dataset `name`, a key of `DATASETS`, whose files lie in `folder`.

    Raises:
        DataError: no such dataset, or the folder is absent or holds none of its files.
    """
    if name not in DATASETS:
        raise DataError(f"no dataset {name!r}; there are {', '.join(DATASETS)}")
    if not folder.exists():
        raise DataError(f"{folder} does not exist")
    dataset: Dataset = import_module(f"stzoo.data.{DATASETS[name].module}").open_folder(folder, reading)
    return dataset


def protocol_name(dataset: str, frames_in: int, frames_out: int, *, codec: bool = False, every: int = 1) -> str:
    """Such as "kth-10-20": the dataset's test part, 10 frames given, 20 forecast. Of a codec "mmnist-frames"."""
    horizon = "frames" if codec else f"{frames_in}-{frames_out}"
    return f"{dataset}-{horizon}" + (f"-every-{every}" if every > 1 else "")
