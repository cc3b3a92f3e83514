"""Pictures of forecasts: strips and animations. Frames here are NumPy arrays (T, H, W) of values in [0, 1]."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_GAP, _LABEL = 2, 84  # pixels: between tiles, and for the column of row labels


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
    font, title = ImageFont.load_default(13), 20
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
