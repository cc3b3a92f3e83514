"""What is known of each checkpoint that others published: one record a file, in the JSON files beside this module.

The name of a record follows one rule: MODEL-DATASET[-VARIANT].PUBLISHER[-epEPOCHS], such as
"tau-mmnist-paper.openstl-ep2000". MODEL is the architecture, with the translator or the size after it where there are
several; DATASET is called as in the catalogue. VARIANT tells specs apart that would otherwise have one name: "paper"
stands on Moving MNIST, and on TAU for Moving Fashion-MNIST, where the entries of our own sizes have the plain names;
"patch2" is a PredRNN on KTH with smaller patches than our entry's. If the catalogue has an entry with the name before
the dot, that entry has this very spec.

Imports neither torch nor NumPy, so listing the records costs little.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from stzoo import catalog, html
from stzoo.catalog import Entry, settings
from stzoo.errors import SpecError, UnknownModelError
from stzoo.spec import ModelSpec, shown

_FILES = ("openstl.json", "official.json")
_OPENSTL_FRAMES = "datasets.json"
_WITH_UNREAD = ("convlstm", "predrnnpp", "mim", "swinlstm")  # their published modules have layers that nothing reads


@dataclass(frozen=True, kw_only=True)
class PublishedCheckpoint:
    """One file with weights that others published. `print(checkpoint)` shows a readable card.

    Figures and counts are text, exactly as the publisher printed them; none of them was measured with stzoo.

    Attributes:
        name: MODEL-DATASET[-VARIANT].PUBLISHER[-epEPOCHS].
        publisher, by: who published it, as it stands in names ("openstl") and in sentences ("OpenSTL").
        model, dataset, variant: the parts of the name before the dot; `variant` is None if it has none.
        method: what the publisher calls the model.
        epochs: how long it was trained; None if that is not stated.
        url: the https address of the file.
        git: git's object id of the file, 40 hexadecimal digits, which pins its content; None if it is in no git tree.
        page: the publisher's page or repository, and where on it the figures stand.
        configuration: the publisher's configuration file; None if there is none.
        figures: metric -> what the publisher says of it. Definitions differ from ours: `stzoo evaluate --definition
            openstl` uses OpenSTL's.
        parameters, flops: the published counts; None if they are not stated.
        layout: what `stzoo.convert` calls the publisher's names of tensors.
        described: the fields of the spec that depend on the file and not on its data, `arch` and `params`; None if
            stzoo has no such architecture, and then `unsupported` says so.
        frames: the fields of the spec that follow from the data: sizes and the range of values.
        license: the licence of the weights, as far as it is stated.
        protocol: what the publisher's loader fed the model, in sentences.
        clip: the kind of drawn clip on which the model must be better than persistence; None if there is none.
        notes: what else is known of the file.
        doubt: why the published count is not that of `spec`; None if it is. An entry of the catalogue never takes a
            doubtful file by itself.
        unsupported: why stzoo cannot build the model; None if nothing is known against it.
    """

    name: str
    publisher: str
    by: str
    model: str
    dataset: str
    variant: str | None = None
    method: str
    epochs: int | None = None
    url: str
    git: str | None = None
    page: str
    configuration: str | None = None
    figures: Mapping[str, str]
    parameters: str | None = None
    flops: str | None = None
    layout: str
    described: Mapping[str, Any] | None = field(default=None, repr=False)
    frames: Mapping[str, Any] = field(repr=False)
    license: str
    protocol: str = field(repr=False)
    clip: Literal["digits", "shapes"] | None = None
    notes: tuple[str, ...] = ()
    doubt: str | None = None
    unsupported: str | None = None

    @property
    def base(self) -> str:
        """The name before the dot."""
        return self.name.partition(".")[0]

    @property
    def spec(self) -> ModelSpec:
        """How the module is built, as far as that is known without the file, whose tensors decide in the end.

        Raises `SpecError` if stzoo has no such architecture.
        """
        if self.described is None:
            raise SpecError(f"{self.name} cannot be built: {self.unsupported}")
        return ModelSpec.from_dict({**self.frames, **self.described})

    @property
    def leaves_out(self) -> bool:
        """Whether the publisher counts parameters that no forecast reads, and that stzoo's module therefore has not."""
        return (self.described or {}).get("arch") in _WITH_UNREAD

    @property
    def _unread(self) -> str:
        return "; they include tensors that no forecast reads, and stzoo leaves these out" if self.leaves_out else ""

    def __str__(self) -> str:
        return "\n".join([self._title, *catalog.lines(self._facts())])

    def _repr_html_(self) -> str:
        """What a notebook shows: the card."""
        return html.facts(self._title, self._facts())

    @property
    def _title(self) -> str:
        epochs = "" if self.epochs is None else f", {self.epochs} epochs"
        return f"{self.name}: {self.method} on {self.dataset}{epochs}, published by {self.by}"

    def _facts(self) -> list[tuple[str, str]]:
        """The lines of the card as (name, what it says)."""
        f, built = self.frames, "none that stzoo has"
        if self.described is not None:
            built = f"{self.spec.arch} ({settings(self.spec.params)})"
        unit = "standardised values" if f["value_range"] is None else f"values in {tuple(f['value_range'])}"
        figures = ", ".join(f"{name} {value}" for name, value in self.figures.items())
        counts = [f"{self.parameters} parameters"] * (self.parameters is not None)
        counts += [f"{self.flops} FLOPs"] * (self.flops is not None)
        pin = f"git object {self.git}" if self.git else "no hash is published; that of the first download is kept"
        found = [
            ("architecture", built),
            (
                "frames",
                f"{f['frames_in']} in, {f['frames_out']} out, {f['channels']}x{f['height']}x{f['width']}, {unit}",
            ),
            ("protocol", self.protocol),
            ("figures", f"{figures}: the publisher's, not measured by us"),
        ]
        found += [("counts", f"{', '.join(counts)}: the publisher's{self._unread}")] if counts else []
        found += [("file", self.url), ("", pin), ("source", self.page)]
        found += [("configuration", self.configuration)] if self.configuration else []
        found += [("unsupported", self.unsupported)] if self.unsupported else []
        found += [("doubt", self.doubt)] if self.doubt else []
        found += [("note", note) for note in self.notes]
        return [*found, ("license", self.license)]


def told_of(record: PublishedCheckpoint) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `stzoo.convert` is to know of a record's file, and what it is to presume until the file's tensors tell.

    Published facts contradict each other in places. So tensors must be those of the architecture and fit the frames of
    the data, and decide everything else. Raises `SpecError` if stzoo has no such architecture.
    """
    spec = record.spec
    known = {name: value for name, value in record.frames.items() if name != "frames_in"} | {"arch": spec.arch}
    return known, {"frames_in": spec.frames_in, "params": spec.params}


def frames_of_datasets() -> dict[str, Mapping[str, Any]]:
    """Each dataset -> the fields of a spec that follow from how OpenSTL reads it: frames, sizes, range of values."""
    return {name: data["frames"] for name, data in _read(_OPENSTL_FRAMES)["datasets"].items()}


@cache
def published() -> Mapping[str, PublishedCheckpoint]:
    """Every checkpoint of others that stzoo knows, by name."""
    datasets = _read(_OPENSTL_FRAMES)["datasets"]
    found = {}
    for file in _FILES:
        content = _read(file)
        for name, values in content["files"].items():
            found[name] = _record(name, values, content, datasets[values["dataset"]])
    return MappingProxyType(found)


def name_of(model: str, dataset: str, variant: str | None, publisher: str, epochs: int | None) -> str:
    """The name of a record, by the rule at the top of this module."""
    base = "-".join(part for part in (model, dataset, variant) if part)
    return f"{base}.{publisher}" + ("" if epochs is None else f"-ep{epochs}")


def list_published(
    pattern: str = "*", *, dataset: str | None = None, arch: str | None = None, supported: bool | None = None
) -> list[str]:
    """The names of the checkpoints of others that match `pattern` and every filter that is given, sorted.

    Args:
        pattern: a shell wildcard, such as `tau-*`. Here and in the filters small letters and capitals are the same.
        dataset: the dataset, such as "kth"; or a word of its name, if no dataset has that very name: "weather" stands
            for weather-t2m, weather-r and so on, and "caltech" for kitti-caltech.
        arch: the architecture, such as "tau".
        supported: True leaves out files that are known not to be supported; False gives these alone.

    Raises:
        SpecError: the pattern or a filter is not text.
    """
    for what, text in (("pattern", pattern), ("dataset", dataset), ("arch", arch)):
        if not isinstance(text, str) and (text is not None or what == "pattern"):
            raise SpecError(f"{what} is {shown(text)}; it must be text")
    datasets = None if dataset is None else _datasets(dataset.lower())
    return sorted(
        name
        for name, record in published().items()
        if fnmatchcase(name, pattern.lower())
        and (datasets is None or record.dataset in datasets)
        and (arch is None or arch.lower() == (record.described or {}).get("arch"))
        and supported in (None, record.unsupported is None)
    )


def _datasets(given: str) -> set[str]:
    """The dataset that is called so, or else those that have this word in their name."""
    known = {record.dataset for record in published().values()}
    return {given} if given in known else {name for name in known if given in name.split("-")}


def info(name: str) -> Entry | PublishedCheckpoint:
    """The catalogue entry, or the checkpoint of others, with this name.

    Raises:
        UnknownModelError: there is neither; the message has the close matches.
        SpecError: the name is not text.
    """
    if isinstance(name, str) and name in published():
        return published()[name]
    try:
        return catalog.info(name)
    except UnknownModelError:
        raise unknown(name) from None


def unknown(name: str) -> UnknownModelError:
    """The error that says that nothing is called so, and what is called nearly so."""
    base, dot, _ = name.lower().partition(".")
    same = [known for known, record in published().items() if dot and record.base == base]
    close = get_close_matches(name.lower(), same or [*catalog.entries(), *published()], n=3) or same[:3]
    what = f"no published checkpoint {shown(name)}" if dot else f"no model {shown(name)} in the catalogue"
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    where = "'stzoo list --published' shows" if dot else "'stzoo list' and 'stzoo list --published' show"
    return UnknownModelError(f"{what}; {hint}{where} all names")


def called_after(entry: Entry) -> list[PublishedCheckpoint]:
    """The checkpoints of others whose name begins with that of the entry: they have the entry's spec."""
    return [record for record in published().values() if record.base == entry.name]


def best_for(entry: Entry) -> PublishedCheckpoint | None:
    """The published checkpoint that an entry without weights of its own takes; None if there is none.

    It is called after the entry, and so has its spec; stzoo can open it, nothing is in doubt, and of several it has the
    lowest published MSE.
    """
    if entry.weights is not None or entry.kind != "forecaster":
        return None
    fitting = [record for record in called_after(entry) if record.doubt is None and record.unsupported is None]
    return min(fitting, key=lambda record: float(record.figures.get("mse", math.inf)), default=None)


def is_published_name(text: str) -> bool:
    """Whether a source is written as a name of a published checkpoint, whether or not there is such a record."""
    base, dot, tag = text.partition(".")
    return bool(base and dot) and tag.partition("-")[0] in {r.publisher for r in published().values()}


def _record(name: str, values: Mapping[str, Any], content: Mapping[str, Any], data: Any) -> PublishedCheckpoint:
    values = dict(values)
    file, stated = values.pop("file"), values.pop("stated")
    page = content["page"] or "https://github.com/" + "/".join(file.split("/")[:2]) + ", commit " + file.split("/")[2]
    return PublishedCheckpoint(
        name=name,
        publisher=content["publisher"],
        by=content["by"],
        url=content["address"] + file,
        page=f"{page}: {stated}",
        layout=content["layout"],
        license=values.pop("license", content["license"]),
        described=values.pop("spec", None),
        frames=data["frames"],
        protocol=data["protocol"],
        clip=data["clip"],
        notes=tuple(values.pop("notes", ())),
        **values,
    )


def _read(file: str) -> Any:
    return json.loads(Path(__file__).with_name(file).read_text("utf-8"))
