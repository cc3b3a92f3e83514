"""docs/published.md is what the records of this checkout say."""

from pathlib import Path

from stzoo.cli import main
from stzoo.published import published
from stzoo.published.page import page


def test_the_page_is_current(tmp_path: Path) -> None:
    written = Path(__file__).parents[2] / "docs" / "published.md"
    assert written.read_text("utf-8") == page(), "write it anew: stzoo published page"
    assert main(["published", "page", "--out", str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").read_bytes() == written.read_bytes()


def test_every_file_has_a_row() -> None:
    lines = page().splitlines()
    assert all(sum(line.startswith(f"| `{name}` |") for line in lines) == 1 for name in published())
