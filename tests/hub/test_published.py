"""Published checkpoints by name, from a server that answers as GitHub's do, with files in the publishers' layouts."""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hub.server import LoopbackMirror
from safetensors import safe_open

import stzoo
from stzoo import hashing, weights
from stzoo.cli import main
from stzoo.download import Patience, _answer
from stzoo.errors import (
    DownloadError,
    IntegrityError,
    MismatchError,
    NotPublishedError,
    OfflineError,
    SpecError,
    UnknownModelError,
    WeightsError,
)
from stzoo.hub import cache
from stzoo.models import architecture_of, build
from stzoo.published import fetching, published, records, trust
from stzoo.spec import ModelSpec

pytestmark = pytest.mark.filterwarnings("error:.*does not behave")

SMALL = {"arch": "tau", "params": {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2}}
FRAMES = {
    "frames_in": 3, "frames_out": 3, "channels": 2, "height": 16, "width": 16, "value_range": [0.0, 1.0],
}  # fmt: skip
SPEC = ModelSpec.from_dict({**FRAMES, **SMALL})
NAME, FILE = "tau-kth.openstl-ep5", "kth-weights/tau.pth"
GIT = "tau-kth.official"


def their_names(spec: ModelSpec) -> dict[str, torch.Tensor]:
    """A module with random weights, its tensors under their published names."""
    torch.manual_seed(0)
    layout, found = architecture_of(spec).layouts["openstl"], {}
    for name, tensor in build(spec).state_dict().items():
        stem, leaf = name, ""
        if re.search(r"\.(weight|bias|running_mean|running_var|num_batches_tracked)$", name):
            stem, leaf = name.rsplit(".", 1)
        rule = next(rule for rule in layout.rules if re.fullmatch(rule.ours, stem))
        theirs = re.fullmatch(rule.ours, stem).expand(rule.theirs)
        found[f"{theirs}.{leaf}" if leaf else theirs] = tensor.reshape(rule.shape(tuple(tensor.shape)))
    found["dec.readout.weight"] *= 0.3  # forecasts stay within range, as those of trained models do
    return found


def saved(tmp_path: Path, content: Any, zipped: bool = True) -> bytes:
    torch.save(content, tmp_path / "theirs.pth", _use_new_zipfile_serialization=zipped)
    return (tmp_path / "theirs.pth").read_bytes()


@dataclass
class Publisher:
    """The server, and the bytes of the one file that it has."""

    server: LoopbackMirror
    content: bytes
    url: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def replaces(self, content: bytes) -> None:
        """Another file lies at the address from now on."""
        self.content = content
        for path in [p for p in self.server.files if p.endswith("/tau.pth")]:
            self.server.add(path, content)


@pytest.fixture
def publisher(mirror: LoopbackMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """Two records of one small file: one of which nothing is known, and one in a git tree."""
    content = saved(tmp_path, their_names(SPEC))
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    figures = {"mse": "1.5"}
    one = {"model": "tau", "dataset": "kth", "method": "TAU", "stated": "p:1", "figures": figures, "spec": SMALL}
    known = {**one, "file": f"a/b/c/{FILE}", "git": git}
    head = {"publisher": "openstl", "by": "OpenSTL", "page": "a page", "license": "none", "layout": "openstl"}
    files = {
        "datasets.json": {"datasets": {"kth": {"frames": FRAMES, "protocol": "as it is", "clip": None}}},
        "openstl.json": {
            **head, "address": f"{mirror.url}/download/", "files": {NAME: {**one, "epochs": 5, "file": FILE}},
        },
        "official.json": {**head, "publisher": "official", "address": f"{mirror.url}/raw/", "files": {GIT: known}},
    }  # fmt: skip
    monkeypatch.setattr(records, "_read", files.__getitem__)
    published.cache_clear()
    for path in (f"/download/{FILE}", f"/raw/a/b/c/{FILE}"):
        url = mirror.add(path, content)
    yield Publisher(mirror, content, url)
    monkeypatch.undo()
    published.cache_clear()


def quiet(name: str = NAME, **arguments: Any) -> Any:
    """`stzoo.load` without a bar."""
    return stzoo.load(name, progress=False, **arguments)


def test_it_is_downloaded_converted_and_found_again(publisher: Publisher, own_home: Path) -> None:
    model = quiet()
    assert model.spec == SPEC
    assert (len(publisher.server.asked()), model.report.source) == (
        1,
        str(own_home / "published" / f"{NAME}.safetensors"),
    )
    ours = model.module.state_dict()
    assert torch.equal(ours["decoder.readout.weight"], their_names(SPEC)["dec.readout.weight"])
    again = quiet(offline=True)
    assert all(torch.equal(t, ours[k]) for k, t in again.module.state_dict().items())
    assert len(publisher.server.asked()) == 1
    kept = sorted(p.name for p in (own_home / "published").iterdir() if not p.name.startswith("."))
    assert kept == [f"{NAME}.json", f"{NAME}.safetensors"]  # nothing else of the file is kept
    with safe_open(own_home / "published" / f"{NAME}.safetensors", "pt") as file:
        origin = json.loads(file.metadata()["stzoo_origin"])
        assert ModelSpec.from_dict(json.loads(file.metadata()["stzoo_spec"])) == SPEC
    assert origin["sha256"] == publisher.sha256
    assert origin["url"].endswith(FILE)
    assert stzoo.load(own_home / "published" / f"{NAME}.safetensors").spec == SPEC  # the file alone


def layouts() -> dict[str, Callable[[dict[str, torch.Tensor]], Any]]:
    return {
        "state_dict": lambda tensors: {"epoch": 5, "state_dict": tensors, "optimizer": {"lr": 0.1}},
        "module.": lambda tensors: {f"module.{k}": t for k, t in tensors.items()},
        "model_state_dict": lambda tensors: {"model_state_dict": tensors, "args": {"lr": 0.1}},
        "net_param": lambda tensors: {"net_param": tensors},
        "_orig_mod. and module.": lambda tensors: {f"_orig_mod.module.{k}": t for k, t in tensors.items()},
        "model. in state_dict": lambda tensors: {"state_dict": {f"model.{k}": t for k, t in tensors.items()}},
    }


@pytest.mark.parametrize("layout", layouts())
def test_every_layout_is_read(layout: str, publisher: Publisher, tmp_path: Path) -> None:
    publisher.replaces(saved(tmp_path, layouts()[layout](their_names(SPEC))))
    assert quiet().spec == SPEC


def test_the_format_before_zip_is_read(publisher: Publisher, tmp_path: Path) -> None:
    publisher.replaces(saved(tmp_path, their_names(SPEC), zipped=False))
    assert quiet().spec == SPEC


def test_a_release_redirects_to_another_host(publisher: Publisher) -> None:
    server = publisher.server
    other = server.add("/objects/1", publisher.content)
    server.redirect(f"/download/{FILE}", f"{other}?token=secret")
    server.files["/objects/1?token=secret"] = publisher.content
    assert quiet().spec == SPEC
    assert "secret" not in trust.pin_file(NAME).read_text()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"cut": 9_000}, id="cut"),
        pytest.param({"cut": 9_000, "headers": {"ETag": '"a"'}}, id="cut, with a tag"),
        pytest.param({"status": 429, "headers": {"Retry-After": "0"}}, id="rate limit"),
        pytest.param({"status": 403, "headers": {"X-RateLimit-Remaining": "0"}}, id="rate limit of an address"),
        pytest.param({"status": 500}, id="500"),
        pytest.param({"headers": {"Content-Length": None}}, id="no length"),
    ],
)
def test_what_goes_wrong_once_does_not_matter(fault: dict[str, Any], publisher: Publisher) -> None:
    publisher.server.fail(**fault)
    assert quiet().report.sha256 is not None
    assert trust.read_pin(NAME).sha256 == publisher.sha256


def test_a_file_that_is_not_there_and_a_mirror_that_has_it(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.server.fail("/download/*", status=404, times=None)
    with pytest.raises(DownloadError, match=r"cannot fetch tau-kth.*status 404.*mirror of the file tau\.pth"):
        quiet()
    publisher.server.add("/mine/tau.pth", publisher.content)
    monkeypatch.setenv("STZOO_MIRRORS", f"{publisher.server.url}/mine/")
    assert quiet().spec == SPEC


def test_offline(publisher: Publisher, own_home: Path) -> None:
    with pytest.raises(OfflineError, match="not on this machine"):
        quiet(offline=True)
    assert not publisher.server.asked()
    assert not own_home.exists()


def test_the_first_download_is_pinned_and_another_file_is_refused(
    publisher: Publisher, own_home: Path, tmp_path: Path
) -> None:
    quiet()
    assert trust.read_pin(NAME).sha256 == publisher.sha256
    cache.clear()
    assert not (own_home / "published" / f"{NAME}.safetensors").exists()
    first = publisher.content
    publisher.replaces(
        saved(tmp_path, {k: t + 1 if t.is_floating_point() else t for k, t in their_names(SPEC).items()})
    )
    with pytest.raises(IntegrityError, match=r"no address has the right file.*expected.*remove .*tau-kth"):
        quiet()
    publisher.replaces(first)
    assert quiet().spec == SPEC
    trust.pin_file(NAME).write_text("{")
    with pytest.raises(IntegrityError, match="is damaged"):
        quiet()


def test_a_pinned_file_that_was_cut_is_not_taken_for_another(publisher: Publisher, tmp_path: Path) -> None:
    """As by a proxy that states no length. A file of another size is another one, whatever its server states."""
    quiet()
    cache.clear("published")
    publisher.server.fail("/download/*", cut=9_000, headers={"Content-Length": None})
    assert quiet().spec == SPEC
    assert len(publisher.server.asked()) == 3
    for headers in ({}, {"Content-Length": None}):
        cache.clear()
        publisher.server.fail("/download/*", body=publisher.content + b"more", headers=headers)
        with pytest.raises(IntegrityError, match=r"no address has the right file.*expected.*remove .*tau-kth"):
            quiet()


def test_a_download_that_runs_outlives_a_cleared_cache(
    publisher: Publisher, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.server.PIECE", 1000)
    publisher.server.fail("/download/*", rate=len(publisher.content) / 2)  # for two seconds
    hidden = own_home / "published" / f".{NAME}.download"
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(quiet)
        while not (hidden / f".{NAME}.pth.part").exists() and not running.done():
            time.sleep(0.01)
        for path in hidden.iterdir():
            os.utime(path, (0, 0))  # as after more than ten minutes
        cache.clear()
        assert running.result().spec == SPEC
    assert len(publisher.server.asked()) == 1
    assert not hidden.exists()


def test_a_user_may_pin_the_file(publisher: Publisher) -> None:
    with pytest.raises(IntegrityError, match="expected " + "0" * 64):
        quiet(sha256="0" * 64)
    assert trust.read_pin(NAME) is None  # nothing was trusted
    with pytest.raises(SpecError, match="64 hexadecimal digits"):
        quiet(sha256="abc")
    assert quiet(sha256=publisher.sha256).spec == SPEC
    with pytest.raises(IntegrityError, match="the first download of"):
        quiet(sha256="0" * 64)
    with pytest.raises(WeightsError, match="sha256 pins the file of a published checkpoint"):
        stzoo.load("tau-mmnist", sha256=publisher.sha256)


def test_git_knows_the_file(publisher: Publisher, tmp_path: Path) -> None:
    right = publisher.content
    publisher.replaces(saved(tmp_path, {k: t * 2 for k, t in their_names(SPEC).items()}))
    with pytest.raises(IntegrityError, match="is git object"):
        quiet(GIT)
    publisher.replaces(right)
    assert quiet(GIT).spec == SPEC


def test_a_damaged_conversion_is_made_anew(publisher: Publisher, own_home: Path) -> None:
    quiet()
    file = own_home / "published" / f"{NAME}.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    [(kept, bad)] = [row for row in cache.verified() if row[0].kind == "published"]
    assert (kept.name, kept.origin, bad) == (NAME, publisher.sha256, (file,))
    quiet()
    file.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged and is made anew") as caught:
        assert stzoo.load(NAME, progress=False).spec == SPEC
    assert {w.filename for w in caught} == {__file__}  # the caller's line, not one of stzoo's


def test_what_is_no_checkpoint_leaves_nothing(publisher: Publisher, own_home: Path, tmp_path: Path) -> None:
    for content in (b"<html>no such page</html>", saved(tmp_path, {"dec.readout.weight": torch.zeros(2)})):
        publisher.replaces(content)
        with pytest.raises((WeightsError, MismatchError)):
            quiet()
        assert trust.read_pin(NAME) is None
        assert [p for p in (own_home / "published").iterdir() if not p.name.startswith(".")] == []


def test_where_facts_contradict_each_other_the_file_decides(publisher: Publisher, tmp_path: Path) -> None:
    wider = SPEC.replace(hid_t=16)
    publisher.replaces(saved(tmp_path, their_names(SPEC.replace(channels=3))))
    with pytest.raises(MismatchError, match="frames of 3 channels, not of 2"):
        quiet()
    other = ModelSpec.from_dict({**FRAMES, **SMALL, "arch": "simvp"})
    publisher.replaces(saved(tmp_path, their_names(other)))
    with pytest.raises(MismatchError, match="holds a model with arch simvp, not 'tau'"):
        quiet()
    publisher.replaces(saved(tmp_path, their_names(wider)))
    assert quiet().spec == wider
    assert quiet(offline=True).spec == wider


def test_a_model_that_forecasts_nothing_is_reported(publisher: Publisher, tmp_path: Path) -> None:
    quiet()
    trust.pin_file(NAME).unlink()
    cache.clear("published")
    publisher.replaces(saved(tmp_path, {k: torch.zeros_like(t) for k, t in their_names(SPEC).items()}))
    with pytest.warns(UserWarning, match="does not behave as published: on drifting blobs it forecasts flat frames"):
        quiet()


def test_names_that_are_none(publisher: Publisher) -> None:
    with pytest.raises(UnknownModelError, match="did you mean tau-kth.openstl-ep5"):
        quiet("tau-kth.openstl-ep6")
    with pytest.raises(WeightsError, match="revision"):
        quiet(revision="main")
    with pytest.raises(NotPublishedError, match="stzoo train lmc-mmnist"):
        quiet("lmc-mmnist")


def test_the_command_line_verifies_and_lists(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "verify", NAME, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]
    assert main(["cache", "list"]) == 0
    assert f"of a file with sha256 {publisher.sha256}" in capsys.readouterr().out
    assert main(["cache", "clear", NAME]) == 0
    assert main(["cache", "list", "--json"]) == 0
    assert NAME not in capsys.readouterr().out
    assert main(["published", "verify", "tau-mmnist"]) == 2
    assert "stzoo catalog verify" in capsys.readouterr().err


def test_an_entry_takes_what_others_published_and_says_so(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = stzoo.info("tau-kth")
    object.__setattr__(published()[NAME], "described", {"arch": "tau", "params": dict(entry.spec.params)})
    object.__setattr__(published()[NAME], "frames", {k: entry.spec.to_dict()[k] for k in FRAMES})
    with pytest.raises(OfflineError, match=NAME):
        stzoo.load("tau-kth", offline=True)
    said = capsys.readouterr().err
    assert (
        said
        == f"tau-kth has no weights of its own; these are {NAME} by OpenSTL (MSE 1.5 by its publisher's measurement)\n"
    )


def test_from_pretrained_knows_the_names_as_well(publisher: Publisher) -> None:
    assert stzoo.Forecaster.from_pretrained(NAME).spec == SPEC


WRONG = {
    "a web page": {"body": b"<!DOCTYPE html><html>Sign in</html>"},
    "a pointer of git-lfs": {"body": b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"},
    "an empty answer": {"body": b""},
    "a text": {"body": b"rate limit"},
    "cut off after 9,000 bytes": {"cut": 9_000, "headers": {"Content-Length": None}},
}


@pytest.mark.parametrize("what", WRONG)
def test_something_else_than_the_file_is_called_what_it_is(
    what: str, publisher: Publisher, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.server.fail("/download/*", times=None, **WRONG[what])
    url = f"{publisher.server.url}/download/{FILE}"
    with pytest.raises(WeightsError, match=f"{re.escape(url)}: sent .*{what}") as caught:
        quiet()
    said = str(caught.value)
    assert said.count(url) == 1
    assert "opcode" not in said
    assert str(own_home) not in said
    assert f"stzoo convert openstl FILE --model {NAME} --out DIR" in said
    publisher.server.add("/mine/tau.pth", publisher.content)
    monkeypatch.setenv("STZOO_MIRRORS", f"{publisher.server.url}/mine/")
    assert quiet().spec == SPEC
    assert trust.read_pin(NAME).url == f"{publisher.server.url}/mine/tau.pth"


def test_a_file_in_the_cache_folder_is_neither_taken_nor_removed(publisher: Publisher, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / f"{NAME}.pth").write_bytes(saved(tmp_path, {k: t * 2 for k, t in their_names(SPEC).items()}))
    content = (folder / f"{NAME}.pth").read_bytes()
    quiet(cache_dir=folder)
    assert len(publisher.server.asked()) == 1
    assert trust.read_pin(NAME).sha256 == publisher.sha256
    assert (folder / f"{NAME}.pth").read_bytes() == content
    assert not [path for path in folder.iterdir() if path.name.endswith(".download")]


def test_a_saved_model_keeps_its_origin(publisher: Publisher, tmp_path: Path) -> None:
    quiet().save_pretrained(tmp_path / "a")
    stzoo.load(tmp_path / "a").save_pretrained(tmp_path / "b")
    for folder in (tmp_path / "a", tmp_path / "b"):
        card = (folder / "README.md").read_text()
        for part in (NAME, "OpenSTL", trust.read_pin(NAME).url, publisher.sha256, "mse 1.5. These figures are theirs"):
            assert part in card
        assert "Licence of the weights: none." in card
        assert "license_name: none" in card
    model = stzoo.load(tmp_path / "b")
    with torch.no_grad():
        next(model.module.parameters()).add_(1)
    model.save_pretrained(tmp_path / "c")
    stzoo.load(tmp_path / "c").save_pretrained(tmp_path / "d")
    card = (tmp_path / "d" / "README.md").read_text()
    assert f"began as those of {NAME}" in card
    assert "1.5" not in card


@pytest.mark.parametrize("how", ["the file is gone", "it was saved over the file, twice"])
def test_an_origin_that_cannot_be_compared_is_not_said_to_be_changed(
    how: str, publisher: Publisher, tmp_path: Path
) -> None:
    quiet().save_pretrained(tmp_path / "a")
    file = tmp_path / "a" / "model.safetensors"
    origin = stzoo.load(file).report.origin
    weights.save_weights(file, SPEC, weights.half_precision(stzoo.load(file).module.state_dict()), origin)
    model = stzoo.load(tmp_path / "a")
    if how == "the file is gone":
        file.unlink()
    else:
        model.save_pretrained(tmp_path / "a")
        assert "mse 1.5" in (tmp_path / "a" / "README.md").read_text()
    model.save_pretrained(tmp_path / "a")
    stzoo.load(tmp_path / "a").save_pretrained(tmp_path / "b")
    for folder in (tmp_path / "a", tmp_path / "b"):
        found = stzoo.load(folder).report.origin
        assert (found.changed, found.name, found.sha256) == (None, NAME, publisher.sha256)
        card = (folder / "README.md").read_text()
        assert "whether they were changed since is not known" in card
        assert "and were changed since" not in card
        assert "1.5" not in card
    model = stzoo.load(tmp_path / "b")
    next(model.module.parameters()).data.add_(1)
    model.save_pretrained(tmp_path / "c")
    assert stzoo.load(tmp_path / "c").report.origin.changed is True


def test_nothing_is_read_or_hashed_twice(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    count, read = [], fetching.read
    monkeypatch.setattr(weights, "read", None)  # the loader takes the tensors whose bytes were hashed
    monkeypatch.setattr(fetching, "read", lambda path: count.append(path) or read(path))
    first = quiet()
    assert not count  # the tensors that were written are those of the model
    second = quiet()
    assert len(count) == 1
    found = fetching.find(NAME)
    models = [stzoo.Forecaster.from_files(found, NAME)]
    assert not found.held
    monkeypatch.setattr(weights, "read", read)
    models.append(stzoo.Forecaster.from_files(found, NAME))  # whoever comes later reads the file, and shares no memory
    first_tensors = [next(model.module.parameters()) for model in models]
    assert torch.equal(*first_tensors)
    assert first_tensors[0].data_ptr() != first_tensors[1].data_ptr()
    assert first.report.sha256 == second.report.sha256 == hashing.file_sha256(Path(second.report.source))


@pytest.mark.filterwarnings("ignore:.*is in the way of")
@pytest.mark.parametrize("kind", ["fifo", "folder", "link"])
@pytest.mark.parametrize(
    "place", ["{}.json", "{}.safetensors", ".{}.safetensors.lock", ".{}.download/.{}.pth.part", ".{}.download"]
)
def test_what_is_no_file_is_never_waited_for(kind: str, place: str, publisher: Publisher, own_home: Path) -> None:
    quiet()
    in_the_way = own_home / "published" / place.format(NAME, NAME)
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.unlink(missing_ok=True)
    if "download" in place:
        (own_home / "published" / f"{NAME}.json").unlink()
    {"fifo": os.mkfifo, "folder": os.mkdir, "link": lambda path: os.symlink("nowhere", path)}[kind](in_the_way)
    cache.listed()
    cache.verified()
    assert quiet().spec == SPEC


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path)])
def test_a_pin_that_is_no_file_is_an_error(make: Callable[[Path], None], publisher: Publisher) -> None:
    trust.pin_file(NAME).parent.mkdir(parents=True)
    make(trust.pin_file(NAME))
    with pytest.raises(IntegrityError, match=r"pins/tau-kth.*emove it"):
        quiet()


def test_a_lost_pin_comes_back_from_the_converted_file(publisher: Publisher) -> None:
    quiet()
    pin = trust.read_pin(NAME)
    trust.pin_file(NAME).unlink()
    assert quiet(offline=True, sha256=publisher.sha256.upper()).spec == SPEC
    assert trust.read_pin(NAME) == pin


def test_a_public_host_does_not_lead_into_the_private_network() -> None:
    class Session:
        def get(self, url: str, **_: Any) -> Any:
            answer = type("Answer", (), {"is_redirect": True, "close": lambda self: None})()
            answer.headers = {"Location": "https://192.168.1.1/router"}
            return answer

    with pytest.raises(DownloadError, match="which is in the private network"):
        _answer(Session(), "https://example.org/a", {}, Patience())


def test_each_retry_is_said(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    publisher.server.fail(status=429, headers={"Retry-After": "0"})
    stzoo.load(NAME)
    assert "tau.pth: status 429; retry 1 of 4 in" in capsys.readouterr().err


def test_offline_and_names(publisher: Publisher) -> None:
    with pytest.raises(OfflineError, match="--model " + NAME):
        quiet(offline=True)
    for name in ("tau-kth.nobody-ep100", "TAU-KTH.openstl-ep5", "tau-kth.openstl"):
        with pytest.raises(UnknownModelError, match=f"did you mean .*{NAME}.*stzoo list --published") as caught:
            quiet(name)
        assert len(str(caught.value)) < 250
    with pytest.raises(WeightsError, match="give it as text"):
        stzoo.load(Path(NAME))


def test_verify_says_what_it_shows(publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "verify", "tau-kth"]) == 0  # the file that the entry takes
    said = capsys.readouterr()
    assert "This does not show that the weights are trained" in said.out
    assert "forecasting 8 drawn clips of 3 frames each" in said.err
    trust.pin_file(NAME).unlink()
    cache.clear("published")
    publisher.replaces(saved(tmp_path, {k: torch.zeros_like(t) for k, t in their_names(SPEC).items()}))
    assert main(["published", "verify", NAME]) == 2
    assert capsys.readouterr().err.count("does not behave as published") == 1
