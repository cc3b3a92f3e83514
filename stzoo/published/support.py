"""Which published checkpoints stzoo can build."""

from __future__ import annotations

import dataclasses

from stzoo.errors import SpecError
from stzoo.models import architectures, config_of
from stzoo.published.records import PublishedCheckpoint
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


def same_model(a: ModelSpec, b: ModelSpec) -> bool:
    """Whether two specs describe the same model: `params` may leave out what is the default."""
    own = [f.name for f in dataclasses.fields(ModelSpec) if f.name != "params"]
    return all(getattr(a, name) == getattr(b, name) for name in own) and config_of(a) == config_of(b)
