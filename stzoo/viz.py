"""Pictures of forecasts: strips, animations, and past, truth and forecast next to each other.

Frames are NumPy arrays (T, H, W) of values in [0, 1], except in `side_by_side`, which takes PIL images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_GAP, _LABEL = 2, 84  # pixels: between tiles, and for the column of row labels
_TITLE, _NARROWEST = 20, 96  # pixels: height of a panel's caption, and the width that a caption needs
_WIDE, _WIDEST, _HIGHEST = 300, 1280, 720  # pixels: panels with larger captions; of a sheet; of a panel


def _gray(frames: np.ndarray) -> np.ndarray:
    """Values in [0, 1] -> uint8 of the same shape; what lies outside is clipped."""
    return np.rint(np.clip(frames, 0.0, 1.0) * 255).astype(np.uint8)


def strip(rows: dict[str, np.ndarray], scale: int = 1) -> Image.Image:
    """A gray image with one labelled row of frames for each entry. Rows may differ in length, but not in frame size.

    Args:
        rows: label -> (T, H, W) in [0, 1]. A frame that holds NaN leaves its place empty.
        scale: each pixel is drawn as a square of scale x scale pixels.
    """
    height, width = (next(iter(rows.values())).shape[1] * scale, next(iter(rows.values())).shape[2] * scale)
    columns = max(len(r) for r in rows.values())
    size = (_LABEL + columns * (width + _GAP) + _GAP, len(rows) * (height + _GAP) + _GAP)
    sheet = Image.new("L", size, 96)
    text, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, (label, frames) in enumerate(rows.items()):
        y = _GAP + i * (height + _GAP)
        text.text((6, y + height // 2), label, fill=255, font=font, anchor="lm")
        for j, frame in enumerate(frames):
            if not np.isnan(frame).any():
                tile = Image.fromarray(_gray(frame)).resize((width, height), Image.Resampling.NEAREST)
                sheet.paste(tile, (_LABEL + _GAP + j * (width + _GAP), y))
    return sheet


def animation(
    path: Path, panels: dict[str, np.ndarray], *, given: int = 0, scale: int = 3, seconds: float = 0.12
) -> None:
    """Write a looping GIF with labelled panels side by side.

    Args:
        path: the .gif file to write.
        panels: label -> (T, H, W) in [0, 1], all of the same shape.
        given: how many of the first frames are past frames, which are labelled as such.
        scale: each pixel is drawn as a square of scale x scale pixels.
        seconds: how long each frame is shown.
    """
    font, title = ImageFont.load_default(13), _TITLE
    count, h, w = next(iter(panels.values())).shape
    images = []
    for t in range(count):
        sheet = Image.new("L", (len(panels) * (w * scale + _GAP) + _GAP, h * scale + title + _GAP), 96)
        text = ImageDraw.Draw(sheet)
        for i, (label, frames) in enumerate(panels.items()):
            x = _GAP + i * (w * scale + _GAP)
            caption = f"past {t + 1 - given}" if t < given else f"{label} +{t + 1 - given}"
            text.text((x + 2, title // 2), caption, fill=255, font=font, anchor="lm")
            tile = Image.fromarray(_gray(frames[t])).resize((w * scale, h * scale), Image.Resampling.NEAREST)
            sheet.paste(tile, (x, title))
        images.append(sheet)
    images[0].save(path, save_all=True, append_images=images[1:], duration=round(seconds * 1000), loop=0)


def side_by_side(
    past: list[Image.Image], truth: list[Image.Image], future: list[Image.Image], scale: int | None = None
) -> list[Image.Image]:
    """What is known and the forecast in two labelled panels, as time goes on.

    Both panels play the past. Then the right one shows the forecast, and the left one what really followed; where that
    is not known at all the last frame of the past, and where it is known no longer nothing.

    Args:
        past: at least one gray or RGB image.
        truth: what really followed; it may have fewer images than the forecast, or none.
        future: at least one image. All images are brought to the size of the first of these. Small ones are enlarged by
            a whole number, so that a caption fits above each, and large ones reduced: a sheet is at most 1280 pixels
            wide, and its panels are at most 720 high.
        scale: each pixel is drawn as a square of scale x scale pixels instead.

    Returns:
        len(past) + len(future) images of one size, in gray if all images are gray, else in RGB.
    """
    tile = _tile(*future[0].size) if scale is None else (future[0].width * scale, future[0].height * scale)
    smooth = Image.Resampling.NEAREST if tile[0] >= future[0].width else Image.Resampling.BILINEAR
    mode = "L" if all(image.mode == "L" for image in (*past, *truth, *future)) else "RGB"
    large = tile[0] >= _WIDE
    title, font = (28, ImageFont.load_default(20)) if large else (_TITLE, ImageFont.load_default(13))
    ground, ink = (96, 255) if mode == "L" else ((96,) * 3, (255,) * 3)

    def fitted(image: Image.Image) -> Image.Image:
        image = image.convert(mode)
        if image.size != future[0].size:
            image = image.resize(future[0].size, Image.Resampling.BILINEAR)
        return image.resize(tile, smooth)

    known = [(f"past {n}", image) for n, image in enumerate(past, 1)]
    true: list[tuple[str, Image.Image | None]] = [(f"truth +{n}", image) for n, image in enumerate(truth, 1)]
    true += [("not recorded", None) if truth else ("last known", past[-1])] * (len(future) - len(true))
    forecast = [(f"forecast +{n}", image) for n, image in enumerate(future, 1)]
    sheets = []
    for panels in zip([*known, *true], [*known, *forecast], strict=False):
        sheet = Image.new(mode, (2 * (tile[0] + _GAP) + _GAP, tile[1] + title + _GAP), ground)
        text = ImageDraw.Draw(sheet)
        for place, (caption, image) in enumerate(panels):
            x = _GAP + place * (tile[0] + _GAP)
            text.text((x + 2, title // 2), caption, fill=ink, font=font, anchor="lm")
            if image is not None:
                sheet.paste(fitted(image), (x, title))
        sheets.append(sheet)
    return sheets


def _tile(width: int, height: int) -> tuple[int, int]:
    """The size of a panel for images of this size."""
    widest = (_WIDEST - 3 * _GAP) // 2
    enlarged = -(-_NARROWEST // width)
    if width * enlarged <= widest and height * enlarged <= _HIGHEST:
        return width * enlarged, height * enlarged
    reduced = min(widest / width, _HIGHEST / height, enlarged)
    return max(1, round(width * reduced)), max(1, round(height * reduced))
