"""The `stzoo` command. Bad input ends in one clear line and exit code 2."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stzoo import __version__, catalog
from stzoo.errors import SpecError, StzooError
from stzoo.spec import ModelSpec

if TYPE_CHECKING:
    from stzoo.data.mmnist import MovingDigits

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
        ("predict", _forecast, "forecast one block of frames from an animation or a folder of images"),
        ("rollout", _forecast, "forecast any number of frames, autoregressively"),
    ):
        sub = command(name, run, help)
        sub.add_argument("input", type=Path, help="a GIF, PNG or WebP animation, or a folder of images")
        sub.add_argument(
            "--model", required=True, help="a catalogue name, a folder, a .safetensors file or hf://user/repo"
        )
        sub.add_argument("-o", "--out", type=Path, required=True, help="an animation (.gif, .png, .webp), or a folder")
        if name == "rollout":
            sub.add_argument("--steps", type=int, required=True)
        else:
            sub.set_defaults(steps=None)

    sub = command("evaluate", _evaluate, "measure a model on its test protocol, beside persistence")
    sub.add_argument("source", help="a catalogue name, a folder, a .safetensors file or hf://user/repo")
    _data_options(sub)
    sub.add_argument("--limit", type=int, help="only the first so many sequences; the report says so")
    sub.add_argument(
        "--definition", default="stzoo", choices=["stzoo", "simvp-2022"], help="how the metrics are defined"
    )
    _precision_option(sub)
    sub.add_argument("--csv", action="store_true", help="one row a step")
    sub.add_argument("--json", action="store_true")

    sub = command("train", _train, "train a model of the catalogue by its recipe, or go on where a run stopped")
    sub.add_argument("name")
    _data_options(sub)
    sub.add_argument("--out", type=Path, required=True, help="the run folder")
    sub.add_argument("--recipe", help="a TOML file in place of the entry's own recipe")
    budget = sub.add_mutually_exclusive_group()
    budget.add_argument("--steps", type=int)
    budget.add_argument("--minutes", type=float, help="converted to steps by the pace measured here, once")
    sub.add_argument("--codec", help="of a modular entry: the folder of a trained codec, in place of the entry's own")
    sub.add_argument("--codec-minutes", type=float, help="for a codec that must be trained first")
    sub.add_argument("--device", choices=["cpu", "cuda"], help="the GPU where there is one, by default")

    sub = command("convert", _convert, "turn a checkpoint that others published into a folder that stzoo loads")
    sub.add_argument("origin", choices=["openstl"])
    sub.add_argument("checkpoint", type=Path, help="a .pth or .ckpt file of tensors")
    sub.add_argument("--model", required=True, help="a catalogue name, or a JSON file holding a spec")
    sub.add_argument("--out", type=Path, required=True, help="the folder to write")

    sub = command("catalog", _pack, "pack NAME RUN: measure a run's best weights and enter them in this checkout")
    sub.add_argument("action", choices=["pack"])
    sub.add_argument("name")
    sub.add_argument("run_folder", type=Path, metavar="RUN")
    _data_options(sub)
    _precision_option(sub)
    sub.add_argument("--hardware", required=True, help="what the run ran on, for the card")

    sub = command(
        "benchmark", _benchmark, "import time, time to the first forecast, latency and memory on this machine"
    )
    sub.add_argument("name", nargs="?", default="tau-mmnist")
    sub.add_argument("--json", action="store_true")

    sub = command("demo", _demo, "forecast drawn digits: no dataset, no network; writes a GIF and a PNG strip")
    sub.add_argument("--out", type=Path, default=Path())
    sub.add_argument("--seed", type=int, default=0)
    return parser


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mnist", type=Path, required=True, metavar="DIR", help="folder of the MNIST IDX files")
    parser.add_argument("--download", metavar="URL", help="https base to fetch the IDX files from where DIR lacks them")


def _precision_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision", default="float32", choices=["float32", "bfloat16"], help="that the model runs in"
    )


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
                    }
                    for e in rows
                ]
            )
        )
        return
    width = max((len(n) for n in names), default=0)
    for e in rows:
        print(f"{e.name:<{width}}  {'weights' if e.weights else '-':<8} {e.summary}")


def _info(arguments: Arguments) -> None:
    entry = catalog.info(arguments.name)
    if not arguments.json:
        print(entry)
        return
    fields = {f.name: getattr(entry, f.name) for f in dataclasses.fields(entry) if f.name != "spec"}
    plain = {k: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for k, v in fields.items()}  # type: ignore[arg-type]
    plain |= {"spec": entry.spec.to_dict(), "metrics": [dataclasses.asdict(m) for m in entry.metrics]}
    print(json.dumps(plain, indent=2))


def _forecast(arguments: Arguments) -> None:
    from tqdm import tqdm

    from stzoo.forecaster import load
    from stzoo.frames.images import check_writable, write_images

    check_writable(arguments.out)
    model = load(arguments.model)
    steps = model.spec.frames_out if arguments.steps is None else arguments.steps
    images = list(tqdm(model.stream(arguments.input, steps), total=steps, unit="frame", delay=1))
    write_images(arguments.out, images)
    print(f"{len(images)} frames -> {arguments.out}")


def _evaluate(arguments: Arguments) -> None:
    from stzoo.codec import load_codec
    from stzoo.evaluate import evaluate, evaluate_codec
    from stzoo.forecaster import load

    codec = _is_codec(arguments.source)
    model: Any = (load_codec if codec else load)(arguments.source)
    _fill(arguments)
    clips, protocol = _protocol(arguments.mnist, codec)
    if arguments.limit is not None:
        if not 1 <= arguments.limit <= len(clips):
            raise SpecError(f"--limit is {arguments.limit}; it may be 1 to {len(clips)}")
        clips = dataclasses.replace(clips, count=arguments.limit)
        protocol += f", first {arguments.limit} sequences only"
    report: Any = (evaluate_codec if codec else evaluate)(
        model,
        clips,
        name=arguments.source,
        protocol=protocol,
        definition=arguments.definition,
        precision=arguments.precision,
    )
    print(report.to_json() if arguments.json else report.to_csv() if arguments.csv else report)


def _is_codec(source: str) -> bool:
    """Does this name, folder or file hold a codec?"""
    from stzoo.hub import resolve
    from stzoo.models import ARCHITECTURES

    spec = resolve(source).spec
    return spec.arch in ARCHITECTURES and ARCHITECTURES[spec.arch].kind == "codec"


def _protocol(folder: Path, codec: bool) -> tuple[MovingDigits, str]:
    """The test set and its name: of a codec, the first two frames of each sequence."""
    from stzoo.data import mmnist

    if codec:
        return mmnist.protocol_set(folder, 1, 1), "mmnist-frames"
    return mmnist.protocol_set(folder), "mmnist-10-10"


def _train(arguments: Arguments) -> None:
    from stzoo.codec import Codec, load_codec
    from stzoo.data import mmnist
    from stzoo.models import build
    from stzoo.train import Recipe, default_device, read_recipe, train
    from stzoo.train.objectives import check

    entry = catalog.info(arguments.name)
    spec, recipe = entry.spec, read_recipe(arguments.recipe or arguments.name)
    if recipe.dataset != "mmnist":
        raise SpecError(f"{entry.name} is trained on {recipe.dataset}, which this release does not read yet")
    _fill(arguments)
    for option in ("steps", "minutes", "codec_minutes"):
        value = getattr(arguments, option)
        if value is not None and not 0 < value < math.inf:
            raise SpecError(f"--{option.replace('_', '-')} is {value}; it must be positive")
    device = arguments.device or default_device()
    if device == "cuda" and default_device() != "cuda":
        raise SpecError("--device is cuda; this machine, or this build of torch, has none")

    def run(spec: ModelSpec, recipe: Recipe, out: Path, codec: Codec | None, **budget: Any) -> Path:
        data = [
            source(arguments.mnist, spec.frames_in, spec.frames_out).to(device)
            for source in (mmnist.training_set, mmnist.validation_set)
        ]
        return train(spec, recipe, data[0], data[1], out, device=device, codec=codec, **budget)

    check(build(spec, "meta"), recipe)  # before a codec is trained for it
    first = None if entry.codec is None else catalog.info(entry.codec.entry)
    if first is None and (arguments.codec is not None or arguments.codec_minutes is not None):
        raise SpecError(f"{entry.name} has no codec; --codec and --codec-minutes are for modular entries")
    untrained = first is not None and arguments.codec is None and first.weights is None
    if arguments.codec_minutes is not None and not untrained:
        raise SpecError("--codec-minutes is for a codec that must be trained first; this one has weights")
    codec = None
    if first is not None:
        source: Any = first.name if arguments.codec is None else arguments.codec
        if untrained:
            print(f"first the codec, {first.name}, which has no weights yet", file=sys.stderr)
            source = run(
                first.spec, read_recipe(first.name), arguments.out / "codec", None, minutes=arguments.codec_minutes
            )
        codec = load_codec(source)
    best = run(spec, recipe, arguments.out, codec, steps=arguments.steps, minutes=arguments.minutes)
    print(f"best weights: {best}\nmeasure them: stzoo evaluate {best} --mnist {arguments.mnist}")


def _convert(arguments: Arguments) -> None:
    from stzoo.convert import convert_openstl

    print(convert_openstl(arguments.checkpoint, _spec(arguments.model), arguments.out))


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


def _pack(arguments: Arguments) -> None:
    from stzoo.train.pack import pack

    _fill(arguments)
    name, precision = arguments.name, arguments.precision
    command = f"stzoo evaluate {name} --mnist DIR" + (f" --precision {precision}" if precision != "float32" else "")
    clips, protocol = _protocol(arguments.mnist, catalog.info(arguments.name).kind == "codec")
    print(pack(name, arguments.run_folder, clips, protocol, command, arguments.hardware, precision))


def _fill(arguments: Arguments) -> None:
    if arguments.download:
        from stzoo.data.mmnist import download

        download(arguments.mnist, arguments.download)


def _benchmark(arguments: Arguments) -> None:
    from stzoo.benchmark import benchmark

    result = benchmark(arguments.name)
    print(json.dumps(dataclasses.asdict(result)) if arguments.json else result)


def _demo(arguments: Arguments) -> None:
    from stzoo.demo import demo

    result = demo(arguments.out, arguments.seed)
    print(f"MSE {result.mse:.1f}, persistence {result.persistence_mse:.1f} (summed over a frame, mean of 10 frames)")
    print(f"{result.gif}: truth | forecast, 10 past and 40 future frames")
    print(f"{result.strip}: past | truth | forecast | error")
