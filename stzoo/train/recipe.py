"""A recipe: every value that a training run depends on, read from a small TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from stzoo.data import DATASETS
from stzoo.errors import SpecError
from stzoo.machine import PrecisionChoice
from stzoo.spec import bounded, from_mapping, required
from stzoo.train.clips import Flips
from stzoo.train.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one catalogue entry is trained.

    Attributes:
        dataset: the dataset to learn from, a key of `stzoo.data.DATASETS`.
        minutes: the default time for training, on the hardware that the recipe's comment names.
        horizon: the number of future frames in a training clip; 0 for the spec's `frames_out`. With more than those the
            model is trained through its own rollout, and validated on it.
        zoom: videos and images are cut into windows, at random, between 1 / zoom of a frame and all of it; each is
            brought to the model's size. With 1 there is no cutting.
        flips: which mirror images of a clip it is also trained on, see `stzoo.train.clips.Shuffled`.
        batch: clips in a step.
        optimizer: "adamw"; or "muon" for the weights that mix channels, with AdamW for all others.
        lr: the peak learning rate of AdamW.
        muon_lr: the peak learning rate of Muon, whose updates are scaled so that its rates compare with AdamW's.
        betas: the two decay rates of AdamW's moments.
        weight_decay: of both optimisers, for the weights of convolutions and linear layers.
        schedule: how the rates change, "cosine" or "one-cycle", see `stzoo.train.optim`.
        warmup: the share of the steps during which the rates rise.
        clip: the largest norm of the gradient, which is scaled down to it; 0 for no limit.
        ema: the decay of the moving average of the weights, which is what is validated and saved (see `blend`).
        blend: for fine-tuning: how much of what training changes is kept. The weights that are validated and saved lie
            this far on the way from those that training began with (0) to the moving average (1): WiSE-FT (Wortsman et
            al., CVPR 2022). With 0.5 a model may lose less of what it knew beyond the clips that it is tuned on.
        precision: what products are computed in: "float32", "bfloat16", or "auto", which is bfloat16 where the device
            multiplies in it natively, and float32 elsewhere. The parameters are float32 in any case.
        channels_last: keep frames and weights in the channels-last memory format.
        compile: run the model through `torch.compile`.
        fused: on a CPU, use the kernels of `stzoo.train.fused`, if the architecture has some. If they cannot train this
            model here, a warning says why.
        checkpoint: keep less of a step for its backward pass and compute the rest again, see `stzoo.train.recompute`:
            the same gradients with less memory, in more time. Not together with `fused` or `compile`.
        reduction: how errors are added up, "mean" over all elements or "sum" over a clip, see `stzoo.train.losses`.
        ddr_weight: the weight of the differential divergence regularisation of TAU; 0 leaves it out.
        ddr_temperature: its softmax temperature.
        emphasis: the squared error of a cell is multiplied by 1 + emphasis * max(0, truth), with the normalised truth,
            so that rare large values such as heavy rain count more. The validation error is weighted likewise.
        l2_weight: the weight of the squared error; with 0, other terms alone are learnt from.
        l1_weight: the weight of the absolute error beside the squared one (E3D-LSTM: 1).
        quantity: for values in decibels, such as rain in dBR: all errors, that of the validation too, are those of the
            quantity itself, such as the rain rate in mm/h. The model then learns its mean.
        deviance_weight: the weight of the Poisson deviance of the quantity beside its squared error, which alone sees
            little but heavy rain. Both are least for the mean.
        sampling: which true frames a recurrent model reads while it trains, see `stzoo.train.sampling`; with "none" it
            trains as it will be used, on its own forecasts.
        sampling_share: the share of the steps during which it reads fewer and fewer true frames.
        decouple_weight: the weight of PredRNN-V2's decoupling loss, which needs `decouple` in the spec's params.
        memory_weight: the weight of the storing phase of LMC-Memory (published: 1), in which the memory learns from
            past and future; its errors are those of the forecast, by the other settings.
        moment_weight: the weight of PhyDNet's constraint on its kernels.
        freeze: parameters whose names begin with one of these are not trained.
        cached_clips: for a modular model: train on the latents of this many clips again and again, which are kept in
            the run folder, see `stzoo.train.latents`. With 0 every clip is new, and is encoded when it is needed.
        decoded_weight: for a modular model: the weight of a second squared error, between the frames that the frozen
            decoder paints of the forecast latents and of the true ones. It is taken over the future alone.
        codebook: how the codes of a codec follow its latents: by a running mean ("ema") or by a loss ("loss"), see
            `stzoo.train.codebook`.
        codebook_decay: the decay of that running mean.
        commitment: the weight of the loss that keeps latents near their codes.
        kl_weight: for a codec with Gaussian latents: beta, the weight of their divergence from N(0, 1), see
            `stzoo.train.codecs.codec_loss`.
        perceptual_weight: for a codec: the weight of LPIPS beside the squared error, see `stzoo.train.perceptual`. Its
            weights are downloaded when they are first needed, or those that $STZOO_LPIPS names. 0 leaves it out.
        validate_every: steps from one validation to the next.
        validation_clips: the number of held-out clips that a validation uses.
        checkpoint_minutes: the time after which a checkpoint is written, besides the one after each validation.
        seed: of the initial weights and of everything that is drawn while training.
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
    blend: float = bounded(1.0, 0.01, 1.0)
    precision: PrecisionChoice = "auto"
    channels_last: bool = True
    compile: bool = False
    fused: bool = False
    checkpoint: bool = False
    reduction: Literal["mean", "sum"] = "mean"
    ddr_weight: float = bounded(0.1, 0.0, 1e3)
    ddr_temperature: float = bounded(0.1, 1e-3, 1e3)
    emphasis: float = bounded(0.0, 0.0, 1e3)
    l2_weight: float = bounded(1.0, 0.0, 1e3)
    l1_weight: float = bounded(0.0, 0.0, 1e3)
    quantity: bool = False
    deviance_weight: float = bounded(0.0, 0.0, 1e6)
    sampling: Sampling = "none"
    sampling_share: float = bounded(0.4, 1e-6, 1.0)
    decouple_weight: float = bounded(0.0, 0.0, 1e3)
    memory_weight: float = bounded(0.0, 0.0, 1e3)
    moment_weight: float = bounded(0.0, 0.0, 1e3)
    freeze: tuple[str, ...] = ()
    cached_clips: int = bounded(0, 0, 1 << 40)
    decoded_weight: float = bounded(0.0, 0.0, 1e6)
    codebook: Literal["ema", "loss"] = "ema"
    codebook_decay: float = bounded(0.99, 0.0, 0.999999)
    commitment: float = bounded(0.25, 0.0, 1e3)
    kl_weight: float = bounded(0.01, 0.0, 1e3)
    perceptual_weight: float = bounded(0.0, 0.0, 1e3)
    validate_every: int = bounded(500, 1, 1_000_000)
    validation_clips: int = bounded(1000, 1, 10_000)
    checkpoint_minutes: float = bounded(2.0, 0.0, 60.0)
    seed: int = bounded(0, 0, 2**31)

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise SpecError(f"recipe.dataset is {self.dataset!r}; it may be {', '.join(DATASETS)}")
        if not (self.l2_weight or self.l1_weight or self.deviance_weight or self.decoded_weight):
            raise SpecError(
                "recipe.l2_weight is 0; set recipe.l1_weight, recipe.deviance_weight or, for a modular model, "
                "recipe.decoded_weight, or nothing is learnt"
            )

    def to_dict(self) -> dict[str, Any]:
        """Every value by its name, tuples included."""
        return asdict(self)

    def adjusted(self, *, horizon: int | None = None, blend: float | None = None) -> Recipe:
        """With these settings, where they are not None. Raises `SpecError` if one is out of bounds."""
        given = {name: value for name, value in (("horizon", horizon), ("blend", blend)) if value is not None}
        if not given:
            return self
        return from_mapping(Recipe, self.to_dict() | given, "recipe")


def read_recipe(name: str) -> Recipe:
    """Read a recipe.

    Args:
        name: a catalogue entry whose recipe comes with stzoo, "fine-tune", or the path of a file that ends in ".toml".

    Raises:
        SpecError: there is no such recipe, the file is not TOML, or a value is wrong; the message names it.
    """
    packaged = resources.files("stzoo.train") / "recipes" / f"{name}.toml"
    file = Path(name) if name.endswith(".toml") else packaged
    if not file.is_file():
        raise SpecError(f"there is no recipe {name}; name a catalogue entry that has one, or a .toml file")
    try:
        return from_mapping(Recipe, tomllib.loads(file.read_text("utf-8")), f"recipe {name}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"recipe {name}: {error}") from error
