"""How torch's threads wait for one another on a CPU: they spin for a short time, and then sleep.

Between two parallel parts of a forecast a thread has nothing to do for some microseconds. GNU's OpenMP, which torch
brings along on Linux, lets it spin for a few milliseconds before it sleeps. Where another program keeps a core busy,
that is harmful: the system sees a thread that never rests, gives it no more than its share, and all the others wait
until it is its turn again, some hundred times in a forecast. A thread that sleeps is woken at once.

The number of spins is read from the environment when the library is loaded, and never again. So the library is loaded
here, when stzoo is imported, and the environment is left as it was. Nothing here imports torch.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import PathFinder
from typing import Final

SPINS: Final = 1000  # some ten microseconds: longer than from one part to the next, far shorter than a time slice
_SPINS, _POLICY = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"  # what users set; both are respected


def _bound_spinning() -> str:
    """Load torch's OpenMP with few spins, if nobody has loaded it yet. Returns what holds from now on, in words."""
    for name in (_SPINS, _POLICY):
        if os.environ.get(name, "").strip():  # GNU's OpenMP takes no empty value: it complains, and spins for long
            return f"as {name}={os.environ[name]} says"
    library = next(_libraries(), None)
    if library is None:
        return "as its OpenMP does by itself"
    try:
        ctypes.CDLL(library, mode=os.RTLD_NOLOAD)
        return "as its OpenMP does by itself, which was loaded before stzoo"
    except OSError:  # it is not loaded
        pass
    before = os.environ.get(_SPINS)
    os.environ[_SPINS] = str(SPINS)
    try:
        ctypes.CDLL(library)
    except OSError:
        return "as its OpenMP does by itself"
    finally:
        if before is None:
            del os.environ[_SPINS]
        else:
            os.environ[_SPINS] = before
    return f"{SPINS:,} spins, then asleep"


def _libraries() -> Iterator[str]:
    """GNU's OpenMP beside the torch that is installed; nothing if there is none.

    The current folder, which may hold files of a stranger, is not searched.
    """
    if sys.platform != "linux":
        return
    try:
        here = os.path.realpath(os.getcwd())
    except FileNotFoundError:  # the current folder was removed
        here = ""
    torch = PathFinder.find_spec("torch", [each for each in sys.path if each and os.path.realpath(each) != here])
    for folder in (torch.submodule_search_locations if torch else None) or ():
        inside = os.path.join(folder, "lib")
        with suppress(OSError):  # a torch that lies elsewhere, or is no folder
            yield from (os.path.join(inside, name) for name in os.listdir(inside) if name.startswith("libgomp"))


WAITING: Final = _bound_spinning()  # how threads of torch wait in this process
