"""What a checkpoint says of its own training beside the tensors, in the words of OpenSTL.

Lightning saves the arguments of the training as `hyper_parameters`: the frames of the data set, and settings of the
model that no tensor tells. They are plain values in the file, and are used where tensors do not tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stzoo.convert.pickled import Other

KEY = "hyper_parameters"
_MOST = 16384  # of a size or a count; a larger one is not believed
_MODES = ("recall", "residual")  # settings that are true if their value is their own name: OpenSTL's are texts
_SETTINGS = {  # architecture -> (what OpenSTL calls a setting, what it is called in the architecture's params)
    "mau": (("tau", "tau"), ("model_mode", "recall"), ("cell_mode", "residual")),
    "phydnet": (("patch_size", "patch"),),
    "e3dlstm": (("stride", "stride"),),
}


def stated_by(content: Any) -> Mapping[str, Any]:
    """The hyper-parameters in a file's content, a mapping or an object with attributes; empty if there are none."""
    found = content.get(KEY) if isinstance(content, dict) else None
    values = found.values if isinstance(found, Other) else found
    return values if isinstance(values, dict) else {}


def frames_of(stated: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a spec that hyper-parameters tell: frames, sizes, and no range for standardised weather."""
    frames: dict[str, Any] = {"frames_in": stated.get("pre_seq_length"), "frames_out": stated.get("aft_seq_length")}
    shape = stated.get("in_shape")
    if isinstance(shape, list | tuple) and len(shape) == 4:  # (frames in, channels, height, width)
        past, frames["channels"], frames["height"], frames["width"] = shape
        frames["frames_in"] = past if frames["frames_in"] is None else frames["frames_in"]
    frames = {name: value for name, value in frames.items() if _is_size(value)}
    dataset = stated.get("dataname")
    if isinstance(dataset, str) and dataset.startswith("weather"):
        frames["value_range"] = None
    return frames


def settings_of(stated: Mapping[str, Any], arch: str) -> dict[str, Any]:
    """The params of an architecture that no tensor tells, as far as hyper-parameters do."""
    settings: dict[str, Any] = {}
    for theirs, ours in _SETTINGS.get(arch, ()):
        value = stated.get(theirs)
        if ours in _MODES and isinstance(value, str):
            settings[ours] = value == ours
        elif ours not in _MODES and _is_size(value):
            settings[ours] = value
    return settings


def _is_size(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _MOST
