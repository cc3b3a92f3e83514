"""What `stzoo catalog add`, `verify`, `publish` and `cards` do with their arguments."""

from __future__ import annotations

import argparse
import dataclasses
import json

from stzoo import catalog
from stzoo.catalog import Entry, Training
from stzoo.data import DATASETS, Reading, open_dataset, protocol_name
from stzoo.data.options import chosen
from stzoo.errors import ManifestError, SpecError
from stzoo.release.candidate import Measurement
from stzoo.release.enter_folder import Description, enter_folder
from stzoo.release.pages import write_cards
from stzoo.release.pictures import Footage, check_filmed
from stzoo.release.publish import publish
from stzoo.release.verify import verify


def measurements(arguments: argparse.Namespace, entry: Entry) -> list[Measurement]:
    """The whole test protocol of an entry, at each horizon that was asked for, with the commands that repeat them."""
    spec, codec = entry.spec, entry.kind == "codec"
    if arguments.skip_bad:
        raise SpecError("--skip-bad would measure a part of the protocol under the name of the whole")
    if codec and arguments.horizons:
        raise SpecError("--horizons are for forecasters")
    for steps in arguments.horizons or []:
        if steps < 1:
            raise SpecError(f"--horizons is {steps}; it must be positive")
    dataset, data = chosen(arguments, spec, entry.dataset)
    found = []
    for steps in [1] if codec else arguments.horizons or [spec.frames_out]:
        protocol = protocol_name(dataset, spec.frames_in, steps, codec=codec, every=arguments.every)
        command = f"stzoo evaluate {entry.name} --data DIR"
        command += "" if codec or steps == spec.frames_out else f" --steps {steps}"
        command += "" if dataset == entry.dataset else f" --dataset {dataset}"
        command += "" if arguments.every == 1 else f" --every {arguments.every}"
        command += "" if arguments.precision == "float32" else f" --precision {arguments.precision}"
        clips = data.split("test", spec.frames_in, steps)
        found.append(Measurement(protocol, clips, DATASETS[dataset].definition, command))
    return found


def run_add(arguments: argparse.Namespace) -> None:
    """Enter a saved folder in this checkout, with its figures at each horizon that was asked for."""
    description = Description(
        summary=arguments.summary,
        unsuited=arguments.unsuited,
        dataset=arguments.dataset if arguments.mnist is None else "mmnist",
        license=arguments.license,
        data_terms=arguments.data_terms,
        citation=arguments.citation,
    )
    training = Training(
        recipe=arguments.recipe,
        sequences_seen=arguments.sequences,
        hardware=arguments.hardware,
        hours=arguments.hours,
    )

    def protocols(entry: Entry) -> list[Measurement]:
        if entry.kind == "forecaster" and entry.spec.frames_out not in (arguments.horizons or [entry.spec.frames_out]):
            raise SpecError(f"--horizons must hold the model's own, {entry.spec.frames_out}")
        return measurements(arguments, entry)

    reports = enter_folder(arguments.folder, arguments.name, description, training, protocols, arguments.precision)
    for report in reports:
        print(report)


def run_verify(arguments: argparse.Namespace) -> None:
    """One line for each entry; one error at the end where any of them fails."""
    found = []
    for finding in verify(arguments.names):
        found.append(finding)
        if not arguments.json:
            print(finding, flush=True)
    if arguments.json:
        print(json.dumps([dataclasses.asdict(f) | {"ok": f.ok} for f in found]))
    failed = [f.name for f in found if not f.ok]
    if failed:
        raise ManifestError(f"{len(failed)} of {len(found)} fail: {', '.join(failed)}")


def run_publish(arguments: argparse.Namespace) -> None:
    """One line for each entry, as soon as it is there and has been read back."""
    for published in publish(arguments.destination, arguments.names, private=arguments.private):
        print(published, flush=True)


def run_cards(arguments: argparse.Namespace) -> None:
    """One line for each file, as soon as it is there."""
    for path in write_cards(arguments.names, _footage(arguments), arguments.out):
        print(path, flush=True)


def _footage(arguments: argparse.Namespace) -> dict[str, Footage]:
    """The test clips of each entry that is named; where none is, of each with weights that is for the dataset.

    Raises:
        UnknownModelError, SpecError, NotPublishedError: names and data do not go together. DataError: no such data.
    """
    dataset, folder = arguments.dataset, arguments.data or arguments.mnist
    if arguments.mnist is not None and dataset not in (None, "mmnist"):
        raise SpecError(f"--mnist names the digits of mmnist, --dataset is {dataset}; give --data")
    dataset = "mmnist" if arguments.mnist is not None else dataset
    if folder is None:
        if dataset is not None:
            raise SpecError("name the folder of the dataset with --data DIR")
        return {}
    entries = [catalog.info(name) for name in arguments.names]
    if not entries and dataset is None:
        raise SpecError(f"say what {folder} holds with --dataset, or name the entries")
    if not entries:
        names = catalog.list_models(dataset=dataset, pretrained=True, kind="forecaster")
        entries = [catalog.info(name) for name in names]
    found = {}
    for entry in entries:
        check_filmed(entry)
        if dataset not in (None, entry.dataset):
            raise SpecError(f"{entry.name} is shown on {entry.dataset}, the data is {dataset}")
        data = open_dataset(entry.dataset, folder, Reading.of(entry.spec))
        clips = data.split("test", entry.spec.frames_in, entry.spec.frames_out)
        found[entry.name] = Footage(clips, f"stzoo catalog cards {entry.name} --data DIR")
    return found
