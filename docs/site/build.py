"""Builds the site from docs/: `python docs/site/build.py`, then open docs/site/build/html through any web server.

    pip install -c tests/constraints.txt -e ".[docs]"
    python docs/site/build.py
    python -m http.server --directory docs/site/build/html

Sphinx with MyST reads the pages as they are in docs/, so that they look alike here and in the repository; MyST-NB runs
the pages of docs/site/pages, and that of extending; the Furo theme is light and dark, and made for phones as well. npm
brings ONNX Runtime Web and Mermaid, in the versions of package-lock.json. The build fails if code of a page fails, if a
link leads nowhere, and if a public name of stzoo has no docstring; the site that was there before then stays as it is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
DOCS = HERE.parent
sys.path.insert(0, str(HERE))

import browser  # noqa: E402
import extended  # noqa: E402
import gallery  # noqa: E402
import links  # noqa: E402
import reference  # noqa: E402
import stills  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the site of stzoo.")
    parser.add_argument(
        "--out", type=Path, default=HERE / "build", help="folder to build in; the site goes to its folder html"
    )
    parser.add_argument(
        "--only",
        choices=("pages", "live"),
        help="replace only the pages, or only the page that runs models in the browser",
    )
    options = parser.parse_args()
    out: Path = options.out.resolve()
    html, new = out / "html", out / "html.new"
    shutil.rmtree(new, ignore_errors=True)
    modules = install(out)
    keep(html, new, options.only)
    if options.only != "live":
        sources = gathered(out)
        prepare_shell(out / "ipython")
        render(sources, new)
        draw_figures(new / "_static" / "mermaid", modules / "mermaid" / "dist")
        stills.write(new)
    if options.only != "pages":
        browser.write(new / "live", modules, DOCS / "models")
    if (new / "index.html").exists() and (new / "live").exists():
        links.check(new)  # one part without the other has links that lead nowhere
    swap(new, html)
    print(f"{html}: {sum(p.stat().st_size for p in html.rglob('*') if p.is_file()) / 1e6:.0f} MB")


def keep(old: Path, new: Path, only: str | None) -> None:
    """Copies what is not built anew from the old site, if there is one."""
    if only == "pages" and (old / "live").exists():
        shutil.copytree(old / "live", new / "live")
    elif only == "live" and old.exists():
        shutil.copytree(old, new, ignore=lambda folder, _: ["live"] if Path(folder) == old else [])


def swap(new: Path, html: Path) -> None:
    """Puts the new site in the place of the old one, which is complete until then."""
    old = html.with_name("html.old")
    shutil.rmtree(old, ignore_errors=True)
    if html.exists():
        html.rename(old)
    new.rename(html)
    shutil.rmtree(old, ignore_errors=True)


def install(out: Path) -> Path:
    """npm's packages, as package-lock.json pins them; gives their folder."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, out / name)
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix", str(out))
    return out / "node_modules"


def gathered(out: Path) -> Path:
    """What Sphinx reads: the pages of docs/, those of the site, and those that are made here; gives their folder."""
    sources, edited = out / "source", out / "edited"
    for folder in (sources, edited):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, sources, ignore=shutil.ignore_patterns("site", "__pycache__"))
    shutil.copytree(HERE / "pages", sources, dirs_exist_ok=True)
    gallery.write(sources)
    reference.write(sources)
    extended.write(sources / "extending.md", edited)
    return sources


def prepare_shell(folder: Path) -> None:
    """What the code of the pages runs in; see commands.py."""
    startup = folder / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "commands.py", startup)
    os.environ["IPYTHONDIR"] = str(folder)
    os.environ["OMP_NUM_THREADS"] = "1"  # as many pages are run at once as there are processors


def render(sources: Path, html: Path) -> None:
    """Sphinx; what it warns of, such as a link to no page, is an error, and so is code of a page that fails."""
    options = ("-W", "--keep-going", "-q", "-j", "auto", "-b", "html", "-c", str(HERE))
    run(sys.executable, "-m", "sphinx", *options, str(sources), str(html))


def draw_figures(folder: Path, package: Path) -> None:
    """What draws the Mermaid figures of the pages, so that no other host is asked for it."""
    parts = [package / "mermaid.esm.min.mjs", *package.glob("chunks/mermaid.esm.min/*.mjs")]
    for part in parts:
        to = folder / part.relative_to(package)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(part, to)


def run(*command: str) -> None:
    """Raises SystemExit where the program fails, which has said why, or is not installed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the pages run stzoo of this environment
    program = shutil.which(command[0], path=path)
    if program is None:
        raise SystemExit(f"{command[0]} is needed to build the site; docs/site/build.py says how to install it")
    if subprocess.run([program, *command[1:]], check=False, env=os.environ | {"PATH": path}).returncode:
        raise SystemExit(f"{command[0]} failed; see above")


if __name__ == "__main__":
    main()
