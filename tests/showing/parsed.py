"""HTML that a notebook would show, taken apart by the parser of the standard library."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
from PIL import Image, ImageSequence

_VOID = {"img", "br"}
_ALLOWED = {"div", "strong", "small", "table", "thead", "tbody", "tr", "th", "td", *_VOID}


class Parsed(HTMLParser):
    """Attributes:
    text: all that is to be read, a line for each cell.
    rows: of all tables, the text of their cells.
    pictures: the bytes of each picture.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.rows, self.pictures = "", list[list[str]](), list[bytes]()
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _ALLOWED, f"<{tag}> was made by a text that is not escaped, or needs a reason"
        assert not [name for name, _ in attrs if name.startswith("on") or name == "href"]
        values = dict(attrs)
        assert "color" not in (values.get("style") or "")
        assert "background" not in (values.get("style") or "")
        if tag == "img":
            kind, comma, data = (values["src"] or "").partition(",")
            assert comma
            assert kind in ("data:image/gif;base64", "data:image/png;base64")
            self.pictures.append(base64.b64decode(data, validate=True))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open[-1:] in (["th"], ["td"]):
            self.rows[-1][-1] += data


def played(content: bytes) -> np.ndarray:
    """The images of an animation, (T, H, W) or (T, H, W, 3)."""
    with Image.open(io.BytesIO(content)) as file:
        mode = "L" if file.format == "GIF" else "RGB"
        return np.stack([np.asarray(image.convert(mode)) for image in ImageSequence.Iterator(file)])


def panels(images: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The left and the right panel of images that `side_by_side` drew of frames of this size, at that size again."""
    times = -(-96 // width)  # as often is a small frame enlarged
    tops = images.shape[1] - 2 - height * times  # below the captions
    left, right = (images[:, tops : tops + height * times, x : x + width * times] for x in (2, 2 + width * times + 2))
    for panel in (left, right):
        assert panel.shape[1:3] == (height * times, width * times)
    return left[:, ::times, ::times], right[:, ::times, ::times]
