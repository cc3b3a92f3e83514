"""A recipe: every value that matters to a training run, read from a small TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from stzoo.data import DATASETS
from stzoo.errors import SpecError
from stzoo.spec import bounded, from_mapping, required
from stzoo.train.sampling import Sampling
from stzoo.train.shuffled import Flips


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one catalogue entry is trained.

    Attributes:
        dataset: where clips come from, a key of `stzoo.data.DATASETS`.
        horizon: how many future frames a step is trained on; 0 is the spec's frames_out. Beyond that the model is
            trained through its own rollout, and validated on it.
        zoom: of videos, cut windows of between 1 / zoom of a frame and all of it, brought to the model's size.
        flips: which mirror images of a clip are shown beside it, see `stzoo.train.shuffled`.
        minutes: default time budget, on the hardware named in the recipe's comment.
        batch: clips a step.
        optimizer: "adamw", or "muon" for the convolutions that mix channels, with AdamW for all else.
        lr: peak rate of AdamW.
        muon_lr: peak rate of Muon; its updates are scaled to compare with AdamW's.
        schedule: "cosine" or "one-cycle"; warmup: share of the steps that the rate rises.
        clip: largest norm of the gradient; 0 leaves it alone.
        ema: decay of the averaged weights, which are what is validated and saved.
        precision: "bfloat16" is autocast, parameters stay float32.
        channels_last, compile: how the plain module is laid out and run.
        fused: use the CPU kernels of `stzoo.train.fused` where they apply; elsewhere the plain module.
        checkpoint: keep less of a step for its backward pass, and compute the rest again, see `stzoo.train.recompute`:
            less memory for more time, the same gradients; without `fused` and `compile`, which keep what they like.
        reduction, ddr_weight, ddr_temperature: the loss, see `stzoo.train.losses`.
        emphasis: the squared error of a cell counts 1 + emphasis * max(0, truth), the truth normalised: rare, large
            values count more, such as heavy rain; in the validation error too.
        l1_weight: of the absolute error beside the squared one (E3D-LSTM: 1).
        sampling, sampling_share: which true frames a recurrent model is shown, see `stzoo.train.sampling`, and the
            share of the steps over which that falls; "none" trains the forecast alone, as it will be used.
        decouple_weight: of PredRNN-V2's decoupling loss; needs `decouple` in the spec's params.
        moment_weight: of PhyDNet's constraint on its kernels.
        freeze: beginnings of the names of parameters that stay as they are.
        cached_clips: of a modular model: train on the latents of the first so many clips over and over, kept in the run
            folder, see `stzoo.train.latents`; 0 sees every clip once and encodes it when it comes.
        codebook, codebook_decay, commitment: how a codec's codes follow its latents, by a running mean or by a loss,
            and the weight of what keeps latents near their codes; see `stzoo.train.codec`.
        validate_every: steps between validations, each on validation_clips held-out clips.
        checkpoint_minutes: at most this long between two checkpoints.
        seed: of the initial weights.
    """

    dataset: str
    minutes: float = required(0.01, 1e6)
    horizon: int = bounded(0, 0, 1024)
    zoom: float = bounded(1.0, 1.0, 4.0)
    flips: Flips = "none"
    batch: int = bounded(16, 1, 4096)
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: float = bounded(1e-3, 0.0, 10.0)
    muon_lr: float = bounded(0.02, 0.0, 10.0)
    betas: tuple[float, float] = bounded((0.9, 0.999), 0.0, 0.99999)
    weight_decay: float = bounded(0.05, 0.0, 10.0)
    schedule: Literal["cosine", "one-cycle"] = "cosine"
    warmup: float = bounded(0.05, 0.0, 0.9)
    clip: float = bounded(1.0, 0.0, 1e6)
    ema: float = bounded(0.999, 0.0, 0.999999)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    channels_last: bool = True
    compile: bool = False
    fused: bool = False
    checkpoint: bool = False
    reduction: Literal["mean", "sum"] = "mean"
    ddr_weight: float = bounded(0.1, 0.0, 1e3)
    ddr_temperature: float = bounded(0.1, 1e-3, 1e3)
    emphasis: float = bounded(0.0, 0.0, 1e3)
    l1_weight: float = bounded(0.0, 0.0, 1e3)
    sampling: Sampling = "none"
    sampling_share: float = bounded(0.4, 1e-6, 1.0)
    decouple_weight: float = bounded(0.0, 0.0, 1e3)
    moment_weight: float = bounded(0.0, 0.0, 1e3)
    freeze: tuple[str, ...] = ()
    cached_clips: int = bounded(0, 0, 1 << 40)
    codebook: Literal["ema", "loss"] = "ema"
    codebook_decay: float = bounded(0.99, 0.0, 0.999999)
    commitment: float = bounded(0.25, 0.0, 1e3)
    validate_every: int = bounded(500, 1, 1_000_000)
    validation_clips: int = bounded(1000, 1, 10_000)
    checkpoint_minutes: float = bounded(2.0, 0.0, 60.0)
    seed: int = bounded(0, 0, 2**31)

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise SpecError(f"recipe.dataset is {self.dataset!r}; it may be {', '.join(DATASETS)}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_recipe(name: str) -> Recipe:
    """The recipe of a catalogue entry, or of a TOML file.

    Raises:
        SpecError: there is none, it is no TOML, or a value is wrong; the message names it.
    """
    packaged = resources.files("stzoo.train") / "recipes" / f"{name}.toml"
    file = Path(name) if name.endswith(".toml") else packaged
    if not file.is_file():
        raise SpecError(f"no recipe {name}")
    try:
        return from_mapping(Recipe, tomllib.loads(file.read_text("utf-8")), f"recipe {name}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"recipe {name}: {error}") from error
