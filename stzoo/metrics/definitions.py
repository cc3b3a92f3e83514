"""The definitions, by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from stzoo.metrics import cells, rain
from stzoo.metrics.images import check_windows, mae, mse, psnr, psnr_wrapped, ssim, ssim_range_2
from stzoo.metrics.kinds import Among, Count, Definition, Metric
from stzoo.metrics.perceptual import lpips, prepare

THRESHOLDS: Mapping[str, float] = MappingProxyType({"0_1": 0.1, "1": 1.0, "5": 5.0})  # in a name -> mm/h
WINDOWS = (9, 33)  # cells


def _scores(suffix: str, rate: float) -> dict[str, Count]:
    """The scores of events of at least `rate` mm/h, such as csi_5 and fss33_5."""
    threshold = rain.decibels(rate)
    scores: dict[str, Count] = {
        f"csi_{suffix}": partial(rain.event_counts, threshold=threshold),
        f"bias_{suffix}": partial(rain.bias_counts, threshold=threshold),
        f"far_{suffix}": partial(rain.false_alarm_counts, threshold=threshold),
    }
    for window in WINDOWS:
        scores[f"fss{window}_{suffix}"] = partial(rain.fractions_sums, threshold=threshold, window=window)
    return scores


_OURS: Mapping[str, Metric] = MappingProxyType({"mse": mse, "mae": mae, "ssim": ssim, "psnr": psnr})
_OF_OPENSTL: Mapping[str, Metric] = MappingProxyType({"mse": mse, "mae": mae, "ssim": ssim_range_2, "psnr": psnr})
_OF_2022: Mapping[str, Metric] = MappingProxyType({"mse": mse, "mae": mae, "ssim": ssim_range_2, "psnr": psnr_wrapped})
_CSI: Mapping[str, Count] = MappingProxyType(
    {f"csi_{s}": partial(rain.event_counts, threshold=rain.decibels(THRESHOLDS[s])) for s in ("1", "5")}
)
_RATES: Mapping[str, Count] = MappingProxyType(
    {name: count for suffix, rate in THRESHOLDS.items() for name, count in _scores(suffix, rate).items()}
    | {"mse": rain.squared_error, "mae": rain.absolute_error}
)
_DRY = Definition(
    counts=MappingProxyType({"dry_rate": rain.forecast_rate, "dry_rate_seen": rain.seen_rate}),
    largest=MappingProxyType({"dry_wet_share": rain.wet_share}),
)
DEFINITIONS: Mapping[str, Definition] = MappingProxyType(
    {
        "stzoo": Definition(_OURS, prepare=check_windows),
        "stzoo-lpips": Definition(MappingProxyType({**_OURS, "lpips": lpips}), prepare=prepare),
        "stzoo-rain": Definition(_OURS, _CSI, prepare=check_windows),
        "stzoo-rain-rates": Definition(counts=_RATES, among=(Among(rain.far_from_rain, _DRY),)),
        "stzoo-units": Definition(
            counts=MappingProxyType({"mse": cells.squared_error, "mae": cells.absolute_error}), in_units=True
        ),
        "openstl": Definition(_OF_OPENSTL, prepare=check_windows),
        "simvp-2022": Definition(_OF_2022, prepare=check_windows),
    }
)
