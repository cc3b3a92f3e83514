"""Ten digits drawn with Pillow's bundled font: MNIST-like, for a demonstration that needs no dataset."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIDE, BOX = 28, 20  # as in MNIST: the digit fills a 20-pixel box in the middle of 28 pixels


def drawn_digits() -> Tensor:
    """(10, 28, 28) uint8, white on black, strokes about three pixels wide."""
    return torch.stack([_digit(str(d)) for d in range(10)])


def _digit(character: str) -> Tensor:
    """Drawn large, cropped to its ink, scaled so that its height is BOX, and centred."""
    sheet = Image.new("L", (320, 320))
    font = ImageFont.load_default(220)
    ImageDraw.Draw(sheet).text((160, 160), character, fill=255, font=font, anchor="mm", stroke_width=3)
    ink = sheet.crop(sheet.getbbox())
    ink = ink.resize((max(1, round(ink.width * BOX / ink.height)), BOX), Image.Resampling.LANCZOS)
    tile = Image.new("L", (SIDE, SIDE))
    tile.paste(ink, ((SIDE - ink.width) // 2, (SIDE - ink.height) // 2))
    return torch.from_numpy(np.asarray(tile).copy())
