"""What `stzoo forecast-archive` does with its arguments."""

from __future__ import annotations

import argparse
import json
import sys

from stzoo.errors import StzooError


def run_forecast_archive(arguments: argparse.Namespace) -> None:
    """Forecast and print the report. Raises `StzooError` where not one forecast could be made."""
    from stzoo.scale.bulk import forecast_archive
    from stzoo.scale.running import has_ray

    if not arguments.in_process and arguments.workers is None and not has_ray():
        print('Ray is not installed (pip install "stzoo[scale]"): one unit after the other', file=sys.stderr)
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
