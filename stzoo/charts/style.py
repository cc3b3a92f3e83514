"""The one style of all charts, and a chart itself: a figure that no setting of the user's changes.

`matplotlib.pyplot` is never imported: it keeps figures and settings for the whole process, and may look for a screen.
matplotlib itself is imported only when something is drawn.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from stzoo.errors import MissingExtraError, SpecError, printable
from stzoo.files import write_atomically, writing_errors_named

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

# What a file says of the program and the time that made it is left out, so that equal charts are equal files.
_METADATA: Mapping[str, Mapping[str, None]] = MappingProxyType(
    {
        ".png": {"Software": None},
        ".svg": {"Creator": None, "Date": None},
        ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    }
)
SUFFIXES = tuple(_METADATA)
"""The suffixes of the files that a chart is saved to."""
_Place = Literal["outside upper left", "outside lower left"]
ENDINGS = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"  # the same in words


@dataclass(frozen=True)
class Style:
    """What all charts look like.

    Attributes:
        colours: of curves, in the order in which they are taken. Okabe and Ito chose them so that they can be told
            apart with every kind of colour blindness.
        dashes: of curves, as matplotlib names them; the next one is taken when all colours are.
        gray: of persistence, and of what is only there to be compared with.
        ink, grid: of text and axes, and of the lines behind the curves.
        text: the size of all text but the title, in points.
        dpi: pixels of an inch in a PNG.
    """

    colours: tuple[str, ...] = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
    dashes: tuple[str, ...] = ("-", "--", "-.", ":")
    gray: str = "#8c8c8c"
    ink: str = "#222222"
    grid: str = "#dddddd"
    text: float = 9.0
    dpi: int = 150

    def look(self, number: int) -> dict[str, Any]:
        """Colour and dashes of the curve with this number, from 0 on."""
        return {
            "color": self.colours[number % len(self.colours)],
            "linestyle": self.dashes[number // len(self.colours) % len(self.dashes)],
        }

    def settings(self) -> dict[str, Any]:
        """The same as matplotlib's settings."""
        return {
            "figure.dpi": self.dpi,
            "figure.constrained_layout.w_pad": 0.08,  # inches around everything
            "figure.constrained_layout.h_pad": 0.06,
            "savefig.dpi": "figure",
            "font.family": "DejaVu Sans",  # which matplotlib brings along
            "font.size": self.text,
            "axes.titlesize": self.text + 1,
            "axes.titlelocation": "left",
            "axes.labelsize": self.text,
            "xtick.labelsize": self.text - 1,
            "ytick.labelsize": self.text - 1,
            "legend.fontsize": self.text,
            "legend.frameon": False,
            "text.color": self.ink,
            "axes.labelcolor": self.ink,
            "axes.edgecolor": self.ink,
            "xtick.color": self.ink,
            "ytick.color": self.ink,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": self.grid,
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.6,
            "lines.markersize": 4.0,
            "text.parse_math": False,  # a dollar in the name of a file begins no formula
            "svg.hashsalt": "stzoo",  # or the names inside an SVG would be random
            "pdf.fonttype": 42,  # text in a PDF stays text
        }


_SETTINGS = threading.RLock()  # matplotlib's settings are one for all threads: each thread must put back the user's
STYLE = Style()
"""The style of every chart."""


@dataclass(frozen=True)
class Chart:
    """A chart, which a notebook shows as it is. Equal charts give equal bytes.

    Attributes:
        figure: matplotlib's `Figure`, which may be changed before the chart is saved.
    """

    figure: Figure

    def content(self, suffix: str = ".png") -> bytes:
        """The whole file with this suffix, one of `SUFFIXES`."""
        content = io.BytesIO()
        with styled():
            self.figure.savefig(content, format=suffix[1:], metadata=dict(_METADATA[suffix]))
        return content.getvalue()

    def png(self) -> bytes:
        """The chart as a PNG."""
        return self.content()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the chart to a file, whole or not at all: as PNG, SVG or PDF by its suffix.

        Raises:
            SpecError: the file has another suffix. OSError: it cannot be written; the message names it.
        """
        path = Path(os.path.expanduser(path))
        if path.suffix.lower() not in SUFFIXES:
            raise SpecError(f"a chart is not saved as {path}; the name must end in {ENDINGS}")
        content = self.content(path.suffix.lower())
        with writing_errors_named(path):
            write_atomically(path, content)

    def _repr_png_(self) -> bytes:  # by which IPython shows it
        return self.png()


def check_installed() -> None:
    """Raises `MissingExtraError` if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError('charts need an extra: pip install "stzoo[plot]"')


@contextmanager
def styled() -> Iterator[None]:
    """Inside the block, or as a decorator inside the function, matplotlib draws in our style; afterwards as before.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    check_installed()
    import matplotlib

    ours: dict[Any, Any] = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}
    with _SETTINGS, matplotlib.rc_context(ours | STYLE.settings()):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, its sizes in inches, whose parts make room for one another. To be called inside `styled`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def add_legend(figure: Figure, entries: Sequence[tuple[Artist, str]], place: _Place) -> None:
    """Explain what was drawn, beside all axes, in as many columns as there is room for.

    Args:
        figure: what it is added to.
        entries: what was drawn, and its name, which may be any text.
        place: above or below them.
    """
    longest = max(len(name) for _, name in entries) + 6  # with the piece of its line
    columns = max(1, min(len(entries), int(figure.get_figwidth() * 14 / longest)))
    legend = figure.legend(
        [artist for artist, _ in entries], [str(i) for i in range(len(entries))], loc=place, ncols=columns
    )
    for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(name)  # afterwards, since matplotlib leaves out names that begin with an underscore


def shortened(name: str, most: int = 44) -> str:
    """The name of a model or a run where there is little room, as in a chart: only the end of a long path.

    It is one line, and what no font has, such as halves of surrogate pairs, is escaped.
    """
    name = printable(name)
    return name if len(name) <= most else f"...{name[3 - most :]}"
