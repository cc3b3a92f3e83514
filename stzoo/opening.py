"""`load` and `create`: a name, a folder, a file or a spec becomes a `Forecaster`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from stzoo.engine.forking import use_one_thread_if_forked
from stzoo.forecaster import Forecaster
from stzoo.hub.sources import source_text
from stzoo.machine import check_device
from stzoo.models import check_kind
from stzoo.published import info
from stzoo.published.fetching import find
from stzoo.spec import ModelSpec
from stzoo.weights import random_module


def load(
    source: str | os.PathLike[str],
    *,
    pretrained: bool = True,
    revision: str | None = None,
    device: str | torch.device | None = None,
    precision: str = "float32",
    backend: str = "torch",
    offline: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
    adapt: Mapping[str, Any] | None = None,
    sha256: str | None = None,
) -> Forecaster:
    """A forecaster with its trained weights.

    Args:
        source: a catalogue name ("tau-mmnist"), a name of a checkpoint that others published
            ("tau-kth.openstl-ep100"), a folder that `save_pretrained` wrote, a `.safetensors` file that carries its
            spec, or "hf://user/repo@revision".
        pretrained: False builds a catalogue entry with random weights, as `create` does.
        revision: the branch, tag or commit of an hf:// source that names none itself.
        device: where the module runs, such as "cpu", "cuda", "cuda:1" or "mps"; the CPU by default.
        precision: the precision of forecasts, "float32" or "bfloat16"; "auto" is bfloat16 if the machine multiplies
            faster in it. The module itself stays in float32.
        backend: what computes forecasts: "torch"; "onnxruntime", which is faster for small models that forecast all
            frames at once (extra `export`; the first forecast of an architecture takes up to a minute, once on this
            machine); "auto" is the faster of both, by a short race at the first forecast. See docs/speed.md.
        offline: True opens no socket; None follows STZOO_OFFLINE and HF_HUB_OFFLINE.
        cache_dir: where downloads are kept, instead of huggingface_hub's cache and `weights` below $STZOO_HOME.
        progress: show a bar while a file is downloaded.
        adapt: fields of the spec to change before fine-tuning, such as ``{"channels": 3, "frames_in": 4}``. Weights
            that no longer fit are averaged over channels or begin anew; ``report.adapted`` names each.
        sha256: of the file of a published checkpoint, if you know it. Otherwise that of the first download is kept, and
            every later one must have it.

    Raises:
        UnknownModelError: there is no such entry or published checkpoint. NotPublishedError: nobody published weights
            of this spec, or stzoo cannot open the published file yet.
        SpecError: the source is a codec, the device is not there, or `precision`, `backend` or `adapt` is wrong.
        MissingExtraError: the backend is not installed; the message holds the pip command.
        IntegrityError: the file is not the pinned one. MismatchError: its tensors are not the module's.
        DownloadError, OfflineError: a remote source cannot be read.
        WeightsError: `source` is neither text nor a path, or leads to no model.
    """
    use_one_thread_if_forked()
    place = check_device("cpu" if device is None else device)
    if not pretrained:
        made = create(source_text(source), **(adapt or {}))
        return Forecaster(made.spec, made.module, made.report, precision, backend).to(place)
    found = find(source, revision=revision, offline=offline, cache_dir=cache_dir, progress=progress, sha256=sha256)
    return Forecaster.from_files(found, source_text(source), adapt, precision, backend).to(place)


def create(name_or_spec: str | ModelSpec, *, device: str | torch.device | None = None, **overrides: Any) -> Forecaster:
    """A forecaster with random weights. Its repr says so.

    Args:
        name_or_spec: a catalogue name, a name of a published checkpoint, or a spec.
        device: where the module runs, as in `load`; the CPU by default. The weights are the same on every device.
        overrides: fields of the spec and keys of its `params` to change: ``create("tau-mmnist", n_t=4, height=128)``.

    Raises:
        UnknownModelError: the catalogue has no such entry.
        SpecError: a field or key is unknown or has a wrong value; the message says what it may be. Or the spec is that
            of a codec, or the device is not there.
    """
    use_one_thread_if_forked()
    place = check_device("cpu" if device is None else device)
    spec = name_or_spec if isinstance(name_or_spec, ModelSpec) else info(name_or_spec).spec
    spec = spec.replace(**overrides) if overrides else spec
    check_kind(spec, "forecaster", name_or_spec if isinstance(name_or_spec, str) else None)
    return Forecaster(spec, *random_module(spec)).to(place)
