"""What `stzoo forecast-archive` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stzoo.errors import DataError, SpecError
from stzoo.frames.arrays import ARRAYS
from stzoo.frames.fields import FIELDS
from stzoo.frames.images import ANIMATED
from stzoo.frames.video import WRITTEN
from stzoo.machine import DEVICES
from stzoo.scale.sources import TABLE, is_table

FORMATS = tuple(suffix[1:] for suffix in (*ARRAYS, *ANIMATED, *WRITTEN, ".nc"))


@dataclass(frozen=True, kw_only=True)
class Order:
    """Checked when it is made, as far as can be told without opening anything. None stands for a default.

    Attributes:
        source, model, steps, out: from where, by whom, how many frames each, to where.
        every: frames 0, every, 2 * every, ... of what is given are read.
        stride: of an archive: frames between two starts.
        column: of a table: the one that holds paths.
        format: of clips: the suffix of a forecast, without its dot.
        keep_size: leave images and videos at their own size.
        unit: forecasts that are made and kept together.
        device, precision, threads: what a worker runs the model on, in and with.
        workers: of Ray.
        in_process: without Ray.

    Raises:
        SpecError: a number below 1, or an option that means nothing here.
        DataError: no such source, or a place that cannot be written to.
    """

    source: Path
    model: str
    steps: int
    out: Path
    every: int
    stride: int | None
    column: str | None
    format: str | None
    keep_size: bool
    unit: int
    device: str
    precision: str
    threads: int | None
    workers: int | None
    in_process: bool

    def __post_init__(self) -> None:
        for name in ("steps", "every", "stride", "unit", "threads", "workers"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise SpecError(f"--{name} is {number}; it must be at least 1")
        if self.device not in DEVICES:
            raise SpecError(f"device is {self.device!r}; it may be {', '.join(DEVICES)}")
        if self.workers is not None and self.in_process:
            raise SpecError("--workers are Ray's; leave them out with --in-process")
        kind = self.kind
        if self.stride is not None and kind != "archive":
            raise SpecError("--stride is for archives; of a clip the last frames alone are read")
        if self.column is not None and kind != "table":
            raise SpecError(f"--column is for {TABLE} tables")
        if kind == "archive" and (self.format is not None or self.keep_size):
            raise SpecError("--format and --keep-size are for clips; an archive's forecasts go to one Zarr store")
        if self.format is not None and self.format not in FORMATS:
            raise SpecError(f"--format is {self.format!r}; it may be {', '.join(FORMATS)}")
        self._check_out()

    @property
    def kind(self) -> Literal["folder", "table", "archive"]:
        """Of the source. Raises `DataError` where it is none."""
        source, suffix = self.source, self.source.suffix.lower()
        if not source.exists():
            raise DataError(f"{source} does not exist")
        if suffix in FIELDS:
            return "archive"
        if is_table(source):
            return "table"
        if source.is_dir():
            return "folder"
        raise DataError(
            f"{source} is no folder, no {TABLE} table and no {' or '.join(FIELDS)} archive; "
            "one clip is forecast by stzoo rollout"
        )

    def _check_out(self) -> None:
        out = self.out.resolve()
        if out.is_relative_to(self.source.resolve()):
            raise DataError(f"{self.out} lies in {self.source}, whose clips would grow by its forecasts; name another")
        if self.out.exists() and not self.out.is_dir():
            raise DataError(f"{self.out} is no folder; name one, or a new one")
        if not out.parent.is_dir():
            raise DataError(f"the folder {out.parent} does not exist")
