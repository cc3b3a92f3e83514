"""`stzoo forecast-archive`: forecasts of many clips, or of every start in an archive."""

from __future__ import annotations

import json
from pathlib import Path

from stzoo.cli.shared import (
    Arguments,
    Commands,
    add_backend,
    add_command,
    add_device,
    add_every,
    add_json,
    add_map,
    add_matched,
    add_model,
    add_precision,
    add_size_and_color,
    add_units,
)
from stzoo.errors import StzooError
from stzoo.scale.plan import UNIT


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "forecast-archive",
        _run,
        help="forecast every clip of a folder or a table, or from every start in an archive",
        description="Forecast N frames after every clip of a folder or a table, or from every start in an archive. The "
        "same command, run again, continues where it was interrupted; docs/scale.md says what DEST holds.",
        example="stzoo forecast-archive radar.zarr --model tau-radar --steps 12 -o DEST",
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="what to forecast: a folder of clips, a .parquet table of their paths, or a .zarr or .nc archive with a "
        "time dimension",
    )
    add_model(parser)
    parser.add_argument("--steps", type=int, required=True, metavar="N", help="number of frames of each forecast")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="DEST",
        help="folder to write, or to continue",
    )
    add_every(parser, "each clip or of the archive")
    parser.add_argument(
        "--stride",
        type=int,
        metavar="N",
        help="for an archive: number of frames between two starts (default: 1)",
    )
    parser.add_argument(
        "--column", metavar="NAME", help="for a table: name of the column that holds the paths (default: path)"
    )
    parser.add_argument(
        "--format",
        metavar="SUFFIX",
        help="for clips: suffix of the files that forecasts are written to, such as npy, gif or mp4 (default: npy)",
    )
    add_size_and_color(parser, arrays=False)
    add_map(parser, "an archive, or each netCDF, Zarr or .npz file of a folder or table")
    add_units(parser)
    add_matched(parser)
    parser.add_argument(
        "--unit",
        type=int,
        default=UNIT,
        metavar="N",
        help="number of forecasts that are made and kept together (default: %(default)s)",
    )
    add_device(parser, "cpu", "where the model runs (default: %(default)s)")
    add_precision(parser, auto=True)
    add_backend(parser)
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="number of threads of each worker (default: 1 on Ray, else as many as torch chooses)",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of workers that run on Ray at the same time (default: as many as there is room for)",
    )
    where.add_argument(
        "--in-process", action="store_true", help="run without Ray in this process, one unit after the other"
    )
    add_json(parser)


def _run(arguments: Arguments) -> None:
    """Forecast and print the report. Raises `StzooError` if not one forecast could be made."""
    from stzoo.scale import forecast_archive

    report = forecast_archive(
        arguments.source,
        arguments.model,
        arguments.steps,
        arguments.out,
        every=arguments.every,
        stride=arguments.stride,
        column=arguments.column,
        format=arguments.format,
        size=arguments.size,
        color=arguments.color,
        unit=arguments.unit,
        device=arguments.device,
        precision=arguments.precision,
        backend=arguments.backend,
        threads=arguments.threads,
        variable=arguments.variable,
        time=arguments.time,
        units=arguments.units,
        missing=arguments.missing,
        matched=arguments.matched,
        workers=arguments.workers,
        in_process=arguments.in_process,
        progress=True,
    )
    print(json.dumps(report.to_dict()) if arguments.json else report)
    if report.failed == report.forecasts:
        raise StzooError(f"not one of {report.forecasts:,} forecasts could be made; {report.out}/errors.jsonl says why")
