"""What objects show of themselves in a notebook: small tables and pictures, as HTML that needs nothing from elsewhere.

Every text is escaped, for names and paths come from outside. No colour is set, so that the page's own theme holds.
Imports neither torch nor NumPy.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from stzoo.errors import printable

_BELOW = ' style="margin-bottom: 0.6em"'
_WORDS = ' style="text-align: left; vertical-align: top; padding: 0.2em 0.6em"'
_FIGURE = ' style="text-align: right; vertical-align: top; padding: 0.2em 0.6em"'


def facts(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and what is to be said of each, below a title. An empty name goes on with the one before it."""
    body = "".join(f"<tr><th{_WORDS}>{text(name)}</th><td{_WORDS}>{text(value)}</td></tr>" for name, value in rows)
    return _titled(title, f"<table><tbody>{body}</tbody></table>")


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of figures below a title. The first cell of each row names it; a wide table can be scrolled."""

    def cells(name: str, rest: Sequence[str], tag: str) -> str:
        figures = "".join(f"<{tag}{_FIGURE}>{text(cell)}</{tag}>" for cell in rest)
        return f"<tr><th{_WORDS}>{text(name)}</th>{figures}</tr>"

    body = "".join(cells(name, rest, "td") for name, *rest in rows)
    inner = f"<table><thead>{cells(head[0], head[1:], 'th')}</thead><tbody>{body}</tbody></table>"
    return _titled(title, f'<div style="overflow-x: auto">{inner}</div>')


def picture(content: bytes, kind: str, shows: str, size: tuple[int, int], below: str = "") -> str:
    """A picture or an animation, which the HTML holds itself.

    Args:
        content: the bytes of its file.
        kind: "gif" or "png".
        shows: what it shows, for whoever cannot see it.
        size: (width, height) in pixels.
        below: a line below it.
    """
    data, (width, height) = base64.b64encode(content).decode("ascii"), size
    said = f'alt="{escape(printable(shows))}" width="{width}" height="{height}"'
    shown = f'<img src="data:image/{kind};base64,{data}" {said}>'
    return f"<div{_BELOW}>{shown}{f'<br><small>{text(below)}</small>' if below else ''}</div>"


def text(words: str) -> str:
    """Words as HTML shows them. Lines stay lines; whatever else is no plain text is escaped."""
    return "<br>".join(escape(printable(line)) for line in words.splitlines())


def _titled(title: str, inner: str) -> str:
    return f"<div{_BELOW}><strong>{text(title)}</strong>{inner}</div>"
