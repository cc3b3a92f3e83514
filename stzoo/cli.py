"""The `stzoo` command. Bad input ends in one clear line and exit code 2."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stzoo import __version__, catalog, environment
from stzoo.errors import IntegrityError, SpecError, StzooError
from stzoo.spec import ModelSpec

Arguments = argparse.Namespace


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
    except (StzooError, OSError) as error:
        print(f"stzoo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stzoo: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    from stzoo.benchmark.options import add_benchmark
    from stzoo.data.options import add_options, add_precision
    from stzoo.release.options import add_actions
    from stzoo.scale.options import add_forecast_archive

    parser = argparse.ArgumentParser(prog="stzoo", description="Forecast the next frames with pretrained models.")
    parser.add_argument("--version", action="version", version=f"stzoo {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        return sub

    sub = command("list", _list, "list the models of the catalogue")
    sub.add_argument("pattern", nargs="?", default="*", help="a shell wildcard, such as 'tau-*'")
    sub.add_argument("--arch")
    sub.add_argument("--dataset")
    sub.add_argument("--pretrained", action="store_true", help="only those with trained weights")
    sub.add_argument("--json", action="store_true")

    sub = command("info", _info, "show the card of one model")
    sub.add_argument("name")
    sub.add_argument("--json", action="store_true")

    for name, run, help in (
        (
            "predict",
            _forecast,
            "forecast one block of frames from a video, an animation, a folder of images or an array",
        ),
        ("rollout", _forecast, "forecast any number of frames, autoregressively"),
    ):
        sub = command(name, run, help)
        sub.add_argument(
            "input",
            type=Path,
            help="a video, a GIF, PNG or WebP animation, a folder of images, or .npy, .npz, .nc, .zarr",
        )
        sub.add_argument(
            "--model", required=True, help="a catalogue name, a folder, a .safetensors file or hf://user/repo"
        )
        sub.add_argument(
            "-o",
            "--out",
            type=Path,
            required=True,
            help=".gif, .png, .webp, .mp4, .avi, .npy, .npz or a folder; from netCDF or Zarr: .nc, .zarr, .npy or .npz",
        )
        sub.add_argument("--every", type=int, default=1, metavar="K", help="use frames 0, K, 2K, ... of the input")
        sub.add_argument(
            "--keep-size",
            action="store_true",
            help="leave images and videos at their own size, which the model must take; else they get the model's",
        )
        add_precision(sub, auto=True)
        if name == "rollout":
            sub.add_argument("--steps", type=int, required=True)
        else:
            sub.set_defaults(steps=None)

    sub = command("evaluate", _evaluate, "measure a model on its test protocol, beside persistence")
    sub.add_argument("source", help="a catalogue name, a folder, a .safetensors file or hf://user/repo")
    add_options(sub)
    sub.add_argument("--steps", type=int, help="frames to forecast, autoregressively beyond the model's own block")
    sub.add_argument("--limit", type=int, help="only the first so many sequences; the report says so")
    sub.add_argument(
        "--definition",
        choices=["stzoo", "stzoo-rain", "simvp-2022"],
        help="how the metrics are defined; by default stzoo, with rain for radar",
    )
    add_precision(sub)
    sub.add_argument("--csv", action="store_true", help="one row a step")
    sub.add_argument("--json", action="store_true")

    sub = command("train", _train, "train a model of the catalogue, or fine-tune one; run again, it goes on")
    sub.add_argument("name", nargs="?", help="an entry, trained from scratch by its recipe")
    sub.add_argument("--from", dest="source", metavar="SOURCE", help="fine-tune this: a name, a folder, a file")
    sub.add_argument("--channels", type=int, help="of the clips, where SOURCE has another number")
    sub.add_argument("--frames-in", type=int, help="past frames, where SOURCE reads another number")
    sub.add_argument("--frames-out", type=int, help="future frames, where SOURCE forecasts another number")
    sub.add_argument("--freeze", action="append", default=[], metavar="PART", help="such as encoder: stays as it is")
    add_options(sub)
    sub.add_argument("--out", type=Path, required=True, help="the run folder")
    sub.add_argument("--recipe", help="a TOML file in place of the entry's own recipe")
    budget = sub.add_mutually_exclusive_group()
    budget.add_argument("--steps", type=int)
    budget.add_argument("--minutes", type=float, help="converted to steps by the pace measured here, once")
    sub.add_argument("--codec", help="of a modular entry: the folder of a trained codec, in place of the entry's own")
    sub.add_argument("--codec-minutes", type=float, help="for a codec that must be trained first")
    sub.add_argument("--device", choices=["cpu", "cuda"], help="the GPU where there is one, by default")
    sub.add_argument(
        "--micro-batch", type=int, metavar="N", help="at most so many clips go through the model at once: less memory"
    )

    sub = command("convert", _convert, "turn a checkpoint that others published into a folder that stzoo loads")
    sub.add_argument("origin", choices=["openstl"])
    sub.add_argument("checkpoint", type=Path, help="a .pth or .ckpt file of tensors")
    sub.add_argument("--model", required=True, help="a catalogue name, or a JSON file holding a spec")
    sub.add_argument("--out", type=Path, required=True, help="the folder to write")

    sub = command("export", _export, "write a model as one file that runs without stzoo: ONNX or torch.export")
    sub.add_argument("source", help="a catalogue name, a folder, a .safetensors file or hf://user/repo")
    sub.add_argument("--format", required=True, metavar="FORMAT", help="onnx or torch-export")
    sub.add_argument("-o", "--out", type=Path, required=True, help=".onnx or .pt2")
    sub.add_argument("--steps", type=int, help="frames that the file forecasts; those of the model by default")

    help = "the entries of this checkout: pack a run, add a folder, verify all, publish to a hub"
    add_actions(commands.add_parser("catalog", help=help, description=help))

    add_benchmark(command("benchmark", _benchmark, "latency, throughput, share of this machine's peak, and memory"))

    help = "forecast every clip of a folder or a table, or from every start in an archive; run again, it goes on"
    add_forecast_archive(command("forecast-archive", _forecast_archive, help))

    sub = command("cache", _cache, "what was downloaded and decoded: list it, verify it, clear it")
    sub.add_argument("action", choices=["list", "verify", "clear"])
    sub.add_argument(
        "name", nargs="?", help="clear this alone: a model, a repository, weights, hub, frames, unfinished"
    )
    sub.add_argument("--json", action="store_true")

    sub = command("demo", _demo, "forecast drawn digits: no dataset, no network; writes a GIF and a PNG strip")
    sub.add_argument("--out", type=Path, default=Path())
    sub.add_argument("--seed", type=int, default=0)
    return parser


def _list(arguments: Arguments) -> None:
    names = catalog.list_models(
        arguments.pattern, arch=arguments.arch, dataset=arguments.dataset, pretrained=arguments.pretrained or None
    )
    rows = [catalog.info(name) for name in names]
    if arguments.json:
        print(
            json.dumps(
                [
                    {
                        "name": e.name,
                        "kind": e.kind,
                        "arch": e.spec.arch,
                        "dataset": e.dataset,
                        "pretrained": e.weights is not None,
                        "data_terms": e.data_terms,
                    }
                    for e in rows
                ]
            )
        )
        return
    width = max((len(n) for n in names), default=0)
    for e in rows:
        terms = f" [{e.data_terms}]" if e.weights else ""  # what may be done with trained weights hangs on these
        print(f"{e.name:<{width}}  {'weights' if e.weights else '-':<8} {e.summary}{terms}")


def _info(arguments: Arguments) -> None:
    entry = catalog.info(arguments.name)
    if not arguments.json:
        print(entry)
        return
    fields = {f.name: getattr(entry, f.name) for f in dataclasses.fields(entry) if f.name != "spec"}
    plain = {k: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for k, v in fields.items()}  # type: ignore[arg-type]
    plain |= {"spec": entry.spec.to_dict()}
    plain |= {key: [dataclasses.asdict(row) for row in getattr(entry, key)] for key in ("metrics", "speed")}
    print(json.dumps(plain, indent=2))


def _forecast(arguments: Arguments) -> None:
    from stzoo.forecaster import load
    from stzoo.frames import check_writable, kind_of, write

    check_writable(arguments.out, arguments.input)
    model = load(arguments.model, precision=arguments.precision)
    steps = model.spec.frames_out if arguments.steps is None else arguments.steps
    resize = kind_of(arguments.input) == "pictures" and not arguments.keep_size  # arrays have the size they have
    future = model.rollout(arguments.input, steps, resize=resize, every=arguments.every, progress=True)
    write(arguments.out, future)
    print(f"{steps} frames -> {arguments.out}")


def _evaluate(arguments: Arguments) -> None:
    from stzoo.codec import Codec
    from stzoo.data import DATASETS, Part, protocol_name
    from stzoo.data.options import chosen
    from stzoo.evaluate import evaluate, evaluate_codec
    from stzoo.forecaster import Forecaster
    from stzoo.hub import resolve
    from stzoo.models import architecture_of

    found = resolve(arguments.source)
    codec = architecture_of(found.spec).is_codec
    model: Any = (Codec if codec else Forecaster).from_files(found, arguments.source)
    known = catalog.entries().get(arguments.source)
    dataset, data = chosen(arguments, model.spec, "clips" if known is None else known.dataset)
    if codec and arguments.steps is not None:
        raise SpecError("--steps is for forecasters; of a codec the first two frames of each sequence are measured")
    steps = 1 if codec else model.spec.frames_out if arguments.steps is None else arguments.steps
    if steps < 1:
        raise SpecError(f"--steps is {steps}; it must be at least 1")
    protocol = protocol_name(dataset, model.spec.frames_in, steps, codec=codec, every=arguments.every)
    clips: Any = data.split("test", model.spec.frames_in, steps)
    if arguments.limit is not None:
        if not 1 <= arguments.limit <= len(clips):
            raise SpecError(f"--limit is {arguments.limit}; it may be 1 to {len(clips)}")
        clips = Part(clips, arguments.limit)
        protocol += f", first {arguments.limit} sequences only"
    report: Any = (evaluate_codec if codec else evaluate)(
        model,
        clips,
        name=arguments.source,
        protocol=protocol,
        definition=arguments.definition or DATASETS[dataset].definition,
        precision=arguments.precision,
    )
    print(report.to_json() if arguments.json else report.to_csv() if arguments.csv else report)


def _train(arguments: Arguments) -> None:
    from stzoo.train.commands import run_train

    run_train(arguments)


def _convert(arguments: Arguments) -> None:
    from stzoo.convert import convert_openstl

    print(convert_openstl(arguments.checkpoint, _spec(arguments.model), arguments.out))


def _export(arguments: Arguments) -> None:
    from stzoo.export import check_exportable
    from stzoo.forecaster import load

    check_exportable(arguments.format, arguments.out, arguments.steps)
    print(load(arguments.source).export(arguments.format, arguments.out, steps=arguments.steps))


def _spec(name: str) -> ModelSpec:
    """Of a catalogue entry, or from a JSON file: the same JSON as an entry's `spec` or a folder's config.json."""
    if not name.endswith(".json"):
        return catalog.info(name).spec
    try:
        return ModelSpec.from_dict(json.loads(Path(name).read_text("utf-8")))
    except SpecError:
        raise
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{name} is not JSON: {error}") from error


def _benchmark(arguments: Arguments) -> None:
    from stzoo.benchmark.commands import run_benchmark

    run_benchmark(arguments)


def _forecast_archive(arguments: Arguments) -> None:
    from stzoo.scale.commands import run_forecast_archive

    run_forecast_archive(arguments)


def _cache(arguments: Arguments) -> None:
    from stzoo.hub import cache

    if arguments.name is not None and arguments.action != "clear":
        raise SpecError(f"stzoo cache {arguments.action} takes no name")
    if arguments.action == "clear":
        freed = cache.clear(arguments.name)
        print(json.dumps({"freed": freed}) if arguments.json else f"{freed / 1e6:.1f} MB freed")
        return
    rows = cache.verified() if arguments.action == "verify" else [(kept, ()) for kept in cache.listed()]
    if arguments.json:
        plain = [
            {
                "name": kept.name,
                "kind": kept.kind,
                "files": [str(f) for f in kept.files],
                "size": kept.size,
                "used": kept.used.isoformat(timespec="seconds"),
                "removed": [str(f) for f in bad],
            }
            for kept, bad in rows
        ]
        print(json.dumps(plain))
    else:
        for kept, bad in rows:
            print(f"{kept}{f', {len(bad)} damaged and removed' if bad else ''}")
        print(f"{sum(kept.size for kept, _ in rows) / 1e6:.1f} MB in {environment.home()} and huggingface_hub's cache")
    damaged = [str(file) for _, bad in rows for file in bad]
    if damaged:
        raise IntegrityError(f"{len(damaged)} files were damaged and have been removed: {', '.join(damaged[:5])}")


def _demo(arguments: Arguments) -> None:
    from stzoo.demo import demo

    result = demo(arguments.out, arguments.seed)
    print(f"MSE {result.mse:.1f}, persistence {result.persistence_mse:.1f} (summed over a frame, mean of 10 frames)")
    print(f"{result.gif}: truth | forecast, 10 past and 40 future frames")
    print(f"{result.strip}: past | truth | forecast | error")
