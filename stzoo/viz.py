"""Pictures of forecasts: strips, animations, and past, truth and forecast next to each other.

Frames are NumPy arrays (T, H, W) of values in [0, 1], except in `side_by_side`, which takes PIL images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_GAP, _LABEL = 2, 84  # pixels: between tiles, and for the column of row labels
_TITLE, _NARROWEST = 20, 96  # pixels: height of a panel's caption, and the width that a caption needs


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


def side_by_side(past: list[Image.Image], truth: list[Image.Image], future: list[Image.Image]) -> list[Image.Image]:
    """Past, truth and forecast in one row of labelled panels, as they follow each other in time.

    While the past is shown, the other panels are empty; after that its panel holds the last frame.

    Args:
        past: at least one gray or RGB image.
        truth: what really followed; it may have fewer images than the forecast. If it has none, there is no panel.
        future: at least one image. All images are brought to the size of the first of these, and small ones enlarged
            by a whole number, so that a caption fits above each.

    Returns:
        len(past) + len(future) images of one size, in gray if all images are gray, else in RGB.
    """
    width, height = future[0].size
    scale = -(-_NARROWEST // width)
    tile = (width * scale, height * scale)
    mode = "L" if all(image.mode == "L" for image in (*past, *truth, *future)) else "RGB"
    font, ground, ink = ImageFont.load_default(13), 96, 255
    panels = [("past", past), *([("truth", truth)] if truth else []), ("forecast", future)]
    sheets = []
    for t in range(len(past) + len(future)):
        size = (len(panels) * (tile[0] + _GAP) + _GAP, tile[1] + _TITLE + _GAP)
        sheet = Image.new(mode, size, ground if mode == "L" else (ground,) * 3)
        text = ImageDraw.Draw(sheet)
        for place, (label, images) in enumerate(panels):
            number = min(t, len(past) - 1) if label == "past" else t - len(past)
            x = _GAP + place * (tile[0] + _GAP)
            caption = f"past {number + 1}" if label == "past" else f"{label} +{number + 1}" if number >= 0 else label
            text.text((x + 2, _TITLE // 2), caption, fill=ink if mode == "L" else (ink,) * 3, font=font, anchor="lm")
            if 0 <= number < len(images):
                image = images[number].convert(mode)
                if image.size != (width, height):
                    image = image.resize((width, height), Image.Resampling.BILINEAR)
                sheet.paste(image.resize(tile, Image.Resampling.NEAREST), (x, _TITLE))
        sheets.append(sheet)
    return sheets
