"""The pages of the site in a browser: figures, gallery, leaderboard, search, and a phone's screen."""

import csv
import re
import sys
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import Any

import browser
import build
import extended
import gallery
import links
import pytest
import reference
import stills
from PIL import Image

NARROW = (
    "index.html", "start.html", "inputs-in-practice.html", "own-clips.html", "train-and-resume.html", "gallery.html",
    "rain-in-practice.html", "traffic-in-practice.html", "published-in-practice.html", "archives-in-practice.html",
    "extending.html", "exported.html", "leaderboard.html", "architectures.html", "checkpoints.html", "inputs.html",
    "models/tau-mmnist.html", "reference/stzoo.html", "search.html", "live/index.html",
)  # fmt: skip
DOWN, HOME = "\ue015", "\ue011"  # as WebDriver calls these keys


@pytest.mark.parametrize("page", NARROW)
def test_a_page_is_as_wide_as_a_phone(page: str, window: Any, server: Any) -> None:
    window.sized(360, 740)
    window.driver.get(f"{server.url}/{page}")
    # In one step, and again if need be: the live page loads itself once more, when its service worker is there.
    shown = "document.querySelector('article, main')?.checkVisibility()"
    assert window.until(lambda: window.run(f"return {shown} && document.documentElement.scrollWidth")) <= 360


def test_pages_follow_the_colours_of_the_system(window: Any, server: Any) -> None:
    found = {}
    for scheme in ("light", "dark"):
        window.coloured(scheme)
        window.driver.get(f"{server.url}/start.html")
        found[scheme] = window.run("return getComputedStyle(document.body).backgroundColor")
    brightness = {scheme: sum(map(int, colour[4:-1].split(","))) for scheme, colour in found.items()}
    assert brightness["dark"] < 150 < 600 < brightness["light"]


def test_figures_are_drawn_without_another_host(window: Any, server: Any) -> None:
    window.sized(1200, 900)
    window.driver.get(f"{server.url}/architectures.html")
    count = window.run("return document.querySelectorAll('.mermaid').length")
    window.until(lambda: window.run("return document.querySelectorAll('.mermaid svg').length") == count > 0)
    addresses = window.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert addresses
    assert all(address.startswith(server.url) for address in addresses)


def test_the_gallery_plays_and_is_filtered(window: Any, server: Any) -> None:
    window.driver.get(f"{server.url}/gallery.html")

    def cards() -> list[str]:
        script = "return [...document.querySelectorAll('.card')].filter((card) => !card.hidden)"
        script += ".map((card) => Object.values(card.dataset).join())"
        return list(window.run(script))

    everything = cards()
    first = window.find(".card img")
    window.until(lambda: window.run("return arguments[0].naturalWidth > 0", first))
    assert first.get_attribute("src").endswith(".gif")
    for name, value in (("task", "rain"), ("data", "mmnist"), ("size", "below 3 M parameters")):
        choice = window.find(f"select[name={name}]")
        place = "return [...arguments[0].options].findIndex((option) => option.value === arguments[1])"
        choice.send_keys(DOWN * window.run(place, choice, value))  # the driver's own choosing tells the page nothing
        assert 0 < len(cards()) < len(everything)
        assert all(value in card.split(",") for card in cards())
        choice.send_keys(HOME)
    assert cards() == everything


def test_the_leaderboard_is_sorted(window: Any, server: Any) -> None:
    window.driver.get(f"{server.url}/leaderboard.html")
    table = window.find("table.sortable")
    heads = [head.text for head in table.find_elements("css selector", "th")]
    column = heads.index("MSE")
    button = table.find_elements("css selector", "th button")[column]

    def values() -> list[float]:
        script = "return [...arguments[0].tBodies[0].rows].map((row) => row.cells[arguments[1]].textContent.trim())"
        return [float(text) for text in window.run(script, table, column) if text]

    button.click()
    assert values() == sorted(values())
    assert len(set(values())) > 1
    button.click()
    assert values() == sorted(values(), reverse=True)


def test_published_figures_are_told_from_measured_ones(window: Any, server: Any) -> None:
    window.driver.get(f"{server.url}/leaderboard.html")
    script = (
        "return [...document.querySelectorAll('table.sortable tbody tr')]"
        ".map((row) => [row.cells[1].textContent, getComputedStyle(row.cells[0]).fontStyle])"
    )
    kinds = {tuple(row) for row in window.run(script)}
    assert {kind for kind, style in kinds if style == "italic"} == {"published"}
    assert ("published", "normal") not in kinds
    assert len(kinds) > 1


def test_tables_can_be_sorted_on_a_page_from_a_disk(window: Any, site: Path) -> None:
    window.driver.get((site / "leaderboard.html").as_uri())
    assert window.find("table.sortable th button").is_displayed()


def test_animations_stand_still_where_the_reader_wants_no_motion(window: Any, server: Any) -> None:
    script = "return [...document.querySelectorAll('.cards img')].map((image) => image.currentSrc)"
    for wish, suffix in (("reduce", ".still.png"), ("no-preference", "-typical.gif")):
        window.moving(wish)
        window.driver.get(f"{server.url}/index.html")
        window.until(lambda: all(window.run(script)))
        assert all(source.endswith(suffix) for source in window.run(script))


def test_pictures_have_words(site: Path) -> None:
    """Those of executed pages have a hash for a name, which Sphinx repeats where a page gives none."""
    wordless = [
        f"{page.relative_to(site)}: {image}"
        for page in site.rglob("*.html")
        for image in re.findall(r"<img [^>]*>", page.read_text("utf-8"))
        if not re.search(r' alt="[^"]', image) or re.search(r' alt="[^"]*[0-9a-f]{32}', image)
    ]
    assert not wordless


def test_words_are_found(window: Any, server: Any) -> None:
    window.driver.get(f"{server.url}/search.html?q=semi-Lagrangian")
    window.until(lambda: "html" in (window.find("#search-results").get_attribute("innerHTML") or ""))
    assert window.driver.find_elements("css selector", "#search-results li a")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("```{code-cell} ipython3\n1 / 0\n```", True),
        ("```{code-cell} ipython3\n!python -c 'raise SystemExit(3)' | cat\n```", True),
        ("[another page](nowhere.md)", True),
        ("```{code-cell} ipython3\n!python -c 'raise SystemExit(3)' || echo $?\n```", False),
    ],
)
def test_a_page_that_fails_fails_the_build(
    text: str, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("myst_nb", reason="the extra `docs` is not installed")
    for name in ("IPYTHONDIR", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that they are as they were in the end
    build.prepare_shell(tmp_path / "ipython")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "index.md").write_text(f"{extended.HEAD}# Page\n\n{text}\n", "utf-8")
    try:
        build.render(tmp_path / "source", tmp_path / "html")
    except SystemExit:
        assert fails
    else:
        assert not fails
        assert "<span></span>3" in (tmp_path / "html" / "index.html").read_text("utf-8")


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<h1 id="there"></h1><a href="b.html#here">b</a><img src="https://x.org/p.png">')
    (tmp_path / "b.html").write_text('<p id="here"></p><a href="a.html#there">a</a>')
    links.check(tmp_path)
    for wrong in ("c.html", "a.html#nowhere", "#gone"):
        (tmp_path / "b.html").write_text(f'<p id="here"></p><a href="{wrong}">a</a>')
        with pytest.raises(SystemExit, match=f"b.html: {wrong}"):
            links.check(tmp_path)


def test_a_name_without_a_docstring_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Whole:
        """Described."""

        size = 3

        def told(self) -> None:
            """Described."""

        def untold(self) -> None:
            pass

        @property
        def mute(self) -> int:
            return 1

    room = ModuleType("room")
    room.Whole, room.bare, room.NUMBER = Whole, lambda: None, 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "room", room)
    assert reference.undocumented("room", "Whole") == ["room.Whole.untold", "room.Whole.mute"]
    assert reference.undocumented("room", "bare") == ["room.bare"]
    assert reference.undocumented("room", "NUMBER") == []


def test_the_leaderboard_has_the_columns_of_the_written_one() -> None:
    """Which its introduction explains; both pages begin with the same one."""
    with (build.DOCS / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        chapters = re.split(r"^## ", gallery._board(list(csv.DictReader(file))), flags=re.M)[1:]
    shown = {c.split("\n", 1)[0]: set(map(unescape, re.findall(r"<th>(.*?)</th>", c))) for c in chapters}
    written = re.split(r"^## ", (build.DOCS / "leaderboard.md").read_text("utf-8"), flags=re.M)[1:]
    assert len(written) == len(shown) > 10
    for chapter in written:
        titles = {title for line in re.findall(r"^\| (model \|.*) \|$", chapter, re.M) for title in line.split(" | ")}
        assert titles <= shown[chapter.split("\n", 1)[0]]


def test_animations_get_a_still_picture(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), 50 * t) for t in range(3)]
    (tmp_path / "models").mkdir()
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    page = tmp_path / "models" / "page.html"
    page.write_text('<p><img alt="it moves" src="../a.gif" /><img src="b.png" alt="it stands"></p>')
    stills.write(tmp_path)
    with Image.open(tmp_path / "a.still.png") as still:
        assert still.convert("L").getpixel((0, 0)) == 100
    source = '<source media="(prefers-reduced-motion: reduce)" srcset="../a.still.png">'
    picture = f'<picture>{source}<img alt="it moves" src="../a.gif" /></picture>'
    assert page.read_text("utf-8") == f'<p>{picture}<img src="b.png" alt="it stands"></p>'
    (tmp_path / "models" / "b.png").write_bytes(b"")
    links.check(tmp_path)


def test_a_build_replaces_its_part_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ["1", "live/index.html"]  # what the pages say, and what they link to

    def render(sources: Path, html: Path) -> None:
        html.mkdir(exist_ok=True)
        (html / "index.html").write_text(f'{made[0]}<a href="{made[1]}"></a>')

    def live(out: Path, *rest: Any) -> None:
        out.mkdir(parents=True)
        (out / "index.html").write_text(made[0])

    def site(*options: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["build.py", "--out", str(tmp_path), *options])
        build.main()
        return found()

    def found() -> tuple[str, str]:
        assert sorted(p.name for p in tmp_path.iterdir() if p.name != "html.new") == ["html"]
        pages, models = ((tmp_path / "html" / name).read_text("utf-8") for name in ("index.html", "live/index.html"))
        return pages[0], models

    for name in ("install", "gathered", "prepare_shell", "draw_figures"):
        monkeypatch.setattr(build, name, lambda *_: tmp_path)
    monkeypatch.setattr(build, "render", render)
    monkeypatch.setattr(browser, "write", live)
    assert site() == ("1", "1")
    made[0] = "2"
    assert site("--only", "live") == ("1", "2")
    made[0] = "3"
    assert site("--only", "pages") == ("3", "2")
    made[:] = "4", "nowhere.html"
    for options in ((), ("--only", "pages")):
        with pytest.raises(SystemExit, match=r"nowhere\.html"):
            site(*options)
        assert found() == ("3", "2")
    made[:] = "5", "live/index.html"
    assert site() == ("5", "5")
