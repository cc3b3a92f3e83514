"""https -> a file that is whole or not there, in spite of cuts, stalls, kills and company. Imports no torch, no NumPy.

Bytes go to a hidden part file beside the target and are hashed as they come. Whoever comes next, after a cut or a kill,
goes on from the part; only what has the right sha256 gets the target's name.
"""

from __future__ import annotations

import email.utils
import hashlib
import os
import random
import re
import shutil
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from filelock import FileLock
from tqdm import tqdm

from stzoo.errors import DownloadError, IntegrityError

PIECE = 1 << 16  # bytes read at once
MARGIN = 16 << 20  # bytes that stay free on the disk
LONGEST_WAIT = 60.0  # seconds, whatever a server asks for
MOST_REDIRECTS = 5


@dataclass(frozen=True)
class Patience:
    """How long a download is tried.

    Attributes:
        attempts: requests in a row that may fail; a request that brought a twentieth of the file starts a new row.
        backoff: seconds before the second, doubled for each further one, times a number drawn from 0.5 to 1.5.
        connect, read: seconds without an answer, or without a byte, after which a request has failed.
    """

    attempts: int = 5
    backoff: float = 0.5
    connect: float = 10.0
    read: float = 30.0


class _Failed(Exception):
    """This request failed; the next one may not. `after`: seconds the server asked to wait."""

    def __init__(self, why: str, after: float = 0.0):
        super().__init__(why)
        self.after = after


def download(
    url: str, target: Path, size: int, sha256: str, patience: Patience = Patience(), progress: bool = True
) -> None:
    """Fetch `url` to `target`. Of processes that ask at once one downloads, and the others find its file.

    Args:
        url: https; a redirect to anything else is refused.
        target: what is there already is left alone where it has the right sha256, and else removed.
        size, sha256: of the file. Another size is refused before the first byte is kept.
        patience: how long to try.
        progress: a bar where it takes longer than a second.

    Raises:
        DownloadError: the address is not https, no request succeeded, or the file does not fit on the disk.
        IntegrityError: the bytes have another sha256; nothing is kept of them.
    """
    if not is_https(url):
        raise DownloadError(f"{shown(url)} is not an https address; nothing is fetched from any other")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock(target):
            if not _kept(target, sha256):
                part = part_of(target)
                try:
                    _fill(url, part, size, sha256, patience, progress)
                    os.replace(part, target)
                finally:
                    if part.is_file() and not part.stat().st_size:
                        part.unlink()
                _flush_folder(target.parent)
    except OSError as error:
        raise DownloadError(f"cannot keep {shown(url)} as {target}: {error.strerror or error}") from error
    except NotImplementedError as error:  # of a file system without locks
        raise DownloadError(f"cannot keep {shown(url)} as {target}: {error}") from error


def discard(target: Path, sha256: str) -> None:
    """Remove `target` unless it has that sha256: another process may have put the right file there meanwhile."""
    with lock(target):
        _kept(target, sha256)


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock(target: Path) -> FileLock:
    """Held by whoever writes `target`; the system lets go of it when its process dies."""
    return FileLock(target.with_name(f".{target.name}.lock"))


def part_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname)


def shown(url: str) -> str:
    """The address without a user's name and password, and without a query, which may hold a token."""
    return re.sub(r"(?<=://)[^/?#]*@", "", url).partition("?")[0]


def scrubbed(text: str) -> str:
    """What others say, with every address in it as `shown` shows it."""
    text = re.sub(r"\w+://\S+", lambda found: shown(found[0]), text)
    return re.sub(r"\?[^\s'\")]+", "?...", " ".join(text.split()))


def _kept(target: Path, sha256: str) -> bool:
    if target.is_file() and not target.is_symlink() and file_sha256(target) == sha256:
        return True
    target.unlink(missing_ok=True)  # of a link, whatever it leads to, the link alone
    return False


def _fill(url: str, part: Path, size: int, sha256: str, patience: Patience, progress: bool) -> None:
    """Requests until `part` holds the whole file, with the right sha256."""
    import requests

    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with (
        os.fdopen(os.open(part, flags, 0o644), "r+b") as file,
        requests.Session() as session,
        tqdm(
            total=size, unit="B", unit_scale=True, desc=shown(url).rpartition("/")[2], delay=1, disable=not progress
        ) as bar,
    ):
        written = _Written(file, size)
        most = written.count  # that was ever there: what comes again after a restart is no progress
        leftover = written.count > 0  # by a run that was killed, or of another source
        failures: list[str] = []
        while True:
            bar.update(written.count - bar.n)
            try:
                if written.count < size:
                    _space(part.parent, size - written.count)
                    _transfer(session, url, written, patience, bar)
            except _Failed as error:
                session.close()  # or the next request would go into a connection that is no longer one
                failures = [*([] if written.count - most > size // 20 else failures), str(error)]
                most = max(most, written.count)
                if len(failures) == patience.attempts:
                    tries = f"{len(failures)} requests in a row failed, the last one with: {error}"
                    raise DownloadError(f"cannot fetch {shown(url)}: {tries}") from error
                pause = patience.backoff * 2 ** (len(failures) - 1) * random.uniform(0.5, 1.5)
                time.sleep(min(max(pause, error.after), LONGEST_WAIT))
                continue
            except OSError:  # a full disk, most likely: what was written would only keep it full
                written.restart()
                raise
            found = written.hash.hexdigest()
            if found == sha256:
                file.flush()
                os.fsync(file.fileno())
                return
            written.restart()
            if not leftover:
                raise IntegrityError(f"{shown(url)} has sha256 {found}, expected {sha256}; nothing of it was kept")
            leftover = False


class _Written:
    """What the part file holds so far, and its hash."""

    def __init__(self, file: IO[bytes], size: int):
        self.file, self.size, self.count, self.hash = file, size, 0, hashlib.sha256()
        while piece := file.read(PIECE):
            self.hash.update(piece)
            self.count += len(piece)
        if self.count > size:
            self.restart()

    def restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.count, self.hash = 0, hashlib.sha256()

    def add(self, piece: bytes) -> None:
        self.file.write(piece)
        self.hash.update(piece)
        self.count += len(piece)


def _transfer(session: Any, url: str, written: _Written, patience: Patience, bar: tqdm) -> None:
    """One request for what is missing. Raises `_Failed` where another one may help."""
    from requests import RequestException

    headers = {"Accept-Encoding": "identity"}
    if written.count:
        headers["Range"] = f"bytes={written.count}-"
    with _answer(session, url, headers, patience) as response:
        _accept(response, url, written)
        bar.update(written.count - bar.n)
        try:
            for piece in response.iter_content(PIECE):
                if written.count + len(piece) > written.size:
                    written.restart()
                    raise DownloadError(f"{shown(url)} sends more than the expected {written.size:,} bytes")
                written.add(piece)
                bar.update(len(piece))
        except RequestException as error:
            raise _Failed(_reason(error)) from error
    if written.count < written.size:
        raise _Failed(f"the body ended after {written.count:,} of {written.size:,} bytes")


def _answer(session: Any, url: str, headers: dict[str, str], patience: Patience) -> Any:
    """To a request, after redirects to other https addresses, whose own bodies are not read."""
    from requests import exceptions

    here, final = url, (exceptions.InvalidURL, exceptions.InvalidHeader, exceptions.InvalidProxyURL)
    for _ in range(MOST_REDIRECTS + 1):
        try:
            response = session.get(
                here, headers=headers, stream=True, allow_redirects=False, timeout=(patience.connect, patience.read)
            )
        except exceptions.RequestException as error:
            # Other errors of TLS than this one are cuts, and may pass.
            if isinstance(error, final) or isinstance(_root(error), ssl.SSLCertVerificationError):
                raise DownloadError(f"cannot fetch {shown(url)}: {_reason(error)}") from error
            raise _Failed(_reason(error)) from error
        except Exception as error:  # such as a bundle of certificates that is not there, or a host no name can be
            raise DownloadError(f"cannot fetch {shown(url)}: {_reason(error)}") from error
        if not response.is_redirect:
            return response
        response.close()
        here = urljoin(here, response.headers["Location"])
        if not is_https(here):
            raise DownloadError(f"{shown(url)} redirects to {shown(here)}, which is not https; it is not followed")
    raise DownloadError(f"{shown(url)} redirects more than {MOST_REDIRECTS} times")


def _accept(response: Any, url: str, written: _Written) -> None:
    """Is what comes now the rest of the file, or all of it? Other answers are errors."""
    status, length = response.status_code, response.headers.get("Content-Length", "")
    if status in (408, 425, 429) or status >= 500:
        raise _Failed(f"status {status}", _retry_after(response.headers.get("Retry-After", "")))
    if status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match and int(match[1]) == written.count and match[2] in ("*", str(written.size)):
            return
    if status in (206, 416):
        written.restart()
        raise _Failed(f"status {status} with Content-Range {response.headers.get('Content-Range')}")
    if status != 200:
        hint = " (not there)" if status == 404 else " (not allowed)" if status in (401, 403) else ""
        raise DownloadError(f"{shown(url)} answers with status {status}{hint}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(f"{shown(url)} sends {response.headers['Content-Encoding']}, which was not asked for")
    if length.isdecimal() and int(length) != written.size:
        raise DownloadError(f"{shown(url)} has {int(length):,} bytes, expected {written.size:,}; it is another file")
    if written.count:  # ranges are not served here
        written.restart()


def _retry_after(value: str) -> float:
    """Seconds, given as such or as a date."""
    if value.isdecimal():
        return float(value[:6])
    with suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


def _space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + MARGIN:
        raise DownloadError(
            f"{needed / 1e6:,.1f} MB are still to come and {folder} has {free / 1e6:,.1f} MB free, of which "
            f"{MARGIN / 1e6:.0f} stay free; make room, or choose another folder"
        )


def _root(error: Exception) -> Exception:
    """The innermost cause: what requests and urllib3 wrap around it is long and says nothing.

    (urllib3 1.26 tries a call in a way that raises TypeError; that is no cause.)
    """
    while (inner := error.__cause__ or error.__context__) and isinstance(inner, Exception):
        if isinstance(inner, TypeError):
            break
        error = inner
    return error


def _reason(error: Exception) -> str:
    root = _root(error)
    return scrubbed(f"{type(root).__name__}: {root}")


def _flush_folder(folder: Path) -> None:
    """So that the new name survives a loss of power as well; not every system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
