"""What a mirror can do wrong: each ends in the right file, or in an error that says what was tried and no file."""

import contextlib
import dataclasses
import email.utils
import gzip
import hashlib
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import namedtuple
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from hub import children
from hub.proxy import loopback_proxy
from hub.server import LoopbackMirror, LoopbackServer
from hub.shared import CONTENT, QUICK, SHA256, SIZE, Place, trusted

from stzoo.addresses import scrubbed
from stzoo.data import mmnist
from stzoo.download import LONGEST_WAIT, MARGIN, Patience, discard, download
from stzoo.errors import DownloadError, IntegrityError

OTHER = random.Random(1).randbytes(len(CONTENT))  # another file of the same size
BRISK = Patience(attempts=2, backoff=0.01, connect=20, read=1.5)  # for bodies that stall


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds a download meant to wait, which it does not."""
    waited: list[float] = []
    monkeypatch.setattr("stzoo.download.time", SimpleNamespace(sleep=waited.append, time=time.time))
    return waited


def leave(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def ranges(mirror: LoopbackServer) -> list[str | None]:
    return [r.headers.get("range") for r in mirror.asked()]


def test_a_file_arrives_whole_and_alone(place: Place) -> None:
    place.get()
    assert place.target.read_bytes() == CONTENT
    assert not place.part.exists()
    assert [(r.status, r.sent) for r in place.mirror.asked()] == [(200, SIZE)]
    place.get()
    assert len(place.mirror.asked()) == 1  # what is there is not fetched again


def test_a_wrong_file_under_the_final_name_is_replaced(place: Place) -> None:
    leave(place.target, OTHER)
    place.get()
    assert place.target.read_bytes() == CONTENT
    discard(place.target, SHA256)
    assert place.target.exists()  # it is right
    leave(place.target, OTHER)
    discard(place.target, SHA256)
    assert not place.target.exists()


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        pytest.param({"status": 500}, 3, id="500 three times"),
        pytest.param({"status": 503}, 1, id="503"),
        pytest.param({"status": 408}, 1, id="408"),
        pytest.param({"status": 429, "headers": {"Retry-After": "0"}}, 2, id="429 twice"),
        pytest.param({"cut": 0}, 1, id="ends before the body"),
        pytest.param({"cut": 200_000}, 1, id="ends within the body"),
        pytest.param({"cut": SIZE - 1}, 1, id="ends before the last byte"),
        pytest.param({"cut": 200_000, "reset": True}, 1, id="reset"),
        pytest.param({"cut": 200_000, "headers": {"Content-Length": None}}, 1, id="ends, and had named no length"),
        pytest.param({"headers": {"Content-Length": None}}, 1, id="names no length"),
        pytest.param({"rate": 2_000_000}, 1, id="slow"),
        pytest.param({"status": 206, "headers": {"Content-Range": "bytes 5-9/10"}}, 1, id="206 unasked for"),
    ],
)
def test_a_fault_that_passes_is_outlived(place: Place, fault: dict[str, Any], times: int) -> None:
    place.mirror.fail(times=times, **fault)
    place.get()
    assert place.target.read_bytes() == CONTENT
    assert not place.part.exists()


def test_a_connection_that_ends_before_it_says_anything_is_tried_again(place: Place) -> None:
    place.mirror.hang_up(times=2)
    place.get()
    assert place.target.read_bytes() == CONTENT


@pytest.mark.parametrize("how", [{"reset": False}, {"reset": True}, {"stall": True}], ids=["cut", "reset", "stalled"])
def test_after_a_cut_only_the_rest_is_asked_for(place: Place, how: dict[str, bool]) -> None:
    place.mirror.fail(cut=200_000, **how)
    place.get(BRISK if "stall" in how else QUICK)
    assert place.target.read_bytes() == CONTENT
    first, second = place.mirror.asked()
    asked = re.fullmatch(r"bytes=(\d+)-", second.headers["range"])
    assert "range" not in first.headers
    assert asked
    assert 0 < int(asked[1]) <= 200_000
    assert (second.status, second.sent) == (206, SIZE - int(asked[1]))


def test_progress_starts_a_new_row_of_attempts(place: Place) -> None:
    place.mirror.fail(times=None, cut=70_000)  # each request brings some
    place.get(Patience(attempts=2, backoff=0.01))
    assert place.target.read_bytes() == CONTENT
    assert len(place.mirror.asked()) > 2


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"ranges": False}, id="200 and the whole file"),
        pytest.param({"headers": {"Content-Range": "bytes 0-9/10"}}, id="another range"),
        pytest.param({"headers": {"Content-Range": None}}, id="206 without a range"),
        pytest.param({"headers": {"Content-Range": f"bytes 100000-{SIZE - 1}/{SIZE + 1}"}}, id="of another size"),
        pytest.param({"status": 416}, id="416"),
    ],
)
def test_a_range_answered_wrongly_is_a_fresh_start(place: Place, fault: dict[str, Any]) -> None:
    leave(place.part, CONTENT[:100_000])
    place.mirror.fail(**fault)
    place.get()
    assert place.target.read_bytes() == CONTENT
    assert ranges(place.mirror)[0] == "bytes=100000-"
    assert ranges(place.mirror)[1:] in ([], [None])


@pytest.mark.parametrize(
    ("left", "asked"),
    [
        pytest.param(CONTENT[:100_000], ["bytes=100000-"], id="the beginning"),
        pytest.param(CONTENT, [], id="all of it"),
        pytest.param(OTHER[:100_000], ["bytes=100000-", None], id="the beginning of another file"),
        pytest.param(OTHER, [None], id="all of another file"),
        pytest.param(CONTENT + b"more", [None], id="more than all"),
        pytest.param(b"", [None], id="nothing"),
    ],
)
def test_what_a_dead_process_left_is_used_or_heals(place: Place, left: bytes, asked: list[str | None]) -> None:
    leave(place.part, left)
    place.get()
    assert place.target.read_bytes() == CONTENT
    assert ranges(place.mirror) == asked
    assert not place.part.exists()


def test_another_mirror_goes_on_where_the_first_one_failed(place: Place) -> None:
    place.mirror.fail(cut=200_000)
    place.mirror.fail(times=None, status=500)
    with pytest.raises(DownloadError):
        place.get()
    assert place.part.stat().st_size
    assert not place.target.exists()
    place.mirror.clear()
    place.get(url=place.mirror.add("/elsewhere/b.safetensors", CONTENT))
    assert place.target.read_bytes() == CONTENT
    assert ranges(place.mirror) != [None]


@pytest.mark.parametrize(
    ("fault", "error", "message", "requests"),
    [
        pytest.param({"status": 404}, DownloadError, r"status 404 \(there is no such file\)", 1, id="404"),
        pytest.param({"status": 403}, DownloadError, r"status 403 \(you may not read it\)", 1, id="403"),
        pytest.param({"status": 401}, DownloadError, r"status 401 \(you may not read it\)", 1, id="401"),
        pytest.param({"status": 204}, DownloadError, "status 204", 1, id="204"),
        pytest.param({"status": 304}, DownloadError, "status 304", 1, id="304"),
        pytest.param({"status": 500}, DownloadError, "4 requests in a row failed.*status 500", 4, id="500"),
        pytest.param({"status": 429}, DownloadError, "4 requests in a row failed.*status 429", 4, id="429"),
        pytest.param({"cut": 0}, DownloadError, "4 requests in a row failed", 4, id="cut"),
        pytest.param({"stall": True}, DownloadError, "2 requests in a row failed.*timed out", 2, id="stalled"),
        pytest.param({"body": OTHER}, IntegrityError, f"expected {SHA256}; the download was", 1, id="wrong body"),
        pytest.param({"body": CONTENT + b"more"}, DownloadError, "has 300,005 bytes, expected 300,001", 1, id="longer"),
        pytest.param({"body": CONTENT[:-1]}, DownloadError, "has 300,000 bytes, expected 300,001", 1, id="shorter"),
        pytest.param(
            {"body": CONTENT + b"more", "headers": {"Content-Length": None}},
            DownloadError, "sends more than the expected 300,001 bytes", 1, id="longer, and names no length",
        ),
        pytest.param({"headers": {"Content-Length": "5"}}, DownloadError, "has 5 bytes", 1, id="wrong Content-Length"),
        pytest.param(
            {"body": gzip.compress(CONTENT), "headers": {"Content-Encoding": "gzip"}},
            DownloadError, "sends gzip, which was not asked for", 1, id="gzip",
        ),
    ],
)  # fmt: skip
def test_a_fault_that_stays_leaves_no_file(
    place: Place, fault: dict[str, Any], error: type[Exception], message: str, requests: int
) -> None:
    place.mirror.fail(times=None, **fault)
    with pytest.raises(error, match=message) as raised:
        place.get(BRISK if "stall" in fault else QUICK)
    assert isinstance(raised.value, IntegrityError) is (error is IntegrityError)
    assert place.url in str(raised.value)
    assert len(place.mirror.asked()) == requests
    assert not place.target.exists()
    assert not place.part.exists()


def test_a_server_says_how_long_to_wait(place: Place, pauses: list[float]) -> None:
    a_while_from_now = email.utils.formatdate(time.time() + 3000, usegmt=True)
    for value in ("7", a_while_from_now, "900000000000000000000", "soon", "-5"):
        place.mirror.fail(status=429, headers={"Retry-After": value})
    place.get(Patience(attempts=6, backoff=0.01))
    assert pauses[:3] == [7, LONGEST_WAIT, LONGEST_WAIT]
    assert all(0 < pause < 1 for pause in pauses[3:])


def test_waits_grow_and_differ_between_processes(place: Place, pauses: list[float]) -> None:
    place.mirror.fail(times=None, status=503)
    with pytest.raises(DownloadError):
        place.get(Patience(attempts=5, backoff=1))
    assert all(2**n / 2 <= pause <= 2**n * 3 / 2 for n, pause in enumerate(pauses))
    assert len(pauses) == 4  # none after the last


@pytest.mark.parametrize("location", ["/moved/b.safetensors", "{mirror}/moved/b.safetensors"], ids=["path", "address"])
def test_a_redirect_within_https_is_followed(place: Place, location: str) -> None:
    place.mirror.add("/moved/b.safetensors", CONTENT)
    place.mirror.redirect("/weights/*", location.format(mirror=place.mirror.url))
    place.get()
    assert place.target.read_bytes() == CONTENT


def test_the_body_of_a_redirect_is_not_waited_for(place: Place) -> None:
    place.mirror.add("/moved/b.safetensors", CONTENT)
    where = {"Location": "/moved/b.safetensors"}
    place.mirror.fail("/weights/*", times=None, status=302, headers=where, body=bytes(1000), cut=10, stall=True)
    place.get(dataclasses.replace(BRISK, attempts=1))
    assert place.target.read_bytes() == CONTENT


def test_a_redirect_to_http_is_refused(place: Place) -> None:
    plain = LoopbackServer()
    place.mirror.redirect("/weights/*", plain.listen() + "/a.safetensors")
    with pytest.raises(DownloadError, match="http://"):
        place.get()
    plain.close()
    assert not plain.requests
    assert not place.target.exists()


def test_a_loop_of_redirects_ends(place: Place) -> None:
    place.mirror.redirect("/weights/*", "/weights/a.safetensors")
    with pytest.raises(DownloadError, match="redirects"):
        place.get()
    assert not place.target.exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1/a", "ftp://host/a", "file:///etc/hostname", "https:///a", "a", ""])
def test_what_is_no_https_address_is_refused(place: Place, url: str) -> None:
    with pytest.raises(DownloadError, match="is not an https address"):
        place.get(url=url)
    assert not place.target.parent.exists()


def test_a_certificate_that_nobody_vouches_for_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(DownloadError, match="(?i)certificate"):
        place.get()
    assert not place.mirror.requests
    assert not place.target.exists()


def test_a_host_where_nobody_listens_is_a_download_error(place: Place) -> None:
    with socket.socket() as taken:  # a port that is bound, and on which nobody listens
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(DownloadError, match="4 requests in a row failed.*refused"):
            place.get(url=f"https://127.0.0.1:{taken.getsockname()[1]}/a.safetensors")
    assert not place.target.exists()


def test_secrets_in_an_address_are_not_repeated(place: Place) -> None:
    place.mirror.fail(times=None, status=403)
    with pytest.raises(DownloadError) as raised:
        place.get(url=place.url.replace("https://", "https://user:secret@") + "?token=secret")
    assert "secret" not in str(raised.value)
    assert "/weights/a.safetensors" in str(raised.value)


@pytest.mark.parametrize(
    ("url", "redirect"),
    [
        ("https://user:secret@127.0.0.1:99999/f", None),
        ("https://user:secret@host..invalid/f", None),
        ("https://user:secret@[::1/f", None),
        (None, "http://elsewhere.invalid/x?token=secret"),
        (None, "https://a..b/x?token=secret"),
        (None, "https://user:secret@127.0.0.1:99999/x"),
        (None, "https://user:secret@[bad/x?token=secret"),
    ],
)
def test_addresses_that_are_none_end_in_one_error_without_secrets(
    place: Place, url: str | None, redirect: str | None
) -> None:
    if redirect is not None:
        place.mirror.redirect("*", redirect)
    with pytest.raises(DownloadError) as raised:
        place.get(url=url)
    assert "secret" not in str(raised.value)
    assert not place.target.exists()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("403 for url 'https://cdn/x?X-Amz-Signature=SECRET'", "403 for url 'https://cdn/x"),
        ("cannot reach http://user:SECRET@hub:80/api", "cannot reach http://hub:80/api"),
        ("Max retries with url: /x?token=SECRET (refused)", "Max retries with url: /x?... (refused)"),
        ("two\n lines", "two lines"),
        (r"Illegal header value b'Bearer hf_SECRET\n'", "Illegal header value b'Bearer ..."),
        ("authorization: bearer hf_SECRET (refused)", "authorization: bearer ... (refused)"),
    ],
)
def test_what_others_say_is_repeated_in_one_line_without_secrets(said: str, shown: str) -> None:
    assert scrubbed(said) == shown


def test_bytes_that_come_again_are_no_progress(place: Place) -> None:
    for _ in range(20):  # no ranges, and a body cut early and late in turn
        place.mirror.fail(ranges=False, cut=20_000)
        place.mirror.fail(ranges=False, cut=250_000)
    with pytest.raises(DownloadError, match="4 requests in a row failed"):
        place.get()
    assert len(place.mirror.asked()) <= 4 + 2  # the first two each had more than was ever there


def test_certificates_that_are_not_there_leave_the_part(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.part.parent.mkdir(parents=True, exist_ok=True)
    place.part.write_bytes(CONTENT[:1000])
    with monkeypatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
        with pytest.raises(DownloadError, match="cannot fetch .*nowhere.pem"):
            place.get()
    assert place.part.read_bytes() == CONTENT[:1000]


def test_a_bar_shows_what_comes_and_what_was_there(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.part.parent.mkdir(parents=True, exist_ok=True)
    place.part.write_bytes(CONTENT[: SIZE // 2])
    place.mirror.fail(rate=100_000)  # for longer than the second after which a bar appears
    download(place.url, place.target, SIZE, SHA256, QUICK, progress=True)
    shown = capsys.readouterr().err
    assert "a.safetensors" in shown
    percent = [int(number) for number in re.findall(r"(\d+)%", shown)]
    assert min(percent) >= 50  # what was there counts
    assert percent[-1] == 100


def test_a_full_disk_is_seen_before_anything_is_sent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    free = [SIZE + MARGIN - 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 0, free[0]))
    with pytest.raises(DownloadError, match=r"0.3 MB are still to come.*make room"):
        place.get()
    assert not place.mirror.requests
    assert not place.target.exists()
    free[0] += 1
    place.get()
    assert place.target.read_bytes() == CONTENT


def test_a_disk_that_fills_up_meanwhile_is_left_as_it_was(place: Place, processes: ForkServerContext) -> None:
    arguments = (trusted(), place.url, place.target, SIZE, SHA256)
    child = processes.Process(target=children.fetch_with_a_limit, args=(*arguments, 150_000))
    child.start()
    child.join()
    assert child.exitcode == 3
    assert not place.target.exists()
    assert not place.part.exists()


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_nobody_may_write_to_is_named(place: Place) -> None:
    place.target.parent.mkdir()
    place.target.parent.chmod(0o500)
    with pytest.raises(DownloadError, match=r"cannot keep .*a\.safetensors.*[Pp]ermission"):
        place.get()
    assert not place.mirror.requests


def test_a_folder_that_is_a_file_is_named(place: Place) -> None:
    place.target.parent.write_text("")
    with pytest.raises(DownloadError, match=r"cannot keep .*a\.safetensors"):
        place.get()


def test_a_link_in_place_of_the_part_is_not_written_through(place: Place, tmp_path: Path) -> None:
    leave(tmp_path / "precious", b"precious")
    place.target.parent.mkdir()
    place.part.symlink_to(tmp_path / "precious")
    with pytest.raises(DownloadError, match="cannot keep"):
        place.get()
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not place.target.exists()


def test_downloading_needs_neither_torch_nor_numpy() -> None:
    code = "import sys, stzoo.download; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_dataset_is_fetched_by_the_same_means(
    mirror: LoopbackMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {name: f"{name} of a dataset".encode() for name in ("train.gz", "test.gz")}
    urls = [mirror.add(f"/digits/{name}", content) for name, content in contents.items()]
    files = {name: (name, len(c), hashlib.sha256(c).hexdigest()) for name, c in contents.items()}
    monkeypatch.setattr(mmnist, "IDX_FILES", files)
    mirror.fail("*/test.gz", cut=5)
    mmnist.download_digits(tmp_path, urls[0].rpartition("/")[0] + "/")
    assert {name: (tmp_path / name).read_bytes() for name in contents} == contents
    asked = len(mirror.asked())
    mmnist.download_digits(tmp_path, urls[0].rpartition("/")[0])
    assert len(mirror.asked()) == asked == 3  # the cut one was resumed, and what is there is not asked for again


def test_a_proxy_is_used(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback_proxy() as (address, asked):
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("HTTPS_PROXY", address)
        place.get()
    assert place.target.read_bytes() == CONTENT
    assert asked == [urlsplit(place.url).netloc]


@pytest.mark.parametrize("fault", [{"rate": 3000}, {"stall": True, "cut": 9000}], ids=["slow", "silent"])
def test_a_mirror_that_sends_too_little_is_left(place: Place, fault: dict[str, Any], monkeypatch: Any) -> None:
    """What came is kept, and the next request goes on from there."""
    monkeypatch.setattr("hub.server.PIECE", 300)
    place.mirror.fail(times=1, **fault)
    before = time.monotonic()
    place.get(dataclasses.replace(QUICK, slowest=50_000, window=0.5))
    assert time.monotonic() - before < 15
    assert place.target.read_bytes() == CONTENT
    assert len(place.mirror.asked()) == 2


def test_a_mirror_that_stays_slow_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.server.PIECE", 1)
    place.mirror.fail(times=None, rate=100)
    with pytest.raises(DownloadError, match=r"2 requests in a row.* fewer than 5000 bytes a second for 0\.3 s"):
        place.get(dataclasses.replace(QUICK, attempts=2, slowest=5000, window=0.3))
    assert not place.target.exists()


@pytest.mark.parametrize("speaks", ["header", "nothing of TLS"])
def test_headers_and_handshakes_are_not_waited_for_without_end(
    speaks: str, mirror: LoopbackMirror, authority: trustme.CA, tmp_path: Path
) -> None:
    """A byte at a time, none of them late."""
    listener = socket.create_server(("127.0.0.1", 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def trickle() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                if speaks == "header":
                    connection = context.wrap_socket(connection, server_side=True)
                text = b"HTTP/1.1 200 OK\r\nX: " if speaks == "header" else b"\x16\x03\x03\x40\x00\x02"
                for byte in text + bytes([120]) * 100_000:
                    connection.send(bytes([byte]))
                    time.sleep(0.02)

    threading.Thread(target=trickle, daemon=True).start()
    url = f"https://127.0.0.1:{listener.getsockname()[1]}/a"
    before = time.monotonic()
    patience = dataclasses.replace(QUICK, attempts=1, slowest=5000, window=0.5)
    with listener, pytest.raises(DownloadError, match="fewer than 5000 bytes a second"):
        download(url, tmp_path / "a", SIZE, SHA256, patience, progress=False)
    assert time.monotonic() - before < 10


def _chain(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *_chain(error.__cause__), *_chain(error.__context__)]


@pytest.mark.parametrize(
    "fault",
    [{"status": 404}, {"status": 500}, {"cut": 100}, {"body": OTHER}, {"headers": {"Content-Encoding": "\x1b[31m"}}],
)
def test_no_error_behind_the_error_holds_what_is_secret(place: Place, fault: dict[str, Any]) -> None:
    """A traceback shows them all."""
    place.mirror.fail("*", times=None, **fault)
    place.mirror.add("/weights/a.safetensors?token=s3cret", CONTENT)
    there = place.url.replace("https://", "https://user:s3cret@") + "?token=s3cret"
    patience = dataclasses.replace(QUICK, attempts=2)
    for address in (there, "https://user:s3cret@127.0.0.1:1/a?token=s3cret", "http://user:s3cret@host/a"):
        with pytest.raises((DownloadError, IntegrityError)) as caught:
            place.get(patience, url=address)
        assert [each for each in _chain(caught.value) if "s3cret" in f"{each!r} {each}"] == []
        assert str(caught.value).isprintable()


def get_unknown(place: Place, sha256: str | None = None) -> None:
    """A download of which neither size nor, by default, sha256 is known."""
    download(place.url, place.target, None, sha256, QUICK, progress=False)


def test_an_unknown_file_is_taken_as_it_comes(place: Place) -> None:
    get_unknown(place)
    assert place.target.read_bytes() == CONTENT
    get_unknown(place)
    assert len(place.mirror.asked()) == 1
    assert sorted(p.name for p in place.target.parent.iterdir()) == [f".{place.target.name}.lock", place.target.name]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"cut": 200_000}, id="cut"),
        pytest.param({"cut": 200_000, "headers": {"ETag": '"one"'}}, id="cut, with a tag"),
        pytest.param({"cut": 0}, id="cut at once"),
        pytest.param({"status": 403, "headers": {"X-RateLimit-Remaining": "0"}}, id="no request left for now"),
        pytest.param({"status": 429}, id="429"),
    ],
)
def test_an_unknown_file_is_whole_after_a_fault(fault: dict[str, Any], place: Place) -> None:
    place.mirror.fail(**fault)
    get_unknown(place)
    assert place.target.read_bytes() == CONTENT
    assert len(place.mirror.asked()) == 2


def test_an_unknown_file_is_not_cut_by_the_watch(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no length is stated, the end of the connection is the end of the file, unless we ended it."""
    monkeypatch.setattr("hub.server.PIECE", 300)
    place.mirror.fail(headers={"Content-Length": None}, rate=3000)
    patience = dataclasses.replace(QUICK, slowest=20_000, window=1.0)
    download(place.url, place.target, None, None, patience, progress=False)
    assert place.target.read_bytes() == CONTENT
    assert len(place.mirror.asked()) > 1


def test_an_unknown_file_is_continued_by_another_process_if_its_tag_says_so(place: Place) -> None:
    place.mirror.fail(headers={"ETag": '"one"'}, cut=200_000)
    with pytest.raises(DownloadError):
        download(place.url, place.target, None, None, Patience(attempts=1, backoff=0.01), progress=False)
    there = place.part.stat().st_size
    assert there > 100_000
    get_unknown(place)
    assert (ranges(place.mirror)[-1], place.mirror.asked()[-1].headers["if-range"]) == (f"bytes={there}-", '"one"')
    assert place.target.read_bytes() == CONTENT


def test_an_unknown_file_begins_anew_if_nothing_says_that_it_is_the_same(place: Place) -> None:
    leave(place.part, OTHER[:1000])
    get_unknown(place)
    assert ranges(place.mirror) == [None]
    assert place.target.read_bytes() == CONTENT


def test_another_file_with_another_tag_is_not_mixed_in(place: Place) -> None:
    """A server that has another file by now answers If-Range with the whole of it."""
    place.mirror.fail(headers={"ETag": '"one"'}, body=OTHER, cut=200_000)
    place.mirror.fail(headers={"ETag": '"two"'}, ranges=False)
    get_unknown(place)
    assert place.target.read_bytes() == CONTENT


def test_a_known_hash_without_a_size(place: Place) -> None:
    get_unknown(place, SHA256)
    assert place.target.read_bytes() == CONTENT
    place.target.unlink()
    with pytest.raises(IntegrityError, match="expected 0000"):
        get_unknown(place, "0" * 64)
    assert not place.part.exists()


def test_an_unknown_file_may_not_fill_the_disk(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stzoo.download.MOST_UNKNOWN", SIZE - 1)
    with pytest.raises(DownloadError, match="an unknown one may have"):
        get_unknown(place)
    place.mirror.fail(headers={"Content-Length": None})
    with pytest.raises(DownloadError, match="sends more than"):
        get_unknown(place)
    assert not place.part.exists()
