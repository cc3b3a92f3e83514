"""What a training run is about: a spec, a recipe, clips, and the weights that it begins from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from stzoo.codec import Codec
from stzoo.data import ClipSource
from stzoo.errors import SpecError
from stzoo.metrics.perceptual import read_network
from stzoo.models import architecture_of, config_of
from stzoo.models.contract import Kind
from stzoo.models.modular import codec_spec
from stzoo.spec import ModelSpec, differences
from stzoo.train.recipe import Recipe
from stzoo.weights import Origin


@dataclass(frozen=True, eq=False)
class Assignment:
    """What a training run is about. None of it changes while the run goes on.

    Attributes:
        spec: the model that is trained.
        recipe: how it is trained.
        training: the clips it learns from. Clip i belongs to step i // recipe.batch.
        codec: the trained codec of a modular spec, which is not trained further; None for every other spec.
        start: the weights to begin from, by their names in the module; random ones where None.
        micro_batch: the largest number of clips that go through the model at once; the whole batch where None.
        origin: whose weights `start` was made of, which is noted in what the run makes; None if nobody published them.
    """

    spec: ModelSpec
    recipe: Recipe
    training: ClipSource
    _: KW_ONLY
    codec: Codec | None = None
    start: Mapping[str, Tensor] | None = None
    micro_batch: int | None = None
    origin: Origin | None = None

    @property
    def kind(self) -> Kind:
        """The kind of architecture, see `stzoo.models.contract`."""
        return architecture_of(self.spec).kind

    def check(self) -> None:
        """Raises `SpecError` if recipe and start, or spec and codec do not fit, or `micro_batch` is not positive."""
        if self.micro_batch is not None and self.micro_batch < 1:
            raise SpecError(f"micro_batch is {self.micro_batch}; it must be at least 1")
        if self.start is None:
            check_from_scratch(self.recipe)
        if self.start is not None:  # the weights of a modular model include its codec's
            return
        if self.kind != "modular":
            if self.codec is not None:
                raise SpecError(f"architecture {self.spec.arch} takes no codec; leave `codec` out")
            return
        if self.codec is None:
            raise SpecError("a modular architecture is trained on the latents of a trained codec; pass one as `codec`")
        _check_codec(self.codec.spec, codec_spec(self.spec, config_of(self.spec)))

    def identity(self, validation: ClipSource) -> dict[str, Any]:
        """What tells this run from others, in types that JSON has: plan.json begins with it.

        Spec and recipe are written out; codec, start, clips and the weights of a perceptual loss, where there are any,
        are sha256 sums.

        Raises:
            DataError, DownloadError: the weights of a perceptual loss are not there, and cannot be fetched.
        """
        recipe = json.loads(json.dumps(self.recipe.to_dict()))  # tuples become lists, as in a plan that was read
        found: dict[str, Any] = {"spec": self.spec.to_dict(), "recipe": recipe}
        if self.codec is not None:
            found["codec"] = weights_digest(self.codec.module.state_dict())
        if self.start is not None:
            found["start"] = weights_digest(self.start)
        if self.recipe.perceptual_weight:
            found["perceptual"] = weights_digest(read_network().state_dict())
        return found | {"clips": clips_digest(self.training, validation)}


def check_from_scratch(recipe: Recipe) -> None:
    """Raises `SpecError` if a recipe needs weights to begin from."""
    if recipe.blend < 1:
        raise SpecError("recipe.blend is for fine-tuning, where there are weights to begin from; leave it out")


def _check_codec(given: ModelSpec, wanted: ModelSpec) -> None:
    different = differences(given, wanted, ignoring=("frames_in", "frames_out", "height", "width", "params"))
    its, ours = config_of(given), config_of(wanted)  # a default counts the same whether it is written out or not
    if its != ours:
        different.append(f"params {its} for {ours}")
    if different:
        raise SpecError(f"the codec is not the one that the spec describes: it has {', '.join(different)}")


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 sum, as 64 hex digits, of every tensor with its name: equal for equal weights from any source."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def clips_digest(*sources: ClipSource) -> str:
    """The sha256 sum, as 64 hex digits, of how many clips each source has, its first clip and the one in the middle."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(str(len(source)).encode())
        for i in (0, len(source) // 2):
            clip = source.clips(i, i + 1)
            digest.update(torch.cat([clip.past, clip.future], 1).cpu().numpy().tobytes())
    return digest.hexdigest()
