"""What a run of `forecast_archive` came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from stzoo.errors import printable


@dataclass(frozen=True)
class ArchiveReport:
    """What is in the folder after a run, and how long this run took.

    Attributes:
        out: the folder that holds the forecasts.
        forecasts: how many were asked for in all.
        failed: how many of these could not be made; errors.jsonl in the folder says why.
        earlier: how many of these were finished by runs before this one.
        seconds: how long this run took, including the loading of the model but not the start of Ray.
        workers: how many workers made the forecasts.
    """

    out: str
    forecasts: int
    failed: int
    earlier: int
    seconds: float
    workers: int

    @property
    def rate(self) -> float:
        """Forecasts a second in this run."""
        return (self.forecasts - self.earlier) / max(self.seconds, 1e-9)

    def to_dict(self) -> dict[str, object]:
        """The fields and the rate, as `stzoo forecast-archive --json` prints them."""
        return asdict(self) | {"rate": self.rate}

    def __str__(self) -> str:
        text = f"{self.forecasts:,} forecasts"
        if self.failed:
            text += f" ({self.failed:,} failed, see errors.jsonl)"
        made = self.forecasts - self.earlier
        if self.earlier:
            text += f", {self.earlier:,} of them there before" + (f"; {made:,}" if made else "")
        if made:
            crew = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
            text += f" in {self.seconds:,.0f} s, {self.rate:,.1f} a second with {crew}"
        return f"{text} -> {printable(self.out)}"
