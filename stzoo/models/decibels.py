"""Values that are ten times the logarithm of a quantity, such as rain in dBR, whose means are taken of the quantity."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from stzoo.errors import SpecError
from stzoo.spec import ModelSpec


@dataclass(frozen=True)
class Decibels:
    """Normalised decibels <-> the quantity.

    Attributes:
        mean, std: of the normalisation.
        nothing: the value, in decibels, that stands for a quantity of zero.
    """

    mean: float
    std: float
    nothing: float

    @classmethod
    def of(cls, spec: ModelSpec) -> Decibels:
        """Those of a model with one channel; `nothing` is what the spec fills in for missing values.

        Raises:
            SpecError: it has more channels, or no such value.
        """
        if spec.channels != 1 or spec.fill is None:
            raise SpecError("decibels need a spec with one channel and a fill value, which stands for nothing at all")
        return cls(spec.mean[0], spec.std[0], spec.fill)

    def quantity(self, values: Tensor) -> Tensor:
        """Normalised values -> the quantity, float32; zero for `nothing` and below."""
        return (10 ** ((values.float() * self.std + self.mean) / 10) - self.least).clamp(min=0.0)

    def values(self, quantity: Tensor) -> Tensor:
        """The inverse of `quantity`, for quantities of at least zero."""
        return (10 / log(10) * torch.log(quantity + self.least) - self.mean) / self.std

    @property
    def least(self) -> float:
        """What `nothing` would be as a quantity, which is added inside the logarithm."""
        return 10 ** (self.nothing / 10)
