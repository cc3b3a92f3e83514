"""`Animation`: images that a notebook plays, and that can be written to a file."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stzoo import html
from stzoo.errors import FramesError
from stzoo.frames.images import ANIMATED, save_animation
from stzoo.frames.video import WRITTEN, check_video_extra
from stzoo.frames.writing import write


@dataclass(frozen=True, eq=False, repr=False)
class Animation:
    """Images that a notebook plays in a loop, where the animation is the last expression of a cell.

    Attributes:
        images: at least one image, gray or RGB, all of one size.
        seconds: how long each is shown.
        note: a line below them, such as which numbers are black and white; "" for none.
    """

    images: tuple[Image.Image, ...]
    seconds: float
    note: str = ""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the animation to a file, which appears whole or not at all.

        Args:
            path: a name that ends in .gif, .png or .apng (an animated PNG), .webp, .mp4 or .avi. Videos need the extra
                `video`. A GIF has 256 colours.

        Raises:
            FramesError: the name ends in something else, or its folder does not exist.
            MissingExtraError: the package that writes videos is not installed; the message holds the pip command.
            OSError: the disk is full, or does not take the file for another reason.
        """
        file = Path(os.path.expanduser(path))
        if file.suffix.lower() not in (*ANIMATED, *WRITTEN):
            raise FramesError(f"cannot write {file.name}; use {', '.join((*ANIMATED, *WRITTEN))}")
        if not file.parent.is_dir():
            raise FramesError(f"the folder {file.parent} does not exist; create it first")
        if file.is_dir():
            raise FramesError(f"{file} is a folder; name a file")
        if file.suffix.lower() in WRITTEN:
            check_video_extra()
        write(file, list(self.images), self.seconds)

    def __repr__(self) -> str:
        width, height = self.images[0].size
        count = f"{len(self.images)} image{'s' if len(self.images) > 1 else ''}"
        return f"Animation({count} of {width}x{height}, {self.seconds:g} s each)"

    def _repr_html_(self) -> str:
        """What a notebook shows: a GIF if all is gray, which keeps every value, and else an animated PNG."""
        kind = "gif" if all(image.mode == "L" for image in self.images) else "png"
        file = io.BytesIO()
        save_animation(file, f".{kind}", list(self.images), self.seconds)
        return html.picture(file.getvalue(), kind, repr(self), self.images[0].size, self.note)
