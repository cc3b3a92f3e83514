"""An order -> its plan, once it is known that the model can read the source."""

from __future__ import annotations

import torch

from stzoo import hub
from stzoo.errors import DataError, FramesError, SpecError
from stzoo.forecaster import Forecaster
from stzoo.frames import check_writable
from stzoo.frames.dataarray import opened
from stzoo.models import stride_of
from stzoo.scale.archive import Windows, check_storable, fingerprint, pasts
from stzoo.scale.forecasting import read_clip
from stzoo.scale.order import Order
from stzoo.scale.plan import Plan
from stzoo.scale.running import has_ray
from stzoo.scale.sources import clips_of, place_of, survey

_PROBES = 8  # windows of an archive that are looked at before the first forecast


def planned(order: Order, found: hub.Resolved) -> Plan:
    """Raises what `forecast_archive` does for a source that the model cannot read."""
    on_ray = not order.in_process and has_ray()
    model = Forecaster.from_files(found, order.model, precision=order.precision)
    if order.device == "cuda" and not torch.cuda.is_available() and (not on_ray or order.precision == "auto"):
        raise SpecError("there is no GPU here; on a cluster that has some, name --precision float32 or bfloat16")
    if order.precision == "auto":
        model = model.to(order.device)  # which decides
    items, sha256 = _checked_archive(order, model) if order.kind == "archive" else _checked_clips(order, model)
    return Plan(
        kind=order.kind,
        items=items,
        source_sha256=sha256,
        model_sha256=found.sha256,
        codec_sha256=None if found.codec is None else hub.file_sha256(found.codec),
        spec=found.spec.to_dict(),
        steps=order.steps,
        every=order.every,
        stride=(order.stride or 1) if order.kind == "archive" else None,
        keep_size=order.keep_size,
        format=None if order.kind == "archive" else order.format or "npy",
        unit=order.unit,
        precision=model.engine.precision,
        device=order.device,
        threads=order.threads,
    )


def _checked_archive(order: Order, model: Forecaster) -> tuple[int, str]:
    """How many starts there are, and the archive's fingerprint. A few starts are read, of which one must be sound."""
    with opened(order.source) as field:
        windows = Windows(field.sizes.get("time", 0), model.spec.frames_in, order.every, order.stride or 1)
        if not len(windows):
            raise DataError(
                f"{order.source} has {windows.frames} times; a forecast reads {windows.span}, from first to last"
            )
        check_storable(field, order.unit)
        tried = []
        for number in range(0, len(windows), -(-len(windows) // _PROBES)):
            tried += pasts(field, range(number, number + 1), windows, model.spec, stride_of(model.module))
            if not isinstance(tried[-1], FramesError):
                return len(windows), fingerprint(field)
    raise FramesError(f"{order.source}: {tried[0]}")


def _checked_clips(order: Order, model: Forecaster) -> tuple[int, str]:
    """How many clips there are, and the fingerprint of all. A few are read, of which one must be sound."""
    clips = survey(clips_of(order.source, order.column or "path"))
    if not clips.count:
        raise DataError(
            f"{order.source} holds no video, animation, array file, netCDF or Zarr file, or folder of images"
        )
    tried = []
    for clip in clips.probes:
        given = place_of(clip, order.source)
        tried.append(read_clip(given, model, order.every, order.keep_size))
        if not isinstance(tried[-1], FramesError):
            check_writable(order.out.parent / f"{given.stem}.{order.format or 'npy'}", given)
            return clips.count, clips.sha256
    last = f"; the last: {tried[-1]}" if len(tried) > 1 else ""
    raise FramesError(f"of {len(tried)} clips that were looked at, none can be read; the first: {tried[0]}{last}")
