"""`stzoo convert`: a checkpoint that others published, as a folder that stzoo loads."""

from __future__ import annotations

import json
from pathlib import Path

from stzoo import catalog
from stzoo.cli.shared import Arguments, Commands, add_command
from stzoo.errors import SpecError
from stzoo.hub.sources import MAX_CONFIG
from stzoo.spec import ModelSpec


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "convert",
        _run,
        help="turn a checkpoint that others published into a folder that stzoo loads",
        description="Turn a checkpoint that others published into a folder that stzoo.load and --model open.",
        example="stzoo convert openstl tau.pth --model tau-mmnist-paper --out tau-openstl",
    )
    parser.add_argument(
        "origin",
        metavar="ORIGIN",
        help="who published the checkpoint: openstl; official, which stands for the authors of the architecture; or "
        "what an architecture of another package names",
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="the checkpoint to read, a .pth or .ckpt file of tensors",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="the model whose weights the checkpoint holds: a name that 'stzoo list' shows, or a .json file with a "
        "spec, such as the config.json of a saved model",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")


def _run(arguments: Arguments) -> None:
    from stzoo.convert import convert

    print(convert(arguments.origin, arguments.checkpoint, _spec(arguments.model), arguments.out))


def _spec(name: str) -> ModelSpec:
    """The spec of a catalogue entry, or of a JSON file: the same JSON as an entry's `spec` or a folder's config.json.

    Raises:
        UnknownModelError: no entry has this name. SpecError: there is no such file, or it is not JSON, or its spec is
            wrong. OSError: the file cannot be read.
    """
    if not name.endswith(".json"):
        return catalog.info(name).spec
    file = Path(name)
    if not file.is_file():  # reading a FIFO would wait for ever
        raise SpecError(f"{name} {'is no regular file' if file.exists() else 'does not exist'}; name a spec's file")
    with file.open("rb") as stream:
        content = stream.read(MAX_CONFIG + 1)
    if len(content) > MAX_CONFIG:
        raise SpecError(f"{name} has more than {MAX_CONFIG:,} bytes; a spec is smaller")
    try:
        return ModelSpec.from_dict(json.loads(content.decode("utf-8")))
    except SpecError:
        raise
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{name} is not JSON: {error}") from error
