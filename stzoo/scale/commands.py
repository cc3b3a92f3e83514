"""What `stzoo forecast-archive` does with its arguments."""

from __future__ import annotations

import argparse
import json

from stzoo.errors import StzooError


def run_forecast_archive(arguments: argparse.Namespace) -> None:
    """Forecast and print the report. Raises `StzooError` where not one forecast could be made."""
    from stzoo.scale.forecast import forecast_archive

    report = forecast_archive(
        arguments.source,
        arguments.model,
        arguments.steps,
        arguments.out,
        every=arguments.every,
        stride=arguments.stride,
        column=arguments.column,
        format=arguments.format,
        keep_size=arguments.keep_size,
        unit=arguments.unit,
        device=arguments.device,
        precision=arguments.precision,
        threads=arguments.threads,
        workers=arguments.workers,
        in_process=arguments.in_process,
        progress=True,
    )
    print(json.dumps(report.to_dict()) if arguments.json else report)
    if report.failed == report.forecasts:
        raise StzooError(f"not one of {report.forecasts:,} forecasts could be made; {report.out}/errors.jsonl says why")
