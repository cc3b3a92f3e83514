"""torch.hub entry points: ``torch.hub.load(repo, "tau_mmnist")`` for each model of the catalogue, and
``torch.hub.load(repo, "tau_kth_openstl_ep100")`` for each checkpoint that others published, whose name has dots and
hyphens elsewhere.

stzoo is imported inside the entry points, from this checkout, so that listing them needs no dependency.
"""

import json as _json
from collections.abc import Callable as _Callable
from pathlib import Path as _Path
from typing import Any as _Any

dependencies = ["torch", "huggingface_hub", "numpy", "PIL", "requests", "skimage"]

_MODELS = _json.loads((_Path(__file__).parent / "weights_manifest.json").read_text("utf-8"))["models"]


_PUBLISHED = [
    _json.loads((_Path(__file__).parent / "stzoo" / "published" / file).read_text("utf-8"))
    for file in ("openstl.json", "official.json")
]


def _identifier(name: str) -> str:
    return name.replace("-", "_").replace(".", "_")


def _entry_point(name: str, summary: str) -> _Callable[..., _Any]:
    def entry_point(pretrained: bool = True, progress: bool = True, device: _Any = None) -> _Any:
        from stzoo import load

        return load(name, pretrained=pretrained, progress=progress, device=device)

    entry_point.__name__ = entry_point.__qualname__ = _identifier(name)
    entry_point.__doc__ = f"""{summary}.

    Args:
        pretrained (bool): load trained weights (the default), or build the model with random ones.
        progress (bool): show a bar while weights are downloaded.
        device (str or torch.device): where the model runs, such as "cuda"; None is the CPU.

    Returns:
        stzoo.Forecaster: its methods are predict(frames), rollout(frames, steps) and stream(frames).
    """
    return entry_point


for _name, _values in _MODELS.items():
    if _values.get("kind", "forecaster") == "forecaster":
        globals()[_identifier(_name)] = _entry_point(_name, _values["summary"])
for _publisher in _PUBLISHED:
    for _name, _values in _publisher["files"].items():
        _summary = f"{_values['method']} on {_values['dataset']}, as {_publisher['by']} published it ({_name})"
        globals()[_identifier(_name)] = _entry_point(_name, _summary)
