"""Which axis is which: a caller's shape <-> (B, T, C, H, W).

The letters of a layout: B samples of a batch, T frames in time, C channels, H rows, W columns.
"""

from __future__ import annotations

from torch import Tensor

from stzoo.errors import FramesError
from stzoo.spec import ModelSpec

MAX_PIXELS = 2**25  # of one frame, enough for 7680x4320. Files that claim more are refused before they are decoded
LAYOUTS = ("THW", "TCHW", "THWC", "BTHW", "BTCHW", "BTHWC")


def find_layout(shape: tuple[int, ...], spec: ModelSpec, stride: int | None, layout: str | None) -> str:
    """The one layout in which `shape` fits the spec, or the layout that the caller names.

    Four axes may be (T, C, H, W) or (T, H, W, C); the layout (B, T, H, W) must be named.

    Args:
        shape: the lengths of three to five axes.
        spec: the spec of the model that reads the frames.
        stride: height and width must be multiples of this; with None they must be those of the spec.
        layout: the caller's choice, one of `LAYOUTS`, or None.

    Raises:
        FramesError: no layout fits or two do, or height and width do not fit.
    """
    if layout is not None:
        if layout not in LAYOUTS:
            raise FramesError(f"layout is {layout!r}; it may be {', '.join(LAYOUTS)}")
        if len(layout) != len(shape):
            raise FramesError(f"layout {layout} has {len(layout)} axes, the frames {_text(shape)} have {len(shape)}")
        _check(shape, layout, spec, stride)
        return layout
    candidates = [name for name in ("THW", "TCHW", "THWC", "BTCHW", "BTHWC") if len(name) == len(shape)]
    if not candidates:
        raise FramesError(f"expected {_expected(spec)}, given {_text(shape)}")
    fitting = [c for c in candidates if _problem(shape, c, spec, stride) is None]
    if len(fitting) > 1:
        raise FramesError(
            f"{_text(shape)} can be read as {' or as '.join(fitting)}; "
            f"say which: layout={fitting[0]!r} or layout={fitting[1]!r}"
        )
    if not fitting:
        channels_fit = [c for c in candidates if _axes(shape, c)["C"] == spec.channels]
        _check(shape, (channels_fit or candidates)[0], spec, stride)
    return fitting[0]


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


def _axes(shape: tuple[int, ...], layout: str) -> dict[str, int]:
    """Letter -> length of that axis; 1 for a batch or channel axis that is absent."""
    return {"B": 1, "C": 1} | dict(zip(layout, shape, strict=True))


def _check(shape: tuple[int, ...], layout: str, spec: ModelSpec, stride: int | None) -> None:
    problem = _problem(shape, layout, spec, stride)
    if problem:
        raise FramesError(problem)


def _problem(shape: tuple[int, ...], layout: str, spec: ModelSpec, stride: int | None) -> str | None:
    """Why `shape`, read as `layout`, does not fit; None if it does."""
    axes = _axes(shape, layout)
    if axes["C"] != spec.channels or min(shape) == 0:
        return f"expected {_expected(spec)}, given {_text(shape)}"
    if axes["T"] < spec.frames_in:
        return f"expected at least {spec.frames_in} past frames, given {axes['T']} ({_text(shape)} read as {layout})"
    height, width = axes["H"], axes["W"]
    if height * width > MAX_PIXELS:
        return f"a frame may have {MAX_PIXELS:,} pixels, given {height}x{width} ({_text(shape)} read as {layout})"
    if stride is None:
        if (height, width) == (spec.height, spec.width):
            return None
        return (
            f"height and width must be {spec.height}x{spec.width}, the only size this model takes, "
            f"given {height}x{width} ({_text(shape)} read as {layout})"
        )
    if height % stride or width % stride:
        near = [max(stride, round(side / stride) * stride) for side in (height, width)]
        return (
            f"height and width must be multiples of {stride}, given {height}x{width} "
            f"({_text(shape)} read as {layout}); the nearest size that works is {near[0]}x{near[1]}"
        )
    return None


def _expected(spec: ModelSpec) -> str:
    """The shapes that fit the spec, for a message."""
    t, c, size = f"T>={spec.frames_in}", spec.channels, f"{spec.height}, {spec.width}"
    shapes = [f"({t}, {size})"] if c == 1 else []
    return " or ".join([*shapes, f"({t}, {c}, {size})", f"(B, {t}, {c}, {size})", f"({t}, {size}, {c})"])


def _text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
