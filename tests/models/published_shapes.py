"""Names and shapes of published checkpoints, made from the layouts, without a single weight."""

import re
from functools import cache

from stzoo.models import architecture_of, build
from stzoo.models.reading import Shapes
from stzoo.spec import ModelSpec

LEAF = r"(.+?)(|\.(?:weight|bias|running_mean|running_var|num_batches_tracked))"


@cache
def published_shapes(spec: ModelSpec, origin: str = "openstl") -> Shapes:
    """Names and shapes of a published checkpoint of this model."""
    rules, shapes = architecture_of(spec).layouts[origin].rules, {}
    for name, tensor in build(spec, "meta").state_dict().items():
        stem, leaf = re.fullmatch(LEAF, name).groups()  # type: ignore[union-attr]
        rule, theirs = next((rule, theirs) for rule in rules if (theirs := rule.name(stem)))
        shapes[theirs + leaf] = rule.shape(tuple(tensor.shape))
    return shapes
