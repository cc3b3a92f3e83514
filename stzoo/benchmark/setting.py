"""What `stzoo benchmark` measures: which model, on what, how often. Imports no torch."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stzoo.errors import NotPublishedError, SpecError
from stzoo.machine import DEVICES, PRECISION_CHOICES

if TYPE_CHECKING:
    from stzoo.forecaster import Forecaster


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Checked when it is made.

    Attributes:
        source: whatever `stzoo.load` opens; a catalogue entry without weights gets random ones.
        precision: that the model runs in; "auto" is bfloat16 where the machine multiplies in it natively.
        batch: clips in one pass.
        steps: frames that one pass forecasts; None: the spec's `frames_out`.
        device: that it runs on.
        threads: of torch; None: as many as torch takes by itself.
        against_plain: time the plain float32 module, too, in turns with the model.
        repeats: passes that are timed; None: up to 100, as many as fit into 15 s, and no less than 5.
        stream: measure the memory of streaming 20 and 1,000 frames, too.

    Raises:
        SpecError: a number below 1, no such precision or device, or a GPU that is not there.
    """

    source: str
    precision: str = "float32"
    batch: int = 1
    steps: int | None = None
    device: str = "cpu"
    threads: int | None = None
    against_plain: bool = False
    repeats: int | None = None
    stream: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "steps", "threads", "repeats"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SpecError(f"--{name} is {value}; it must be at least 1")
        for name, known in (("precision", PRECISION_CHOICES), ("device", DEVICES)):
            if getattr(self, name) not in known:
                raise SpecError(f"--{name} is {getattr(self, name)!r}; it may be {' or '.join(known)}")
        if self.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                raise SpecError("--device is cuda; this machine, or this build of torch, has none")

    @property
    def command(self) -> str:
        """What measures just this again; another machine may take "auto" and no number of threads otherwise."""
        words = ["stzoo", "benchmark", self.source]
        for name, default in (("precision", "float32"), ("device", "cpu")):
            words += [] if getattr(self, name) == default else [f"--{name}", getattr(self, name)]
        words += [] if self.batch == 1 else ["--batch", str(self.batch)]
        for name in ("steps", "threads", "repeats"):
            words += [] if getattr(self, name) is None else [f"--{name}", str(getattr(self, name))]
        words += ["--against", "plain"] if self.against_plain else []
        words += ["--stream"] if self.stream else []
        return shlex.join(words)


def opened(setting: Setting) -> Forecaster:
    """The forecaster, with random weights where the catalogue's entry has none.

    Raises:
        SpecError: it is a codec. UnknownModelError, WeightsError: as `stzoo.load`.
    """
    from stzoo.forecaster import load

    try:
        return load(setting.source, precision=setting.precision, device=setting.device)
    except NotPublishedError:
        return load(setting.source, pretrained=False, precision=setting.precision, device=setting.device)
