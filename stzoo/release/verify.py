"""Checking that the catalogue is true. Every entry is checked, without data, even if others fail."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stzoo import catalog, hub
from stzoo.catalog import Entry
from stzoo.codec import Codec
from stzoo.data import protocol_name
from stzoo.errors import IntegrityError
from stzoo.evaluate import golden
from stzoo.forecaster import Forecaster
from stzoo.models import build, check_kind
from stzoo.weights import embedded_spec


@dataclass(frozen=True)
class Finding:
    """What was found of one entry, or of a file that belongs to no entry.

    Attributes:
        name: the entry or the file.
        checked: what was checked, in words.
        problems: what is wrong, in words; empty if all is well.
    """

    name: str
    checked: str
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name:<28} {'; '.join(self.problems) or self.checked}"


def verify(names: Sequence[str] = ()) -> Iterator[Finding]:
    """Check the entries `names`; if there are none, the whole catalogue and the folder of checkpoints.

    Every entry's spec must build. If an entry has weights, they must be found, have the pinned sha256 and size, fill
    the module strictly, forecast what they did when they were measured, and have figures on their own protocol.

    Yields:
        A finding for each entry, and one for each file that no entry names.

    Raises:
        UnknownModelError: the catalogue has no such entry. ManifestError: the manifest cannot be read at all.
    """
    known = [catalog.info(name) for name in names] or list(catalog.entries().values())
    for entry in known:
        problems: list[str] = []
        checked = ""
        try:
            checked = _check(entry, problems)
        except (
            Exception
        ) as error:  # whatever it is, it is a problem of this entry, and the others must still be checked
            problems.append(" ".join(str(error).split()) or type(error).__name__)
        yield Finding(entry.name, checked, tuple(problems))
    if not names:
        yield from _strays()


def _check(entry: Entry, problems: list[str]) -> str:
    """What was checked, in words. A problem is added to `problems`, or raised if no further check is possible."""
    build(entry.spec, "meta")
    check_kind(entry.spec, entry.kind, entry.name)
    if entry.weights is None or entry.golden is None:  # the reader of the manifest refuses one without the other
        return "the spec builds; no weights"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        file = hub.resolve(entry.name, progress=False)
    problems += [str(warning.message) for warning in said]  # a source had another file
    stored = file.known[file.path]  # as it was read, whatever the file has become since
    if stored.sha256 != entry.weights.sha256:
        raise IntegrityError(f"{file.path} does not have the pinned sha256")
    size = stored.size
    if size != entry.weights.size:
        problems.append(f"{file.path.name} has {size} bytes, the manifest says {entry.weights.size}")
    if embedded_spec(stored) not in (None, entry.spec):
        problems.append(f"the spec inside {file.path.name} differs from the entry's")
    model = (Codec if entry.kind == "codec" else Forecaster).from_files(file, entry.name)
    found = golden(model, entry.golden.input_seed)
    pinned = (entry.golden.output_mean, entry.golden.output_std)
    if not all(abs(a - b) <= entry.golden.tolerance for a, b in zip(found, pinned, strict=True)):
        problems.append(
            f"the golden forecast has mean {found[0]:.6f} and deviation {found[1]:.6f}, "
            f"the manifest says {pinned[0]:.6f} and {pinned[1]:.6f}"
        )
    own = protocol_name(entry.dataset, entry.spec.frames_in, entry.spec.frames_out, codec=entry.kind == "codec")
    if not any(m.protocol == own or m.protocol.startswith(f"{own}-every-") for m in entry.metrics):
        problems.append(f"no figures on {own}, its own protocol")
    place = "" if file.path.parent == catalog.CHECKPOINTS else f"; not in the package, but at {file.path}"
    protocols = f"{len(entry.metrics)} protocol{'s' if len(entry.metrics) > 1 else ''}"
    return f"the pinned file loads and forecasts as it did; {size / 1e6:.1f} MB, {protocols}{place}"


def _strays() -> Iterator[Finding]:
    """Files among the checkpoints that no entry names. An interrupted `pack` or `add` may leave such a file."""
    listed = {e.weights.file for e in catalog.entries().values() if e.weights and "package" in e.weights.sources}
    for file in sorted(catalog.CHECKPOINTS.glob("*.safetensors*")):
        if file.name not in listed:
            yield Finding(file.name, "", ("no entry names this file of the package",))
