"""Links between the pages lead somewhere, every page can be reached, and what the package says of pages is so."""

import re
from pathlib import Path

import pytest
from docs.pages import GENERATED, PAGES, REPOSITORY, WRITTEN, anchors, links, name_of

README = REPOSITORY / "README.md"


def target(page: Path, link: str) -> Path:
    path = link.partition("#")[0]
    found = (page.parent / path).resolve() if path else page
    return found / "README.md" if found.is_dir() else found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        found, fragment = target(page, link), link.partition("#")[2]
        assert found.is_file(), f"{name_of(page)} links to {link}"
        assert not fragment or fragment in anchors(found), f"{name_of(page)} links to {link}, which is no heading there"


def test_the_readme_links_every_page() -> None:
    linked = {target(README, link) for link in links(README)}
    assert set(WRITTEN) - {README} <= linked
    index = REPOSITORY / "docs" / "models" / "README.md"
    assert index in linked
    assert set(GENERATED) - {index} <= {target(index, link) for link in links(index)}


def test_the_package_names_pages_and_experiments_that_exist() -> None:
    files = [
        *(p for kind in ("py", "toml") for p in (REPOSITORY / "stzoo").rglob(f"*.{kind}")),
        *(REPOSITORY / "docs" / "experiments").glob("*.py"),
        REPOSITORY / "weights_manifest.json",
        *PAGES,
    ]
    named = {
        (name, path)
        for path in files
        for name in re.findall(r"(?<![\w./-])docs/[\w./-]+\.(?:md|py|gif)\b", path.read_text("utf-8"))
        if not name.startswith("docs/en/")  # OpenSTL's own pages
    }
    assert not [(name, name_of(path)) for name, path in named if not (REPOSITORY / name).is_file()]
