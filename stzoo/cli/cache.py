"""`stzoo cache`: what stzoo keeps on this machine."""

from __future__ import annotations

import json

from stzoo import environment
from stzoo.cli.shared import Arguments, Commands, add_command, add_json
from stzoo.errors import IntegrityError, SpecError
from stzoo.spec import shown


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "cache",
        _run,
        help="list, verify or clear what was downloaded and decoded",
        description="Show, check or remove what stzoo keeps on this machine: downloaded weights, decoded videos, "
        "kernels that were compiled for training, the code of torch.compile, and graphs for ONNX Runtime.",
        example="stzoo cache clear frames",
    )
    parser.add_argument(
        "action",
        choices=["list", "verify", "clear"],
        help="list: show each thing with its size; verify: check every file and remove the damaged ones; "
        "clear: remove everything, or only NAME; the sha256 sums of published checkpoints stay",
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="for clear: name of what to remove, as 'stzoo cache list' shows it: a model, a repository, weights, "
        "published, hub, frames, kernels, compiled, graphs or unfinished (default: everything)",
    )
    add_json(parser)


def _run(arguments: Arguments) -> None:
    if arguments.name is not None and arguments.action != "clear":
        raise SpecError(f"stzoo cache {arguments.action} takes no NAME; leave out {shown(arguments.name)}")
    (_clear if arguments.action == "clear" else _show)(arguments)


def _clear(arguments: Arguments) -> None:
    from stzoo.hub import cache

    freed = cache.clear(arguments.name)
    print(json.dumps({"freed": freed}) if arguments.json else f"{freed / 1e6:.1f} MB freed")


def _show(arguments: Arguments) -> None:
    """Print what is kept. Raises `IntegrityError` at the end if `verify` found damaged files, and removed them."""
    from stzoo.hub import cache

    rows = cache.verified() if arguments.action == "verify" else [(kept, ()) for kept in cache.listed()]
    if arguments.json:
        plain = [
            {
                "name": kept.name,
                "kind": kept.kind,
                "files": [str(f) for f in kept.files],
                "size": kept.size,
                "used": kept.used.isoformat(timespec="seconds"),
                "origin": kept.origin,
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
