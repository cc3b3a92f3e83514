"""Where a catalogue entry's file comes from: the package, the cache, hubs, addresses, mirrors, in this order."""

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hub.hf_server import LoopbackHub
from hub.server import LoopbackMirror

import stzoo
from stzoo import catalog, hub
from stzoo.errors import (
    DownloadError,
    IntegrityError,
    NotPublishedError,
    OfflineError,
    UnknownModelError,
    WeightsError,
)
from stzoo.forecaster import Forecaster
from stzoo.hashing import Hashed
from stzoo.hub import sources
from stzoo.published.fetching import find
from stzoo.weights import half_precision, save_weights

FILE = "one.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class One:
    """A catalogue of one entry, "one", whose file can be put at each of its sources, right or damaged."""

    def __init__(self, content: bytes, spec: stzoo.ModelSpec, package: Path, home: Path):
        self.content, self.spec, self.package = content, spec, package / FILE
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.damaged = content[:-1] + bytes([content[-1] ^ 1])
        self.cached = home / "weights" / f"{self.sha256}.safetensors"
        self.sources: tuple[str, ...] = ("package",)

    def entry(self) -> catalog.Entry:
        weights = catalog.WeightsFile(file=FILE, size=len(self.content), sha256=self.sha256, sources=self.sources)
        return catalog.Entry(
            name="one", summary="", dataset="", spec=self.spec, weights=weights, license="", data_terms="", citation=""
        )

    def cache(self, content: bytes) -> None:
        self.cached.parent.mkdir(parents=True, exist_ok=True)
        self.cached.write_bytes(content)

    def from_hub(self, server: LoopbackHub, content: bytes) -> str:
        """A source: a repository that holds this."""
        config = json.dumps(self.spec.to_dict()).encode()
        source = f"hf://user/one@{server.add('user/one', {'model.safetensors': content, 'config.json': config})}"
        self.sources += (source,)
        return source

    def from_mirror(self, mirror: LoopbackMirror, content: bytes, folder: str = "/zoo") -> str:
        """A source: an address that has this."""
        self.sources += (url := mirror.add(f"{folder}/{FILE}", content),)
        return url


@pytest.fixture
def one(forecaster: Forecaster, tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> One:
    save_weights(tmp_path / FILE, forecaster.spec, half_precision(forecaster.module.state_dict()))
    package = tmp_path / "package"
    package.mkdir()
    made = One((tmp_path / FILE).read_bytes(), forecaster.spec, package, own_home)
    monkeypatch.setattr(catalog, "entries", lambda: MappingProxyType({"one": made.entry()}))
    monkeypatch.setattr(catalog, "CHECKPOINTS", package)
    return made


Load = Callable[[], tuple[Path, list[str]]]


@pytest.fixture
def load(one: One) -> Load:
    """Load "one": the file it came from, and what was warned of."""

    def call() -> tuple[Path, list[str]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = stzoo.load("one", progress=False)
        assert model.report.sha256 == one.sha256
        return Path(model.report.source), [str(w.message) for w in caught if w.category is UserWarning]

    return call


def test_the_package_comes_first(one: One, load: Load, mirror: LoopbackMirror, hub_server: LoopbackHub) -> None:
    one.package.write_bytes(one.content)
    one.cache(one.content)
    one.from_hub(hub_server, one.content)
    one.from_mirror(mirror, one.content)
    assert load() == (one.package, [])
    assert not hub_server.requests
    assert not mirror.requests


def test_the_cache_comes_second(one: One, load: Load, mirror: LoopbackMirror, hub_server: LoopbackHub) -> None:
    one.cache(one.content)
    one.from_hub(hub_server, one.content)
    one.from_mirror(mirror, one.content)
    assert load() == (one.cached, [])
    assert not hub_server.requests
    assert not mirror.requests


def test_hubs_come_third_then_addresses(
    one: One, mirror: LoopbackMirror, hub_server: LoopbackHub, tmp_path: Path
) -> None:
    one.from_mirror(mirror, one.content)
    one.from_hub(hub_server, one.content)
    found = hub.resolve("one", cache_dir=tmp_path / "a", progress=False).path
    assert found.name == "model.safetensors"
    assert found.is_relative_to(tmp_path / "a" / "models--user--one")
    assert not mirror.requests
    hub_server.clear()
    assert hub.resolve("one", cache_dir=tmp_path / "b", progress=False).path == tmp_path / "b" / one.cached.name
    assert hub_server.asked("/user/one/*", "HEAD")
    assert len(mirror.asked()) == 1


def test_mirrors_of_the_environment_come_last_in_their_order(
    one: One, load: Load, mirror: LoopbackMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = one.from_mirror(mirror, one.content, "/address")
    del mirror.files[f"/address/{FILE}"]
    mirror.add(f"/second/{FILE}", one.content)
    mirror.add(f"/third/{FILE}", one.content)
    monkeypatch.setenv("STZOO_MIRRORS", f" {mirror.url}/first/\n{mirror.url}/second  {mirror.url}/third ")
    assert load() == (one.cached, [])
    assert address == mirror.url + mirror.requests[0].path
    assert [r.path for r in mirror.requests] == [f"/{folder}/{FILE}" for folder in ("address", "first", "second")]


def test_a_download_is_kept_and_not_asked_for_again(one: One, load: Load, mirror: LoopbackMirror) -> None:
    one.from_mirror(mirror, one.content)
    assert load() == (one.cached, [])
    assert one.cached.read_bytes() == one.content
    seen = len(mirror.requests)
    assert load() == (one.cached, [])
    assert len(mirror.requests) == seen


def test_a_damaged_package_is_warned_of_and_the_next_source_taken(one: One, load: Load, mirror: LoopbackMirror) -> None:
    one.package.write_bytes(one.damaged)
    one.from_mirror(mirror, one.content)
    found, (warned,) = load()
    assert found == one.cached
    assert warned.startswith("the package: ")
    assert f"expected {one.sha256}; trying the next source" in warned
    assert one.package.exists()  # which is not ours to remove


def test_a_damaged_file_in_the_cache_is_replaced(one: One, load: Load, mirror: LoopbackMirror) -> None:
    one.cache(one.damaged)
    one.from_mirror(mirror, one.content)
    found, (warned,) = load()
    assert found == one.cached
    assert warned.startswith("the cache: ")
    assert one.cached.read_bytes() == one.content
    assert load() == (one.cached, [])


def test_a_damaged_file_of_a_hub_is_removed_and_the_next_source_taken(
    one: One, load: Load, mirror: LoopbackMirror, hub_server: LoopbackHub, tmp_path: Path
) -> None:
    source = one.from_hub(hub_server, one.damaged)
    one.from_mirror(mirror, one.content)
    cache = tmp_path / "cache"
    with pytest.warns(UserWarning, match=f"{source}: .*trying the next source"):
        found = hub.resolve("one", cache_dir=cache, progress=False)
    assert found.path == cache / one.cached.name
    assert not [p for p in cache.rglob("*") if p.is_file() and p.read_bytes() == one.damaged]
    assert not list(cache.rglob("snapshots/*/model.safetensors"))


def test_a_wrong_body_from_an_address_is_warned_of_and_the_next_taken(
    one: One, load: Load, mirror: LoopbackMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = one.from_mirror(mirror, one.damaged)
    mirror.add(f"/good/{FILE}", one.content)
    monkeypatch.setenv("STZOO_MIRRORS", f"{mirror.url}/good")
    found, (warned,) = load()
    assert found == one.cached
    assert warned.startswith(url)


def test_when_all_fail_one_error_lists_them_in_order(
    one: One, mirror: LoopbackMirror, hub_server: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.sources += (missing := f"hf://user/none@{COMMIT}",)
    gone = one.from_mirror(mirror, one.content, "/gone")
    mirror.files.clear()
    monkeypatch.setenv("STZOO_MIRRORS", f"{mirror.url}/mirror")
    places = ("the package", "the cache", missing, gone, f"{mirror.url}/mirror/{FILE}")
    with pytest.raises(DownloadError) as raised:
        stzoo.load("one", progress=False)
    message, at = str(raised.value), -1
    for number, place in enumerate(places, 1):
        assert (at := message.find(f"({number}) {place}: ", at + 1)) > 0
    assert f"no source has {FILE} with sha256 {one.sha256}" in message
    assert f"put the file at {one.cached}" in message
    one.package.write_bytes(one.damaged)
    with pytest.warns(UserWarning, match="trying the next"), pytest.raises(IntegrityError, match=r"\(5\) https"):
        stzoo.load("one", progress=False)


@pytest.mark.parametrize("variable", ["", "STZOO_OFFLINE", "HF_HUB_OFFLINE"], ids=["argument", "own", "hub's"])
def test_offline_asks_nobody(
    one: One, mirror: LoopbackMirror, hub_server: LoopbackHub, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    one.from_hub(hub_server, one.content)
    one.from_mirror(mirror, one.content)
    monkeypatch.setenv("STZOO_MIRRORS", f"{mirror.url}/mirror")
    if variable:
        monkeypatch.setenv(variable, "1")
    with pytest.raises(OfflineError, match=r"\(3\) hf://.*the network is off.*\(5\).*allow the network"):
        stzoo.load("one", offline=None if variable else True)
    assert not mirror.requests
    assert not hub_server.requests
    one.package.write_bytes(one.content)
    assert stzoo.load("one", offline=True).report.sha256 == one.sha256


@pytest.mark.parametrize("base", ["http://127.0.0.1/zoo", "ftp://127.0.0.1/zoo", "/zoo", "127.0.0.1/zoo"])
def test_a_mirror_that_is_no_https_address_is_refused(
    one: One, hub_server: LoopbackHub, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    monkeypatch.setenv("STZOO_MIRRORS", base.replace("127.0.0.1", hub_server.url.partition("//")[2]))
    with pytest.raises(DownloadError, match="is not an https address"):
        stzoo.load("one")
    assert not hub_server.requests


@pytest.mark.parametrize("place", ["package", "cached"])
def test_a_link_that_leads_out_of_its_folder_is_not_followed(one: One, tmp_path: Path, place: str) -> None:
    outside, link = tmp_path / "outside", getattr(one, place)
    outside.write_bytes(one.content)  # even the right bytes: what lies elsewhere may change after it was verified
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(DownloadError, match="is a link out of its folder"):
        stzoo.load("one")
    assert outside.read_bytes() == one.content


def test_a_download_replaces_a_link_and_leaves_its_target_alone(
    one: One, load: Load, mirror: LoopbackMirror, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(one.damaged)
    one.cached.parent.mkdir(parents=True)
    one.cached.symlink_to(outside)
    one.from_mirror(mirror, one.content)
    found, _ = load()
    assert found == one.cached
    assert not one.cached.is_symlink()
    assert outside.read_bytes() == one.damaged


def test_a_download_replaces_a_link_even_to_the_right_bytes(
    one: One, load: Load, mirror: LoopbackMirror, tmp_path: Path
) -> None:
    (outside := tmp_path / "outside").write_bytes(one.content)
    one.cached.parent.mkdir(parents=True)
    one.cached.symlink_to(outside)
    one.from_mirror(mirror, one.content)
    assert load() == (one.cached, [])
    assert not one.cached.is_symlink()
    assert outside.read_bytes() == one.content


def test_a_file_that_cannot_be_read_is_no_reason_to_give_up(
    one: One, load: Load, mirror: LoopbackMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.package.write_bytes(one.content)
    one.from_mirror(mirror, one.content)
    read = sources.hashed

    def forbidden(path: Path) -> Hashed:
        if path == one.package:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(sources, "hashed", forbidden)
    assert load() == (one.cached, [])


def test_a_cache_of_ones_own_is_used(one: One, mirror: LoopbackMirror, tmp_path: Path) -> None:
    one.from_mirror(mirror, one.content)
    found = hub.resolve("one", cache_dir=tmp_path / "mine", progress=False)
    assert found.path == tmp_path / "mine" / one.cached.name
    assert not one.cached.exists()


def test_a_cache_below_the_home_of_nobody_is_a_folder(
    one: One, mirror: LoopbackMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a source of such a name is."""
    monkeypatch.chdir(tmp_path)
    one.from_mirror(mirror, one.content)
    for ask in (hub.resolve, find):
        found = ask("one", cache_dir="~nobody-of-this-name/x", progress=False)
        assert found.path == Path("~nobody-of-this-name", "x", one.cached.name)
    with pytest.raises(OfflineError):
        find("tau-kth.openstl-ep100", cache_dir="~nobody-of-this-name/x", offline=True)


def test_a_catalogue_name_loads_the_packaged_file(one: One, frames: np.ndarray, forecaster: Forecaster) -> None:
    one.package.write_bytes(one.content)
    model = stzoo.load("one")
    assert model.report.sha256 == one.sha256
    assert "float16" in repr(model)


def test_one_flipped_bit_is_found(one: One) -> None:
    one.package.write_bytes(one.damaged)
    with pytest.warns(UserWarning, match="the package"), pytest.raises(IntegrityError, match="sha256 .*, expected .*"):
        stzoo.load("one")
    one.package.unlink()
    with pytest.raises(DownloadError, match=r"is not there.*reinstall stzoo"):
        stzoo.load("one")


def test_no_random_weights_under_a_pretrained_name() -> None:
    with pytest.raises(NotPublishedError, match="stzoo train lmc-mmnist"):
        stzoo.load("lmc-mmnist")
    assert "random weights" in repr(stzoo.load("tau-mmnist", pretrained=False))


def test_sources_that_are_none(tmp_path: Path) -> None:
    for source, error, message in (
        ("hf://nobody", WeightsError, "no hub source"),
        ("hf://a/../b", WeightsError, "no hub source"),
        ("hf://a/b@../../c", WeightsError, "no hub source"),
        (tmp_path / "nothing", WeightsError, "no folder"),
        ("./nothing", WeightsError, "no folder"),
        ("user/model", WeightsError, "hf://user/model"),
        (tmp_path / "a.safetensors", WeightsError, "does not exist"),
        (tmp_path, WeightsError, "holds no config.json"),
        ("nothing", UnknownModelError, "no model"),
        ("\ud800", UnknownModelError, "no model"),
        ("x" * 300 + "/a", WeightsError, "no folder"),
        ("x" * 300 + ".safetensors", WeightsError, "does not exist"),
        ("~nobody-of-this-name/x", WeightsError, "no folder"),
        ("a\0/b", WeightsError, "no folder"),
        ("x" * 5000, WeightsError, "neither a name nor a path"),
    ):
        with pytest.raises(error, match=message):
            stzoo.load(source)


@pytest.mark.skipif(sys.platform != "linux", reason="where names are text")
def test_a_folder_whose_name_is_no_text_is_an_error_of_ours(forecaster: Forecaster, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    forecaster.save_pretrained(folder)
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):  # whose library takes UTF-8 alone
        stzoo.load(str(folder))


@pytest.mark.parametrize("source", ["tau-mmnist", "./folder", f"hf://user/model@{COMMIT}"])
def test_a_revision_is_never_silently_ignored(source: str) -> None:
    with pytest.raises(WeightsError, match="revision 'v2' has no meaning"):
        stzoo.load(source, revision="v2")


@pytest.mark.parametrize(
    "source",
    ["hf://a/b@main", "hf://a/b", "http://host/a.safetensors", "https://user:secret@host/a.safetensors",
     "https://host/a.safetensors?token=secret", "https://host/../a.safetensors", "https://host/a.bin", "a.safetensors"],
)  # fmt: skip
def test_a_source_that_is_not_pinned_or_not_public_is_refused_by_the_catalogue(source: str) -> None:
    with pytest.raises(stzoo.StzooError, match="40 hex"):
        catalog.WeightsFile(file="a.safetensors", size=1, sha256="0" * 64, sources=(source,))
