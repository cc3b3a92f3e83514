"""The reference of every public name, from the docstrings."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import stzoo

ROOMS = (
    "train", "evaluate", "benchmark", "charts", "metrics", "data", "scale", "convert", "published", "viz", "errors",
)  # fmt: skip


def write(sources: Path) -> None:
    """One page for the names of `stzoo` itself, and one for each of its rooms.

    Raises:
        SystemExit: a public name, or a public method or property of one, has no docstring.
    """
    folder = sources / "reference"
    folder.mkdir()
    modules = ["stzoo", *(f"stzoo.{room}" for room in ROOMS)]
    missing = [found for module in modules for name in _names(module) for found in undocumented(module, name)]
    if missing:
        raise SystemExit(f"public names without a docstring: {', '.join(missing)}")
    for module in modules:
        (folder / f"{module}.md").write_text(_page(module), "utf-8")
    listed = "\n".join(modules)
    (folder / "index.md").write_text(f"# Reference\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n", "utf-8")


def _names(module: str) -> list[str]:
    """What `__all__` lists, or where there is none, what is defined there and has no underscore before its name."""
    room = import_module(module)
    defined = [n for n, v in vars(room).items() if not n.startswith("_") and getattr(v, "__module__", "") == module]
    above = {} if module == "stzoo" else {n: getattr(stzoo, n) for n in stzoo.__all__}  # described on its own page
    return sorted(
        n for n in getattr(room, "__all__", defined) if above.get(n) is not getattr(room, n) or n not in above
    )


def undocumented(module: str, name: str) -> list[str]:
    """The name, if it is of a class or a function without a docstring; of a class, its methods and properties, too."""
    value = getattr(import_module(module), name)
    named = {f"{module}.{name}": value}
    if inspect.isclass(value):
        own = {member: getattr(value, member) for member in vars(value) if not member.startswith("_")}
        named |= {f"{module}.{name}.{member}": found for member, found in own.items()}
    described = (inspect.isclass, inspect.isroutine, lambda x: isinstance(x, property))
    return [n for n, found in named.items() if any(kind(found) for kind in described) and not inspect.getdoc(found)]


def _page(module: str) -> str:
    about = inspect.getdoc(import_module(module)) or ""
    entries = [_entry(module, name) for name in _names(module)]
    body = "\n\n".join([about, f".. currentmodule:: {module}", *entries])
    return f"# {module}\n\n```{{eval-rst}}\n{body}\n```\n"


def _entry(module: str, name: str) -> str:
    value = getattr(import_module(module), name)
    if inspect.isclass(value):
        shown = "" if issubclass(value, Exception) else "\n   :members:"
        above = "" if value.__bases__ == (object,) else "\n   :show-inheritance:"
        return f".. autoclass:: {name}{shown}{above}"
    return f".. {'autofunction' if inspect.isroutine(value) else 'autodata'}:: {name}"
