"""What `stzoo benchmark` measures: which model, on which clips and device, how often. Imports no torch."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stzoo import catalog
from stzoo.errors import SpecError
from stzoo.machine import DEVICES, check_backend, check_device, check_precision

if TYPE_CHECKING:
    from stzoo.forecaster import Forecaster


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured. It is checked when it is made.

    Attributes:
        source: whatever `stzoo.load` opens; a catalogue entry without weights gets random ones.
        precision: the number format in which the model computes: "float32", "bfloat16", or "auto", which is bfloat16
            where the machine multiplies in it natively.
        backend: what computes: "torch", "onnxruntime", or "auto", which is the faster one.
        batch: clips in one pass.
        steps: frames that one pass forecasts; None for the spec's `frames_out`.
        device: where the model runs, "cpu" or "cuda".
        threads: threads of torch; None for as many as torch takes by itself.
        against_plain: also time the plain float32 module, in turns with the model.
        repeats: how many passes are timed; None for as many as fit into 15 s, at least 5 and at most 100.
        stream: also measure the memory of streaming 20 and 1,000 frames.

    Raises:
        SpecError: a number is below 1, the precision, the backend or the device is unknown, or there is no GPU.
    """

    source: str
    precision: str = "float32"
    backend: str = "torch"
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
        check_precision(self.precision)
        check_backend(self.backend)
        if self.device not in DEVICES:
            raise SpecError(f"--device is {self.device!r}; it may be {' or '.join(DEVICES)}")
        if self.device != "cpu":  # which is always there, and needs no torch to be checked
            check_device(self.device)

    @property
    def command(self) -> str:
        """The command that measures the same again, where "auto" and the default number of threads mean the same."""
        words = ["stzoo", "benchmark", self.source]
        for name, default in (("precision", "float32"), ("backend", "torch"), ("device", "cpu")):
            words += [] if getattr(self, name) == default else [f"--{name}", getattr(self, name)]
        words += [] if self.batch == 1 else ["--batch", str(self.batch)]
        for name in ("steps", "threads", "repeats"):
            words += [] if getattr(self, name) is None else [f"--{name}", str(getattr(self, name))]
        words += ["--against", "plain"] if self.against_plain else []
        words += ["--stream"] if self.stream else []
        return shlex.join(words)


def load_for(setting: Setting) -> Forecaster:
    """The forecaster to measure, with random weights if its catalogue entry has none: none are fetched for a speed.

    Raises:
        SpecError: the source is a codec, which forecasts nothing.
        UnknownModelError, WeightsError: it cannot be opened, as in `stzoo.load`.
    """
    from stzoo.opening import load

    entry = catalog.entries().get(setting.source)
    trained = entry is None or entry.weights is not None
    return load(
        setting.source, pretrained=trained, precision=setting.precision, backend=setting.backend, device=setting.device
    )
