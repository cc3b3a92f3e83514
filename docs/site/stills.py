"""For readers whose system asks for less motion, a still picture in place of each animation of the site."""

from __future__ import annotations

import base64
import io
import re
from functools import partial
from pathlib import Path

from PIL import Image

_IMAGE = re.compile(r'<img [^>]*?src="(?:data:image/gif;base64,(?P<data>[^"]+)|(?P<file>[^":]+\.gif))"[^>]*>')


def write(site: Path) -> None:
    """Adds the stills to the built site, and names them in its pages. Browsers then choose, without a script."""
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        changed = _IMAGE.sub(partial(_either, page.parent), text)
        if changed != text:
            page.write_text(changed, "utf-8")


def _either(folder: Path, found: re.Match[str]) -> str:
    """The animation, and its last frame for whoever wants no motion: the first one would show no forecast yet."""
    if found["data"]:
        still = "data:image/png;base64," + base64.b64encode(_last(base64.b64decode(found["data"]))).decode("ascii")
    else:
        still = found["file"].removesuffix(".gif") + ".still.png"
        (folder / still).write_bytes(_last((folder / found["file"]).read_bytes()))
    return f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{still}">{found[0]}</picture>'


def _last(animation: bytes) -> bytes:
    """PNG of the last frame."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(animation)) as image:
        image.seek(getattr(image, "n_frames", 1) - 1)
        image.save(file, "PNG")
    return file.getvalue()
