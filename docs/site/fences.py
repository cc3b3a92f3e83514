"""The fenced blocks of a Markdown page, and the marks before them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[a-z]+): (?P<value>.+?) -->\n)?^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: the word after the fence, such as "python".
        text: what stands between the fences.
        line: the number of its first line in the page.
        marks: what the comment before the fence says, unseen by readers: {"needs": "data"} or {"file": "stzoo/..."}.
    """

    language: str
    text: str
    line: int
    marks: dict[str, str]

    @classmethod
    def of(cls, found: re.Match[str]) -> Block:
        """What `FENCE` has found in a page."""
        line = found.string.count("\n", 0, found.start("text")) + 1
        return cls(found["language"], found["text"], line, {found["mark"]: found["value"]} if found["mark"] else {})


def blocks(page: str, *languages: str) -> Iterator[Block]:
    """The fenced blocks of these languages in the text of a page, in order."""
    return (Block.of(found) for found in FENCE.finditer(page) if found["language"] in languages)
