"""Addresses in messages: what may be said of them, and what must not be, because it is secret.

This module imports neither torch nor NumPy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from stzoo.errors import StzooError, printable


def is_https(url: str) -> bool:
    """Whether `url` is an https address with a host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname)


def is_private(url: str) -> bool:
    """Whether the host of an address is this machine, or a number in a private network.

    Names are not looked up: a server behind a name must have a certificate for it, whatever its number is.
    """
    host = urlsplit(url).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def without_secrets(url: str) -> str:
    """The address for a message: printable, and without user name, password and query, which may hold a token."""
    return printable(re.sub(r"(?<=://)[^/?#]*@", "", url).partition("?")[0])


def scrubbed(text: str) -> str:
    """A message of another program in one printable line, without what is secret.

    Every address in it is as `without_secrets` gives it, and the token of an Authorization header is left out.
    """
    text = re.sub(r"\b(Bearer) \S+", r"\1 ...", text, flags=re.IGNORECASE)
    text = re.sub(r"\w+://\S+", lambda found: without_secrets(found[0]), text)
    return printable(re.sub(r"\?[^\s'\")]+", "?...", " ".join(text.split())))


@contextmanager
def unchained() -> Iterator[None]:
    """Errors of stzoo that leave the block, or the function that this decorates, carry no error of another library.

    Such an error would stand in the traceback, with the addresses, and so with passwords and tokens, that the message
    of ours leaves out.
    """
    try:
        yield
    except StzooError as error:
        error.__cause__ = error.__context__ = None
        raise
