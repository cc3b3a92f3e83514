"""Ten digits drawn with the font that comes with Pillow: like MNIST's, for a demonstration without a dataset."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIDE, BOX = 28, 20  # pixels, as in MNIST: the digit fills a box of 20 in the middle of 28


def drawn_digits() -> Tensor:
    """The digits 0 to 9: (10, 28, 28) uint8, white on black, with strokes about three pixels wide."""
    return torch.stack([_digit(str(d)) for d in range(10)])


def _digit(character: str) -> Tensor:
    """(28, 28) uint8: the character drawn large, cropped to its ink, scaled to the height BOX, and centred."""
    sheet = Image.new("L", (320, 320))
    font = ImageFont.load_default(220)
    ImageDraw.Draw(sheet).text((160, 160), character, fill=255, font=font, anchor="mm", stroke_width=3)
    ink = sheet.crop(sheet.getbbox())
    ink = ink.resize((max(1, round(ink.width * BOX / ink.height)), BOX), Image.Resampling.LANCZOS)
    tile = Image.new("L", (SIDE, SIDE))
    tile.paste(ink, ((SIDE - ink.width) // 2, (SIDE - ink.height) // 2))
    return torch.from_numpy(np.asarray(tile).copy())
