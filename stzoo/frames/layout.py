"""Which axis is which: a caller's shape <-> (B, T, C, H, W).

The letters of a layout: B samples of a batch, T frames in time, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from stzoo.errors import FramesError
from stzoo.frames.colour import RGB, RGBA, can_convert, convertible
from stzoo.spec import ModelSpec

MAX_PIXELS = 2**25  # of one frame, enough for 7680x4320. Files that claim more are refused before they are decoded
LAYOUTS = ("THW", "TCHW", "THWC", "BTHW", "BTCHW", "BTHWC")
FRAME_LAYOUTS = ("HW", "CHW", "HWC")  # of a single frame


def find_layout(
    shape: tuple[int, ...],
    spec: ModelSpec,
    stride: int | None,
    layout: str | None,
    *,
    alpha: bool = False,
    exact: bool = False,
    layouts: Sequence[str] = LAYOUTS,
) -> str:
    """The one layout in which frames of `shape` can be read, or the layout that the caller names.

    Four axes may be (T, C, H, W) or (T, H, W, C); the layout (B, T, H, W) must be named. A shape that is just what the
    model reads, with the spec's channels and sides that the stride divides, is read so. Otherwise gray may stand for
    colour and colour for gray (`stzoo.frames.colour`), and the sides may have any length.

    Args:
        shape: the lengths of the axes.
        spec: the spec of the model that reads the frames.
        stride: what the model's height and width must be multiples of; None if it takes no other size than the spec's.
        layout: the caller's choice, one of `layouts`, or None.
        alpha: four channels at the end may be RGBA.
        exact: only what is just what the model reads fits.
        layouts: `LAYOUTS`, or `FRAME_LAYOUTS` for a single frame, of which the model then reads one.

    Raises:
        FramesError: no layout fits or two do, or the model takes no other size than its own.
    """
    names = layouts if layout is None else (layout,)
    check_layout(layout, layouts)
    if layout is not None and len(layout) != len(shape):
        verb = "have" if layouts is LAYOUTS else "has"
        raise FramesError(
            f"layout {layout} has {len(layout)} axes, the {_what(layouts)} {_text(shape)} {verb} {len(shape)}"
        )
    found = [_Reading(shape, name, spec, stride, alpha, exact) for name in names if len(name) == len(shape)]
    candidates = [reading for reading in found if layout is not None or reading.layout != "BTHW"]
    if not candidates:
        raise FramesError(f"expected {_expected(spec, stride, exact, layouts)}, given {_text(shape)}")
    readable = [reading for reading in candidates if reading.problem() is None]
    fitting = [reading for reading in readable if reading.is_exact]
    fitting = fitting if exact else fitting or readable
    if len(fitting) > 1:
        one, other = (reading.layout for reading in fitting)
        raise FramesError(
            f"{_text(shape)} can be read as {one} or as {other}; say which: layout={one!r} or layout={other!r}"
        )
    if not fitting:
        beyond = "; other sizes and channels are for `reconstruct` alone" if exact else ""
        likely = next((reading for reading in candidates if reading.channels_fit), None)
        if likely is None and 0 not in shape:
            remedies = [reading.remedy() for reading in found]
            raise FramesError("; ".join(filter(None, [candidates[0].problem(), *remedies])) + beyond)
        likely = likely or candidates[0]
        raise FramesError(likely.problem() or likely.inexactness() + beyond)
    return fitting[0].layout


def check_layout(layout: str | None, layouts: Sequence[str]) -> None:
    """Raises `FramesError` if `layout` is neither None nor one of these."""
    if layout is not None and layout not in layouts:
        raise FramesError(f"layout is {layout!r}; it may be {', '.join(layouts)}")


def check_pixels(width: int, height: int) -> None:
    """Check the size that a file claims for its frames. Raises `FramesError` if it is absurd."""
    if not 0 < width * height <= MAX_PIXELS or width < 0:
        raise FramesError(f"frames of {width}x{height} pixels; one may have 1 to {MAX_PIXELS:,}")


def to_btchw(frames: Tensor, layout: str) -> Tensor:
    """Frames with the axes of `layout` -> a view of shape (B, T, C, H, W), where absent axes have length 1."""
    missing = [axis for axis in "BTCHW" if axis not in layout]
    order = layout + "".join(missing)
    for _ in missing:
        frames = frames.unsqueeze(-1)
    return frames.permute([order.index(axis) for axis in "BTCHW"])


def from_bchw(frame: Tensor, layout: str) -> Tensor:
    """One future frame (B, C, H, W) -> a view with the axes of the caller's `layout` in their order, without time."""
    wanted = layout.replace("T", "")
    for axis in "CB":  # from the right, so that positions stay
        if axis not in wanted:
            frame = frame.squeeze("BCHW".index(axis))
    present = [axis for axis in "BCHW" if axis in wanted]
    return frame.permute([present.index(axis) for axis in wanted])


@dataclass(frozen=True)
class _Reading:
    """Frames of a shape, read as a layout, beside what the model reads. The attributes are those of `find_layout`."""

    shape: tuple[int, ...]
    layout: str
    spec: ModelSpec
    stride: int | None
    alpha: bool
    exact: bool

    @property
    def axes(self) -> dict[str, int]:
        """Letter -> length of that axis; 1 for an axis that is absent."""
        return {"B": 1, "T": 1, "C": 1} | dict(zip(self.layout, self.shape, strict=True))

    @property
    def is_exact(self) -> bool:
        """Are these the spec's channels, and sides that need no padding?"""
        axes, stride = self.axes, self.stride or 1
        return axes["C"] == self.spec.channels and axes["H"] % stride == axes["W"] % stride == 0

    @property
    def _layouts(self) -> Sequence[str]:
        return LAYOUTS if "T" in self.layout else FRAME_LAYOUTS

    @property
    def channels_fit(self) -> bool:
        """Are these the spec's channels or, unless only what is exact fits, can they be converted?"""
        channels = self.axes["C"]
        converts = not self.exact and convertible(channels, self.spec, self.alpha and self.layout.endswith("C"))
        return channels == self.spec.channels or converts

    def problem(self) -> str | None:
        """Why the frames cannot be forecast; None if they can."""
        spec, axes, given = self.spec, self.axes, _text(self.shape)
        height, width, read_as = axes["H"], axes["W"], f"({given} read as {self.layout})"
        expected = _expected(spec, self.stride, self.exact, self._layouts)
        if min(self.shape) == 0:
            return f"expected {expected}, given {given}, which is empty"
        if not self.channels_fit:
            takes = _channels(spec, self.exact)
            return (
                f"expected {expected}, given {given}: the model takes {takes} "
                f"{'channel' if takes == '1' else 'channels'}"
            )
        if axes["T"] < spec.frames_in:
            return f"expected at least {spec.frames_in} past frames, given {axes['T']} {read_as}"
        if height * width > MAX_PIXELS:
            return f"a frame may have {MAX_PIXELS:,} pixels, given {height}x{width} {read_as}"
        if self.stride is None and (height, width) != (spec.height, spec.width):
            return (
                f"height and width must be {spec.height}x{spec.width}, the only size this model takes, given "
                f"{height}x{width} {read_as}: its weights have that size in them. What helps is resize=True (in "
                "commands --size model), which brings images, videos and arrays to that size"
            )
        return None

    def remedy(self) -> str:
        """What the caller can do whose frames may be meant as this layout, and are not read so; "" if they are not."""
        if self.layout == "BTHW":
            clips = f"{self.axes['B']} clips of {self.axes['T']} gray frames"
            likely = self.problem() is None and min(self.axes["T"], self.axes["W"]) > RGBA  # fewer are channels
            return f"if these are {clips}, say so with layout='BTHW'" if likely else ""
        takes_rgb = can_convert(self.spec) and (self.spec.channels == RGB or not self.exact)
        if self.axes["C"] != RGBA or not takes_rgb:
            return ""
        before = ", ".join([":"] * self.layout.index("C")) if self.layout[-1] != "C" else "..."
        return f"if the fourth channel is alpha, leave it out: frames[{before}, :3]"

    def inexactness(self) -> str:
        """Why the sides of the frames are not just what the model reads."""
        given, stride = _text(self.shape), self.stride or 1
        height, width = self.axes["H"], self.axes["W"]
        near = [max(stride, round(side / stride) * stride) for side in (height, width)]
        return (
            f"height and width must be multiples of {stride}, given {height}x{width} ({given} read as {self.layout}); "
            f"the nearest size that works is {near[0]}x{near[1]}"
        )


def _expected(spec: ModelSpec, stride: int | None, exact: bool, layouts: Sequence[str]) -> str:
    """The shapes that fit the spec, for a message. H and W stand for sides of any length."""
    sides = {"H": "H", "W": "W"} if stride else {"H": str(spec.height), "W": str(spec.width)}
    lengths = {"B": "B", "T": f"T>={spec.frames_in}", "C": _channels(spec, exact)} | sides
    told = ("THW", "TCHW", "BTCHW", "THWC") if layouts is LAYOUTS else layouts
    without_channels = "1" in lengths["C"].split()
    fitting = [layout for layout in told if "C" in layout or without_channels]
    text = " or ".join(f"({', '.join(lengths[axis] for axis in layout)})" for layout in fitting)
    return f"{text} with H and W multiples of {stride}" if exact and stride else text


def _channels(spec: ModelSpec, exact: bool) -> str:
    """How many channels frames may have, for a message."""
    return "1 or 3" if can_convert(spec) and not exact else str(spec.channels)


def _what(layouts: Sequence[str]) -> str:
    return "frames" if layouts is LAYOUTS else "frame"


def _text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
