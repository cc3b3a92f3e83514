"""Which published checkpoints stzoo can build, and which of them an entry of the catalogue may take."""

from __future__ import annotations

import dataclasses
import math

from stzoo.catalog import Entry
from stzoo.errors import SpecError
from stzoo.models import architectures, config_of
from stzoo.published.records import PublishedCheckpoint, published
from stzoo.spec import ModelSpec


def why_unsupported(record: PublishedCheckpoint) -> str | None:
    """Why stzoo cannot open the file, in a phrase; None if it can, as far as that is known without the file."""
    if record.unsupported is not None:
        return record.unsupported
    spec = record.spec
    if spec.arch not in architectures():
        return f"stzoo has no architecture {spec.arch}"
    try:
        config_of(spec)
    except SpecError as error:
        return f"this version of stzoo builds no such model: {error}"
    if record.layout not in architectures()[spec.arch].layouts:
        return f"stzoo does not know how {record.by} named the tensors of this model"
    return None


def best_for(entry: Entry) -> PublishedCheckpoint | None:
    """The published checkpoint that an entry without weights of its own takes; None if there is none.

    Its spec is the entry's, stzoo can open it, nothing is in doubt, and of several it has the lowest published MSE.
    """
    fitting = [
        record
        for record in published().values()
        if record.dataset == entry.dataset
        and record.doubt is None
        and (record.described or {}).get("arch") == entry.spec.arch
        and why_unsupported(record) is None
        and same_model(record.spec, entry.spec)
    ]
    return min(fitting, key=lambda record: float(record.figures.get("mse", math.inf)), default=None)


def same_model(a: ModelSpec, b: ModelSpec) -> bool:
    """Whether two specs describe the same model: `params` may leave out what is the default."""
    own = [f.name for f in dataclasses.fields(ModelSpec) if f.name != "params"]
    return all(getattr(a, name) == getattr(b, name) for name in own) and config_of(a) == config_of(b)
