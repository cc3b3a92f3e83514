"""The figures of a model on a test protocol: one list, which the catalogue, reports, cards and the leaderboard read.

Imports neither torch nor NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from stzoo.errors import SpecError


def of_persistence(name: str) -> str:
    """What the figure `name` is called when it is measured for persistence: "mse" -> "persistence_mse"."""
    return f"persistence_{name}"


def _figure(title: str, digits: int, default: Any = MISSING, *, codec_only: bool = False) -> Any:
    """A field of `Metrics` that tables show; see `Figure`."""
    return field(default=default, metadata={"title": title, "digits": digits, "codec_only": codec_only})


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Figures of the packaged file on a whole test protocol, and the command that printed them.

    MSE and MAE are summed over a frame of values in [0, 1] and averaged over frames; PSNR is in dB. The critical
    success indices of rain, `csi_1` and `csi_5`, are those of the definition "stzoo-rain". With the definition
    "stzoo-rain-rates", MSE and MAE are those of a cell in mm/h, there is neither SSIM nor PSNR, and there are further
    scores of rain, of which these fields keep some. With "stzoo-units", MSE and MAE are those of a cell in the units of
    the data. A forecaster has
    `persistence_mse`, and may have further figures of persistence. `mse_steps` and `persistence_mse_steps` are the two
    errors at each step ahead; an entry has both or neither. A codec's error is that of its reconstruction; if it
    has a codebook, it has `codes_used`, and the `perplexity` of its codes.
    """

    protocol: str
    mse: float = _figure("MSE", 2)
    mae: float = _figure("MAE", 2)
    ssim: float | None = _figure("SSIM", 4, None)
    psnr: float | None = _figure("PSNR", 2, None)
    csi_1: float | None = _figure("CSI 1 mm/h", 4, None)
    csi_5: float | None = _figure("CSI 5 mm/h", 4, None)
    csi_0_1: float | None = _figure("CSI 0.1 mm/h", 4, None)
    bias_0_1: float | None = _figure("frequency bias 0.1 mm/h", 3, None)
    bias_1: float | None = _figure("frequency bias 1 mm/h", 3, None)
    bias_5: float | None = _figure("frequency bias 5 mm/h", 3, None)
    fss33_1: float | None = _figure("FSS 1 mm/h, 33 cells", 4, None)
    dry_rate: float | None = _figure("mm/h far from rain", 4, None)
    persistence_mse: float | None = None
    persistence_ssim: float | None = None
    persistence_psnr: float | None = None
    persistence_csi_1: float | None = None
    persistence_csi_5: float | None = None
    persistence_csi_0_1: float | None = None
    persistence_fss33_1: float | None = None
    codes_used: int | None = _figure("codes in use", 0, None, codec_only=True)
    perplexity: float | None = _figure("perplexity", 1, None, codec_only=True)
    mse_steps: tuple[float, ...] | None = None
    persistence_mse_steps: tuple[float, ...] | None = None
    command: str

    def __post_init__(self) -> None:
        check_same_length("metrics", mse_steps=self.mse_steps, persistence_mse_steps=self.persistence_mse_steps)

    def __str__(self) -> str:
        return f"{self.protocol:<13} {self.shown}"

    @property
    def shown(self) -> str:
        """The figures, in words."""
        shown = []
        for figure in FIGURES:
            model, persistence = figure.of(self), figure.of_persistence(self)
            if model is not None and not figure.codec_only:
                beside = "" if persistence is None else f" (persistence {figure.shown(persistence)})"
                shown.append(f"{figure.title} {figure.shown(model)}{beside}")
        usage = "" if self.codes_used is None else f", {self.codes_used} codes in use, perplexity {self.perplexity:.1f}"
        return f"{', '.join(shown)}{usage}"

    def table(self) -> list[tuple[str, str, str]]:
        """(what it is, of the model, of persistence) of every figure, as text; empty where it was not measured."""
        rows = []
        for figure in FIGURES:
            model, persistence = figure.of(self), figure.of_persistence(self)
            if model is not None:
                beside = "" if persistence is None else figure.shown(persistence)
                rows.append((figure.title, figure.shown(model), beside))
        return rows


@dataclass(frozen=True)
class Figure:
    """One figure that `Metrics` may hold.

    Attributes:
        name: its field in `Metrics`, and its key in a report's `total`.
        title: its heading in a table.
        digits: how many decimals a table shows.
        codec_only: whether only codecs have it.
        persistence: the field with the same figure of persistence; None if `Metrics` keeps none.
    """

    name: str
    title: str
    digits: int
    codec_only: bool
    persistence: str | None

    def of(self, metrics: Metrics) -> float | None:
        """The model's figure; None if it was not measured."""
        value: float | None = getattr(metrics, self.name)
        return value

    def of_persistence(self, metrics: Metrics) -> float | None:
        """The same figure of persistence; None if it was not measured."""
        value: float | None = None if self.persistence is None else getattr(metrics, self.persistence)
        return value

    def shown(self, value: float) -> str:
        return f"{value:.{self.digits}f}"


_NAMES = [f.name for f in fields(Metrics)]
FIGURES = tuple(
    Figure(name=f.name, persistence=twin if (twin := of_persistence(f.name)) in _NAMES else None, **f.metadata)
    for f in fields(Metrics)
    if "title" in f.metadata
)
"""Every figure of `Metrics` that tables show, in the order of its fields."""


def check_same_length(where: str, **curves: Sequence[float] | None) -> None:
    """Raises `SpecError` if two curves of `where` differ in their number of values, or are empty; None is no curve."""
    first, second = (None if curve is None else len(curve) for curve in curves.values())
    if first != second or first == 0:
        names = " and ".join(curves)
        raise SpecError(
            f"{where}.{names} have {first} and {second} values; give both the same number, or leave both out"
        )
