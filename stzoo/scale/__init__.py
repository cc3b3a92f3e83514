"""Bulk forecasting: every clip of a folder or a table, every start of an archive. See docs/scale.md.

>>> from stzoo.scale import forecast_archive
>>> report = forecast_archive("radar.zarr", "tau-radar", steps=20, out="forecasts")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stzoo.scale.bulk import Report as Report
    from stzoo.scale.bulk import forecast_archive as forecast_archive

__all__ = ["Report", "forecast_archive"]


def __getattr__(name: str) -> Any:  # imported when first used
    if name not in __all__:
        raise AttributeError(f"module 'stzoo.scale' has no attribute {name!r}")
    from stzoo.scale import bulk

    return getattr(bulk, name)
