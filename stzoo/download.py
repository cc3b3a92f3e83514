"""An https address -> a file that is whole or absent, whatever cuts, stalls, kills and parallel downloads happen.

Bytes go to a hidden part file beside the target and are hashed as they come. After a cut or a kill, the next download
continues the part. Only a file with the right sha256 gets the target's name.

This module imports neither torch nor NumPy.
"""

from __future__ import annotations

import email.utils
import hashlib
import os
import random
import re
import shutil
import ssl
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin

from filelock import FileLock

from stzoo.addresses import is_https, is_private, scrubbed, unchained, without_secrets
from stzoo.errors import DownloadError, IntegrityError, printable
from stzoo.files import make_way
from stzoo.hashing import file_sha256
from stzoo.progress import tqdm

PIECE = 1 << 14  # bytes read at once: at the slowest pace that is waited for, some seconds' worth
MARGIN = 16 << 20  # bytes that are left free on the disk
LONGEST_WAIT = 60.0  # seconds between two requests, even if a server asks for more
MOST_REDIRECTS = 5
MOST_UNKNOWN = 4 << 30  # bytes that a file may have whose size nobody stated


@dataclass(frozen=True)
class Patience:
    """How long a download goes on trying.

    Attributes:
        attempts: how many requests in a row may fail. The count starts again after a request that brought a twentieth
            of the file.
        backoff: seconds before the second request of a row. They double before each further one, and are multiplied by
            a random number between 0.5 and 1.5.
        connect, read: seconds without a connection, or without a byte, after which a request has failed.
        slowest, window: a request that brings fewer than `slowest` bytes a second, on average over `window` seconds,
            has failed, too: a server that sends a byte now and then would be waited for without end.
    """

    attempts: int = 5
    backoff: float = 0.5
    connect: float = 10.0
    read: float = 30.0
    slowest: float = 500.0
    window: float = 30.0


class _Failed(Exception):
    """This request failed, but the next one may succeed. `after`: how many seconds the server asked to wait."""

    def __init__(self, why: str, after: float = 0.0):
        super().__init__(why)
        self.after = after


class AnotherSizeError(DownloadError):
    """What a server has under the address is of another size than the file that was asked for."""


@unchained()
def download(
    url: str, target: Path, size: int | None, sha256: str | None, patience: Patience = Patience(), progress: bool = True
) -> str:
    """Fetch `url` to `target`. If several processes ask at once, one downloads and the others find its file.

    Of a file whose sha256 is not known, what an earlier process left is continued only if the server says, by its
    ETag, that it is still the same file; and a file that is there already is taken as it is.

    Args:
        url: an https address. A redirect to any other kind of address is refused, and so is one from a public host
            into the private network of this machine.
        target: where the file goes. A file that is there already is kept if its sha256 is right, and removed otherwise.
        size: of the file, in bytes; None if it is not known. An answer of another size is refused before its first
            byte is kept.
        sha256: of the file, in hexadecimal; None if it is not known: then the caller must check what came.
        patience: how long to go on trying.
        progress: show a bar if the download takes longer than a second, and a line for each request that failed.

    Returns:
        The sha256 of the file, in hexadecimal.

    Raises:
        DownloadError: the address is not https, no request succeeded, or the file does not fit on the disk.
        IntegrityError: the bytes have another sha256. None of them is kept.
    """
    if not is_https(url):
        raise DownloadError(f"{without_secrets(url)} is not an https address; nothing is fetched from other ones")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock(target):
            found = _kept(target, sha256)
            if found is None:
                part = part_of(target)
                try:
                    found = _fill(url, part, size, sha256, patience, progress)
                    os.replace(part, target)
                finally:
                    if not part.is_file() or not part.stat().st_size:
                        part.unlink(missing_ok=True)
                        _tag_of(part).unlink(missing_ok=True)
                flush_folder(target.parent)
            return found
    except OSError as error:
        raise DownloadError(f"cannot keep {without_secrets(url)} as {target}: {error.strerror or error}") from error
    except NotImplementedError as error:  # the file system has no locks
        raise DownloadError(f"cannot keep {without_secrets(url)} as {target}: {error}") from error


def discard(target: Path, sha256: str) -> None:
    """Remove the file `target` unless its sha256 is right: another process may have put the right file there."""
    with lock(target):
        _kept(target, sha256)


def lock(target: Path) -> FileLock:
    """The lock of whoever writes `target`. The system releases it when that process dies."""
    path = target.with_name(f".{target.name}.lock")
    make_way(path)
    return FileLock(path)


def part_of(target: Path) -> Path:
    """The hidden file beside `target` that holds what was downloaded of it so far."""
    return target.with_name(f".{target.name}.part")


def flush_folder(folder: Path) -> None:
    """Wait until the names of a folder are on disk, so that they survive a power cut. Not every system can do this."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _tag_of(part: Path) -> Path:
    """The hidden file beside a part that holds the server's ETag of it, if nothing else is known of the file."""
    return part.with_name(f"{part.name}-tag")


def _kept(target: Path, sha256: str | None) -> str | None:
    """The sha256 of the right file, if that is there. Anything else at `target` is removed."""
    if target.is_file() and not target.is_symlink():
        found = file_sha256(target)
        if sha256 in (None, found):
            return found
    target.unlink(missing_ok=True)  # of a link, only the link itself, not what it leads to
    return None


def _fill(url: str, part: Path, size: int | None, sha256: str | None, patience: Patience, progress: bool) -> str:
    """Make requests until `part` holds the whole file, with the right sha256, which is returned.

    Raises what `download` raises.
    """
    from stzoo.slowness import Watch  # which imports requests; a file that is there needs none of it

    watch = Watch(patience.slowest, patience.window)
    name = without_secrets(url).rpartition("/")[2]
    for path in (part, _tag_of(part)):
        make_way(path)  # a FIFO would be waited for without end
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with (
        os.fdopen(os.open(part, flags, 0o644), "r+b") as file,
        watch.session() as session,
        tqdm(total=size, unit="B", unit_scale=True, desc=name, delay=1, disable=not progress) as bar,
    ):
        written = _Written(file, size, _tag_of(part) if sha256 is None else None)
        most = written.count  # the most bytes so far: bytes that come again after a restart are no progress
        leftover = written.count > 0  # what an earlier process left may be of another source
        failures: list[str] = []
        while True:
            bar.update(written.count - bar.n)
            try:
                if not written.whole:
                    _space(part.parent, (written.size or 0) - written.count)
                    _transfer(session, watch, url, written, patience, bar)
            except _Failed as error:
                session.close()  # otherwise the next request would use the broken connection
                progressed = written.count - most > (written.size or MOST_UNKNOWN) // 20
                failures = [*([] if progressed else failures), str(error)]
                most = max(most, written.count)
                if len(failures) == patience.attempts:
                    tries = f"{len(failures)} requests in a row failed, the last one with: {error}"
                    raise DownloadError(f"cannot fetch {without_secrets(url)}: {tries}") from error
                pause = patience.backoff * 2 ** (len(failures) - 1) * random.uniform(0.5, 1.5)
                pause = min(max(pause, error.after), LONGEST_WAIT)
                if progress:
                    again = f"retry {len(failures)} of {patience.attempts - 1} in {pause:.0f} s"
                    tqdm.write(f"{name}: {error}; {again}", file=sys.stderr)
                time.sleep(pause)
                continue
            except OSError:  # most likely a full disk, which what was written would keep full
                written.restart()
                raise
            found = written.hash.hexdigest()
            if sha256 in (None, found):
                file.flush()
                os.fsync(file.fileno())
                return found
            written.restart()
            if not leftover:
                address = without_secrets(url)
                raise IntegrityError(f"{address} has sha256 {found}, expected {sha256}; the download was discarded")
            leftover = False


class _Written:
    """The part file, how many bytes it holds so far, and their hash.

    Attributes:
        size: of the whole file; None until the server or the end of its answer says it.
        ended: whether a body without a stated length has ended.
        tag: the server's ETag of a file of which nothing else is known; it is kept in the file `tag_file`.
    """

    def __init__(self, file: IO[bytes], size: int | None, tag_file: Path | None = None):
        self.file, self.size, self.count, self.hash = file, size, 0, hashlib.sha256()
        self.stated, self.tag_file, self.ended = size, tag_file, False
        self.tag = tag_file.read_text("latin-1") if tag_file is not None and tag_file.is_file() else None
        while piece := file.read(PIECE):
            self.hash.update(piece)
            self.count += len(piece)
        if self.count > (MOST_UNKNOWN if size is None else size) or (tag_file is not None and not self.tag):
            self.restart()

    @property
    def whole(self) -> bool:
        return self.ended or (self.size is not None and self.count >= self.size)

    def restart(self) -> None:
        """Forget every byte, and what the server said of them."""
        self.file.seek(0)
        self.file.truncate()
        self.count, self.hash = 0, hashlib.sha256()
        self.size, self.ended = self.stated, False

    def learn(self, size: int | None, tag: str | None) -> None:
        """Keep what an answer says of the whole file, as far as it is not known from elsewhere."""
        if self.size is None and size is not None:
            if size > MOST_UNKNOWN:
                raise DownloadError(f"the file has {size:,} bytes; an unknown one may have {MOST_UNKNOWN:,}")
            self.size = size
        if self.tag_file is not None and tag is not None:
            self.tag = tag
            self.tag_file.write_text(tag, "latin-1")

    def add(self, piece: bytes) -> None:
        """Append a piece to the file and to the hash."""
        self.file.write(piece)
        self.hash.update(piece)
        self.count += len(piece)


def _transfer(session: Any, watch: Any, url: str, written: _Written, patience: Patience, bar: tqdm) -> None:
    """One request for the missing bytes, looked after by `watch`. Raises `_Failed` if another request may help."""
    try:
        with watch:
            _receive(session, watch, url, written, patience, bar)
    except _Failed as error:
        if watch.tripped:
            raise _Failed(
                f"it sent fewer than {patience.slowest:g} bytes a second for {patience.window:g} s"
            ) from error
        raise


def _receive(session: Any, watch: Any, url: str, written: _Written, patience: Patience, bar: tqdm) -> None:
    from requests import RequestException

    headers = {"Accept-Encoding": "identity"}
    if written.count:
        headers["Range"] = f"bytes={written.count}-"
        if written.tag:
            headers["If-Range"] = written.tag
    with _answer(session, url, headers, patience) as response:
        _accept(response, url, written)
        bar.update(written.count - bar.n)
        try:
            for piece in response.iter_content(PIECE):
                most = MOST_UNKNOWN if written.size is None else written.size
                if written.count + len(piece) > most:
                    written.restart()
                    wrong = DownloadError if written.stated is None else AnotherSizeError
                    raise wrong(f"{without_secrets(url)} sends more than the expected {most:,} bytes")
                written.add(piece)
                watch.count += len(piece)
                bar.update(len(piece))
        except RequestException as error:
            raise _Failed(_reason(error)) from error
    if written.size is None:
        if watch.tripped:  # it ended the body itself
            raise _Failed("it was too slow")
        written.ended = True  # the server stated no length, so the end of the body is the end of the file
    elif written.count < written.size:
        raise _Failed(f"the body ended after {written.count:,} of {written.size:,} bytes")


def _answer(session: Any, url: str, headers: dict[str, str], patience: Patience) -> Any:
    """The answer to a request. Redirects to other https addresses are followed; their bodies are not read."""
    from requests import exceptions

    here, final = url, (exceptions.InvalidURL, exceptions.InvalidHeader, exceptions.InvalidProxyURL)
    for _ in range(MOST_REDIRECTS + 1):
        try:
            response = session.get(
                here, headers=headers, stream=True, allow_redirects=False, timeout=(patience.connect, patience.read)
            )
        except exceptions.RequestException as error:
            # A wrong certificate stays wrong. All other errors of TLS are cuts, which may not happen again.
            if isinstance(error, final) or isinstance(_root(error), ssl.SSLCertVerificationError):
                raise DownloadError(f"cannot fetch {without_secrets(url)}: {_reason(error)}") from error
            raise _Failed(_reason(error)) from error
        except Exception as error:  # such as a missing bundle of certificates, or a host name that is not allowed
            raise DownloadError(f"cannot fetch {without_secrets(url)}: {_reason(error)}") from error
        if not response.is_redirect:
            return response
        response.close()
        location = response.headers["Location"]
        try:
            here = urljoin(here, location)
        except ValueError:
            raise DownloadError(
                f"{without_secrets(url)} redirects to {without_secrets(location)}, which is no address"
            ) from None
        if not is_https(here):
            raise DownloadError(
                f"{without_secrets(url)} redirects to {without_secrets(here)}, which is not https; it is not followed"
            )
        if is_private(here) and not is_private(url):
            raise DownloadError(
                f"{without_secrets(url)} redirects to {without_secrets(here)}, which is in the private network of this "
                "machine; it is not followed. Name such an address in STZOO_MIRRORS if you mean it"
            )
    raise DownloadError(f"{without_secrets(url)} redirects more than {MOST_REDIRECTS} times")


def _accept(response: Any, url: str, written: _Written) -> None:
    """Check that the answer holds the rest of the file, or all of it. Raises `DownloadError` or `_Failed` if not."""
    status, length = response.status_code, response.headers.get("Content-Length", "")
    address = without_secrets(url)
    limited = status == 403 and ("Retry-After" in response.headers or _spent(response.headers))
    if status in (408, 425, 429) or status >= 500 or limited:
        raise _Failed(f"status {status}", _retry_after(response.headers.get("Retry-After", "")))
    if status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match and int(match[1]) == written.count and (written.size is None or match[2] in ("*", str(written.size))):
            written.learn(int(match[2]) if match[2].isdecimal() else None, None)
            return
    if status in (206, 416):
        written.restart()
        raise _Failed(
            f"status {status} with Content-Range {printable(str(response.headers.get('Content-Range')))[:50]}"
        )
    if status != 200:
        hint = " (there is no such file)" if status == 404 else " (you may not read it)" if status in (401, 403) else ""
        raise DownloadError(f"{address} answers with status {status}{hint}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(
            f"{address} sends {printable(response.headers['Content-Encoding'])[:50]}, which was not asked for"
        )
    if length.isdecimal() and written.stated is not None and int(length) != written.stated:
        raise AnotherSizeError(f"{address} has {int(length):,} bytes, expected {written.stated:,}; it is another file")
    written.restart()  # this is the whole file: from the start, without ranges, or another one by now
    written.learn(int(length) if length.isdecimal() else None, _strong(response.headers.get("ETag", "")))


def _strong(tag: str) -> str:
    """An ETag that stands for these very bytes; "" for any other, after which nothing is continued."""
    return tag if re.fullmatch(r'"[!-~]*"', tag) else ""


def _spent(headers: Any) -> bool:
    """Whether a server that counts requests says that none is left for now, as GitHub does."""
    return headers.get("X-RateLimit-Remaining") == "0"


def _retry_after(value: str) -> float:
    """A Retry-After header, which holds seconds or a date -> seconds from now; 0 if it holds neither."""
    if value.isdecimal():
        return float(value[:6])
    with suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


def _space(folder: Path, needed: int) -> None:
    """Raises `DownloadError` if the disk of `folder` has no room for the `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed + MARGIN:
        raise DownloadError(
            f"{needed / 1e6:,.1f} MB are still to come and {folder} has {free / 1e6:,.1f} MB free, of which "
            f"{MARGIN / 1e6:.0f} stay free; make room, or choose another folder"
        )


def _root(error: Exception) -> Exception:
    """The innermost cause of an error: what requests and urllib3 wrap around it is long and says nothing.

    urllib3 1.26 provokes a TypeError of its own, which is no cause.
    """
    while (inner := error.__cause__ or error.__context__) and isinstance(inner, Exception):
        if isinstance(inner, TypeError):
            break
        error = inner
    return error


def _reason(error: Exception) -> str:
    root = _root(error)
    return scrubbed(f"{type(root).__name__}: {root}")
