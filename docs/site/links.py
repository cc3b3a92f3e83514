"""Whether the links of the built site lead somewhere: to a file of the site, and to a place in it that is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


def check(site: Path) -> None:
    """Raises `SystemExit`, which names each page with a link that leads nowhere, and the link."""
    pages = {path: Page.read(path) for path in sorted(site.rglob("*.html"))}
    broken = [f"{path.relative_to(site)}: {link}" for path in pages for link in _broken(path, pages)]
    if broken:
        raise SystemExit("links that lead nowhere:\n" + "\n".join(broken))


@dataclass
class Page(HTMLParser):
    """What a page links to, and the places in it that can be linked to."""

    links: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    @classmethod
    def read(cls, path: Path) -> Page:
        page = cls()
        page.feed(path.read_text("utf-8"))
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src", "srcset"):  # of one picture each
                self.links.add(value)
            elif value and (name == "id" or (name == "name" and tag == "a")):
                self.places.add(value)


def _broken(path: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """The links of one page that lead nowhere."""
    for link in sorted(pages[path].links):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue  # another host, or data
        to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        to = to / "index.html" if to.is_dir() else to
        if not to.is_file() or (parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].places):
            yield link
