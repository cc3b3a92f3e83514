"""Many forecasts at once: every clip of a folder or a table, or every start of an archive. See docs/scale.md.

>>> from stzoo.scale import forecast_archive
>>> report = forecast_archive("radar.zarr", "tau-radar", steps=20, out="forecasts")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stzoo.scale.forecast import forecast_archive as forecast_archive
    from stzoo.scale.report import ArchiveReport as ArchiveReport

__all__ = ["ArchiveReport", "forecast_archive"]


def __getattr__(name: str) -> Any:  # imported when first used
    if name not in __all__:
        raise AttributeError(f"module 'stzoo.scale' has no attribute {name!r}")
    return getattr(import_module(f"stzoo.scale.{'forecast' if name == 'forecast_archive' else 'report'}"), name)
