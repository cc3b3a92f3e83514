"""torch.hub entry points, one for each model of the catalogue: ``torch.hub.load(repo, "tau_mmnist")``.

stzoo is imported inside the entry points, from this checkout, so that listing them needs no dependency.
"""

import json as _json
from collections.abc import Callable as _Callable
from pathlib import Path as _Path
from typing import Any as _Any

dependencies = ["torch", "huggingface_hub", "safetensors", "numpy", "PIL", "requests", "skimage"]

_MODELS = _json.loads((_Path(__file__).parent / "weights_manifest.json").read_text("utf-8"))["models"]


def _entry_point(name: str, summary: str) -> _Callable[..., _Any]:
    def entry_point(pretrained: bool = True, progress: bool = True) -> _Any:
        from stzoo import create, load

        return load(name, progress=progress) if pretrained else create(name)

    entry_point.__name__ = entry_point.__qualname__ = name.replace("-", "_")
    entry_point.__doc__ = f"""{summary}.

    Args:
        pretrained (bool): load trained weights (the default), or build the model with random ones.
        progress (bool): show a bar while weights are downloaded.

    Returns:
        stzoo.Forecaster: its methods are predict(frames), rollout(frames, steps) and stream(frames).
    """
    return entry_point


for _name, _values in _MODELS.items():
    if _values.get("kind", "forecaster") == "forecaster":
        globals()[_name.replace("-", "_")] = _entry_point(_name, _values["summary"])
