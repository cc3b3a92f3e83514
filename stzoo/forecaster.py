"""`Forecaster`: frames in, the next frames out, as the caller's own kind."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from stzoo import catalog, hub
from stzoo import frames as frames_room
from stzoo.adapting import adapt_tensors
from stzoo.engine import Engine
from stzoo.export import Exported, export
from stzoo.frames.values import denormalise, normalise
from stzoo.hub.card import Card
from stzoo.hub.sharing import save, send, source_of
from stzoo.models import build, check_kind, stride_of
from stzoo.spec import ModelSpec
from stzoo.weights import LoadReport, load_module, random_module


class Forecaster:
    """A module with its spec, ready to predict. Made by `stzoo.load` and `stzoo.create`.

    Attributes:
        spec: what the model is.
        report: where its weights came from.
        engine: how the module is run; what it runs follows the module's weights when they change.
    """

    def __init__(self, spec: ModelSpec, module: nn.Module, report: LoadReport, precision: str = "float32"):
        self.spec, self.report = spec, report
        self.engine = Engine(module.eval(), spec, precision)

    @property
    def module(self) -> nn.Module:
        """The plain, trainable module, float32, in eval mode at first; forecasts are always those of eval mode."""
        return self.engine.module

    def predict(self, frames: Any, *, layout: str | None = None, resize: bool = False, every: int = 1) -> Any:
        """The next `spec.frames_out` frames: ``rollout(frames, spec.frames_out)``."""
        return self.rollout(frames, self.spec.frames_out, layout=layout, resize=resize, every=every)

    def rollout(
        self,
        frames: Any,
        steps: int,
        *,
        layout: str | None = None,
        resize: bool = False,
        every: int = 1,
        progress: bool = False,
    ) -> Any:
        """The next `steps` frames, the model feeding on its own unrounded forecasts beyond its block.

        Args:
            frames: at least `spec.frames_in` past frames; of more, the last ones are used. A NumPy array or torch
                tensor (T, H, W), (T, C, H, W), (B, T, C, H, W) or (T, H, W, C); an xarray DataArray with a dimension
                `time`, two of space, and perhaps `channel` and `sample`; a list of PIL images; or the path of a video,
                an animated GIF, PNG or WebP, a folder of images, or a .npy, .npz, netCDF or Zarr file. uint8 and the
                other integers are scaled by their dtype, floats must lie in `spec.value_range`.
            steps: how many frames to return, at least 1.
            layout: names the axes of an array where the shape alone is ambiguous, such as "THWC" or "BTHW".
            resize: bring images and videos to the spec's height and width. Without it they keep their size, which must
                be one that the model takes.
            every: use frames 0, every, 2 * every, ... of those given.
            progress: a bar where it takes longer than a second.

        Returns:
            Future frames of the same kind, dtype, range, axes and device; of a DataArray also its coordinates, and the
            times after the last one. For the path of pictures, a list of PIL images; of an array, an array; of a netCDF
            or Zarr file, a DataArray.

        Raises:
            FramesError: shape, dtype, range, too few frames, a missing value, times that cannot be continued, a file
                that cannot be read, or a size the model cannot take.
            MissingExtraError: what reads such a file is not installed; the message holds the pip command.
        """
        steps = frames_room.whole_number("steps", steps)
        source = self._read(frames, layout, resize, every)
        coming = tqdm(self._frames(source, steps), total=steps, unit="frame", delay=1, disable=not progress)
        return source.collect(list(coming))

    def stream(
        self,
        frames: Any,
        steps: int | None = None,
        *,
        layout: str | None = None,
        resize: bool = False,
        every: int = 1,
    ) -> Iterator[Any]:
        """Like `rollout`, one frame at a time, without end where `steps` is None. Memory does not grow."""
        steps = None if steps is None else frames_room.whole_number("steps", steps)
        return self._frames(self._read(frames, layout, resize, every), steps)

    def to(self, device: str | torch.device) -> Forecaster:
        """Move the module; frames follow it and forecasts return to where the caller's frames are."""
        self.module.to(device)
        return self

    def compile(self) -> Forecaster:
        """Run through `torch.compile` from now on: slow at the first forecast; on a CPU also later (docs/speed.md)."""
        self.engine.compile()
        return self

    def export(self, format: str, path: str | os.PathLike[str], *, steps: int | None = None) -> Exported:
        """Write the whole forecast as one file that runs without stzoo, and return its shapes; see docs/export.md.

        The file takes `past` (B, frames_in, C, H, W) and gives `future` (B, steps, C, H, W), float32 in the spec's
        units, neither rounded nor clipped. Any batch, and any height and width that the architecture takes, from twice
        its stride on.

        Args:
            format: "onnx", or "torch-export" for `torch.export.load`.
            path: .onnx or .pt2, in a folder that is there. It appears whole or not at all.
            steps: frames that the file forecasts, `spec.frames_out` by default; at most 1024.

        Raises:
            SpecError: no such format, a suffix of another one, or too many steps. FramesError: `steps` is no count.
            WeightsError: no such folder, or one that cannot be written to; or `path` is a folder.
            MissingExtraError: what writes ONNX is not installed; the message holds the pip command.
        """
        return export(self.spec, self.module, format, Path(path), steps)

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: Card | None = None) -> None:
        """Write `model.safetensors` and `config.json`, which `stzoo.load` reads back bit for bit, and `README.md`.

        Args:
            folder: made where it is not there. A README.md in it that somebody wrote or edited is kept, with a warning.
            card: what README.md says of the weights. By default those of a catalogue entry, unchanged, have that
                entry's figures and terms, and all others only the word where they come from.

        Raises:
            WeightsError: `card` is given and the README.md there is somebody's own, or the folder holds a published
                modular model; nothing is written then. SpecError: `card` is none.
        """
        save(Path(folder), self.spec, self.module, self.report, card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        token: str | None = None,
        message: str | None = None,
        card: Card | None = None,
    ) -> str:
        """Send what `save_pretrained` writes to a hub, in one commit, and return its source, which `load` opens.

        Args:
            repo_id: "user/repo", made where it is not there. Its README.md is replaced.
            private: of a repository that is made.
            token: by default what huggingface_hub finds: HF_TOKEN, or that of `hf auth login`.
            message: of the commit.
            card: as in `save_pretrained`.

        Returns:
            "hf://user/repo@<40 hex>", the very commit.

        Raises:
            WeightsError: no such name, or the hub refused, with its reason. OfflineError: the network is off.
        """
        return send(
            repo_id, self.spec, self.module, self.report, private=private, token=token, message=message, card=card
        )

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], *, revision: str | None = None) -> Forecaster:
        """As `stzoo.load(source, revision=revision)`; "user/repo" is a hub's where no folder has that name."""
        return load(source_of(source), revision=revision)

    def __repr__(self) -> str:
        s = self.spec
        shape = f"{s.frames_in} frames of {s.channels}x{s.height}x{s.width} -> {s.frames_out}"
        return f"Forecaster({s.arch}, {shape}, {self.report})"

    def _read(self, frames: Any, layout: str | None, resize: bool, every: int) -> frames_room.CallerFrames:
        return frames_room.read(frames, self.spec, stride_of(self.module), layout, resize=resize, every=every)

    @torch.no_grad()
    def _frames(self, source: frames_room.CallerFrames, steps: int | None) -> Iterator[Any]:
        device = next(self.module.parameters()).device
        past = normalise(source.past.to(device), self.spec)
        for frame in self.engine.unroll(past, steps):
            yield source.frame(denormalise(frame, self.spec))


def load(
    source: str | os.PathLike[str],
    *,
    pretrained: bool = True,
    revision: str | None = None,
    device: str | torch.device | None = None,
    precision: str = "float32",
    offline: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
    adapt: Mapping[str, Any] | None = None,
) -> Forecaster:
    """A forecaster with its trained weights.

    Args:
        source: a catalogue name ("tau-mmnist"), a folder that `save_pretrained` wrote, a `.safetensors` file that
            carries its spec, or "hf://user/repo@revision".
        pretrained: False builds a catalogue entry with random weights, as `create` does.
        revision: of an hf source that names none.
        device: where the module lies; the CPU by default.
        precision: that forecasts are computed in, "float32" or "bfloat16"; "auto" is bfloat16 where the machine
            multiplies faster in it. The module stays in float32.
        offline: True never opens a socket; None follows STZOO_OFFLINE and HF_HUB_OFFLINE.
        cache_dir: where downloads go, in place of huggingface_hub's cache and of `weights` below $STZOO_HOME.
        progress: a bar while something is downloaded.
        adapt: fields of the spec to change, such as ``{"channels": 3, "frames_in": 4}``, before fine-tuning. Weights
            that no longer fit are averaged over channels or begin anew; ``report.adapted`` names each.

    Raises:
        UnknownModelError: no such entry. NotPublishedError: the entry has no weights yet. SpecError: it is a codec.
        IntegrityError: the file is not the pinned one. MismatchError: its tensors are not the module's.
        DownloadError, OfflineError: a remote source cannot be read.
    """
    if not pretrained:
        made = create(os.fspath(source), **(adapt or {}))
        return Forecaster(made.spec, made.module, made.report, precision).to(device or "cpu")
    found = hub.resolve(source, revision=revision, offline=offline, cache_dir=cache_dir, progress=progress)
    return opened(found, os.fspath(source), adapt, precision).to(device or "cpu")


def opened(
    found: hub.Resolved, name: str, adapt: Mapping[str, Any] | None = None, precision: str = "float32"
) -> Forecaster:
    """The forecaster of files that `stzoo.hub.resolve` found; `name` is what errors call it."""
    check_kind(found.spec, "forecaster", name)
    module, report = load_module(found.spec, found.path, found.sha256, found.codec)
    if not adapt:
        return Forecaster(found.spec, module, report, precision)
    spec = found.spec.replace(**adapt)
    tensors, done = adapt_tensors(module.state_dict(), found.spec, spec)
    module = build(spec)
    module.load_state_dict(tensors)
    parameters = sum(p.numel() for p in module.parameters())
    report = dataclasses.replace(report, parameters=parameters, adapted=done)
    return Forecaster(spec, module, report, precision)


def create(name_or_spec: str | ModelSpec, **overrides: Any) -> Forecaster:
    """A forecaster with random weights, which its repr says.

    Args:
        name_or_spec: a catalogue name, or a spec.
        overrides: fields of the spec, or keys of its `params`, to change: ``create("tau-mmnist", n_t=4, height=128)``.

    Raises:
        UnknownModelError: no such entry. SpecError: the key that is wrong, what it was, what it may be.
    """
    spec = name_or_spec if isinstance(name_or_spec, ModelSpec) else catalog.info(name_or_spec).spec
    spec = spec.replace(**overrides) if overrides else spec
    check_kind(spec, "forecaster", name_or_spec if isinstance(name_or_spec, str) else f"arch {spec.arch!r}")
    return Forecaster(spec, *random_module(spec))
