"""What a hub can do wrong, through huggingface_hub as it is: the right model, or an error that says what to do."""

import json
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub.hf_server import LoopbackHub
from hub.shared import WEIGHTS, Load, sha256_of

import stzoo
from stzoo.catalog import CHECKPOINTS
from stzoo.errors import DownloadError, IntegrityError, OfflineError, SpecError, WeightsError
from stzoo.forecaster import Forecaster
from stzoo.hub import huggingface
from stzoo.hub.cache import clear, verified
from stzoo.opening import create

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RESOLVED = "*/resolve/*/model.safetensors"  # where weights are asked for


def weights_in(cache: Path) -> list[Path]:
    """Snapshots' links, and blobs called by a sha256, whole or in parts."""
    return [*cache.rglob("snapshots/*/model.safetensors"), *(p for p in cache.rglob("blobs/*") if len(p.name) >= 64)]


def test_a_repository_loads_at_its_commit(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load, forecaster: Forecaster, frames: np.ndarray
) -> None:
    commit = hub_server.add("user/model", files)
    for source in (f"hf://user/model@{commit}", "hf://user/model", "hf://user/model@main"):
        np.testing.assert_array_equal(load(source).predict(frames), forecaster.predict(frames))
    assert len(hub_server.asked(WEIGHTS)) == 1
    seen = len(hub_server.requests)
    load(f"hf://user/model@{commit}")
    load(f"hf://user/model@{commit}", offline=True)
    load("hf://user/model", offline=True)
    assert len(hub_server.requests) == seen  # a commit that is in the cache needs no question, offline asks none


def test_a_branch_is_followed_and_a_commit_stands_still(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load, forecaster: Forecaster, tmp_path: Path
) -> None:
    first = hub_server.add("user/model", files)
    load()
    create(forecaster.spec).save_pretrained(tmp_path / "next")
    newer = {path.name: path.read_bytes() for path in (tmp_path / "next").iterdir()}
    second = hub_server.add("user/model", newer)
    hub_server.add("user/model", files, ref="v1")
    found = [load(f"hf://user/model@{revision}").report.sha256 for revision in ("main", second, first, "v1")]
    found.append(load(revision="v1").report.sha256)
    assert first != second
    assert found == [sha256_of(newer), sha256_of(newer), sha256_of(files), sha256_of(files), sha256_of(files)]


def test_config_and_weights_are_of_one_commit(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.add("user/model", files)
    answer = hub_server.answer

    def moved_on(request: Any) -> Any:
        found = answer(request)
        if request.method == "GET" and request.path.endswith("config.json"):
            hub_server.add("user/model", {"model.safetensors": b"of another model", "config.json": b"{}"})
        return found

    monkeypatch.setattr(hub_server, "answer", moved_on)
    assert load().report.sha256 == sha256_of(files)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        pytest.param({"status": 401}, "user/model.*401", id="401"),
        pytest.param(
            {"status": 403, "headers": {"X-Error-Code": "GatedRepo"}},
            "user/model is gated: accept its terms.*HF_TOKEN", id="403 gated",
        ),
        pytest.param({"status": 403}, "user/model.*403", id="403"),
        pytest.param(
            {"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}}, "no repository user/model for you", id="404"
        ),
        pytest.param({"status": 410}, "user/model.*410", id="410"),
        pytest.param({"status": 200}, "missing the 'X-Repo-Commit' header", id="no hub"),
        pytest.param(
            {"status": 302, "headers": {"Location": "/user/model/resolve/main/config.json"}},
            "Exceeded 20 redirects", id="loop of redirects",
        ),
    ],
)  # fmt: skip
def test_a_refusal_is_a_download_error_in_words(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load, fault: dict[str, Any], message: str
) -> None:
    hub_server.add("user/model", files)
    hub_server.fail("*config.json", method="HEAD", times=None, **fault)
    with pytest.raises(DownloadError, match=message) as raised:
        load()
    assert "\n" not in str(raised.value)
    assert not hub_server.asked(WEIGHTS)


def test_what_is_not_there_is_named(hub_server: LoopbackHub, files: dict[str, bytes], load: Load) -> None:
    commit = hub_server.add("user/model", files)
    hub_server.add("user/bare", {"config.json": files["config.json"]})
    with pytest.raises(DownloadError, match="no repository other/model for you"):
        load("hf://other/model")
    with pytest.raises(DownloadError, match="user/model has no revision v9"):
        load("hf://user/model@v9")
    with pytest.raises(DownloadError, match=f"user/model has no revision {COMMIT}"):
        load(f"hf://user/model@{COMMIT}")
    with pytest.raises(DownloadError, match="user/bare.* has no file model.safetensors"):
        load("hf://user/bare")
    with pytest.raises(OfflineError, match=f"user/model@{commit} has no config.json in the local cache"):
        load(f"hf://user/model@{commit}", offline=True)


def test_offline_without_the_codec_of_a_modular_model(hub_server: LoopbackHub, load: Load, cache: Path) -> None:
    entry = stzoo.info("predrnn-modular-mmnist")
    assert entry.weights is not None
    config, weights = json.dumps(entry.spec.to_dict()).encode(), (CHECKPOINTS / entry.weights.file).read_bytes()
    commit = hub_server.add(
        "user/modular", {"config.json": config, "model.safetensors": weights, "codec.safetensors": b"not cached"}
    )
    for name in ("config.json", "model.safetensors"):
        huggingface.fetch("user/modular", commit, name, cache_dir=cache, offline=False, progress=False)
    with pytest.raises(OfflineError, match=f"user/modular@{commit} has no codec.safetensors in the local cache"):
        load(f"hf://user/modular@{commit}", offline=True)


def test_offline_a_modular_model_that_holds_its_codec(hub_server: LoopbackHub, load: Load, tmp_path: Path) -> None:
    stzoo.load("predrnn-modular-mmnist").save_pretrained(tmp_path / "whole")
    hub_server.add("user/modular", {p.name: p.read_bytes() for p in (tmp_path / "whole").iterdir()})
    online = load("hf://user/modular")
    hub_server.requests.clear()
    shutil.rmtree(tmp_path / "cache" / "models--user--modular" / ".no_exist", ignore_errors=True)
    assert load("hf://user/modular", offline=True).report.sha256 == online.report.sha256
    assert not hub_server.requests


def test_a_gated_repository_says_what_to_do(hub_server: LoopbackHub, files: dict[str, bytes], load: Load) -> None:
    hub_server.add("user/model", files, gated=True)
    with pytest.raises(DownloadError, match="user/model is gated: accept its terms on its page, .*HF_TOKEN"):
        load()


def test_a_private_repository_needs_its_token_which_no_other_host_sees(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.add("user/model", files, token="secret-token")
    with pytest.raises(DownloadError, match="private one needs your token in HF_TOKEN"):
        load()
    monkeypatch.setenv("HF_TOKEN", "wrong-token")
    with pytest.raises(DownloadError, match="401|no repository") as raised:
        load()
    assert "wrong-token" not in str(raised.value)
    monkeypatch.setenv("HF_TOKEN", "secret-token")
    hub_server.requests.clear()
    assert load().report.sha256 == sha256_of(files)
    for request in hub_server.requests:
        if request.origin == hub_server.url:
            assert request.headers["authorization"] == "Bearer secret-token"
        else:
            assert "secret-token" not in str(request.headers)
    assert {request.origin for request in hub_server.requests} == {hub_server.url, hub_server.cdn}


def test_a_token_does_not_follow_a_redirect_of_the_body(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.add("user/model", files, token="secret-token")
    monkeypatch.setenv("HF_TOKEN", "secret-token")
    hub_server.redirect("*config.json", f"{hub_server.cdn}/objects/elsewhere", times=1)
    with pytest.raises(DownloadError):  # there is nothing
        load()
    (elsewhere,) = hub_server.asked("/objects/elsewhere")
    assert "secret-token" not in str(elsewhere.headers)


@pytest.mark.parametrize(
    ("method", "pattern", "fault", "times"),
    [
        pytest.param("HEAD", "*config.json", {"status": 500}, 2, id="500 to the question"),
        pytest.param("HEAD", RESOLVED, {"status": 503}, 1, id="503 to the question"),
        pytest.param("HEAD", RESOLVED, {"status": 429, "headers": {"Retry-After": "0"}}, 2, id="429 to the question"),
        pytest.param("GET", WEIGHTS, {"status": 429, "headers": {"Retry-After": "0"}}, 1, id="429 to the request"),
        pytest.param("GET", WEIGHTS, {"status": 500}, 1, id="500 to the request"),
        pytest.param("GET", WEIGHTS, {"cut": 20_000, "reset": True}, 1, id="reset"),
        pytest.param("GET", WEIGHTS, {"cut": 20_000}, 1, id="cut short"),
        pytest.param("GET", WEIGHTS, {"cut": 0}, 1, id="cut before the body"),
        pytest.param("GET", WEIGHTS, {"rate": 50_000}, 1, id="slow"),
        pytest.param("GET", WEIGHTS, {"headers": {"Content-Length": None}}, 1, id="names no length"),
    ],
)
def test_a_fault_that_passes_is_outlived(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load, method: str, pattern: str, fault: Any, times: int
) -> None:
    hub_server.add("user/model", files)
    hub_server.fail(pattern, method=method, times=times, **fault)
    assert load().report.sha256 == sha256_of(files)


def test_a_large_body_cut_short_is_resumed(hub_server: LoopbackHub, tmp_path: Path, load: Load) -> None:
    large = create("tau-mmnist", hid_s=128, hid_t=256)  # huggingface_hub writes in pieces of 10 MiB
    large.save_pretrained(tmp_path / "large")
    saved = {path.name: path.read_bytes() for path in (tmp_path / "large").iterdir()}
    size = len(saved["model.safetensors"])
    assert size > 11 << 20
    hub_server.add("user/model", saved)
    hub_server.fail(WEIGHTS, cut=size - 1000)
    assert load().report.sha256 == sha256_of(saved)
    first, second = hub_server.asked(WEIGHTS)
    assert "range" not in first.headers
    kept = (size - 1000) // (10 << 20) * (10 << 20)
    assert second.headers["range"] == f"bytes={kept}-"
    assert (second.status, second.sent) == (206, size - kept)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 500}, id="500"),
        pytest.param({"status": 403}, id="403"),
        pytest.param({"status": 404}, id="404"),
        pytest.param({"cut": 20_000, "reset": True}, id="reset"),
        pytest.param({"body": b"too short"}, id="too short"),
        pytest.param({"body": bytes(100_000)}, id="too long"),
        pytest.param({"status": 302, "headers": {"Location": "/objects/again"}}, id="loop of redirects"),
    ],
)
def test_weights_that_do_not_come_leave_nothing(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load, cache: Path, fault: dict[str, Any]
) -> None:
    hub_server.add("user/model", files)
    hub_server.fail(WEIGHTS, times=None, **fault)
    with pytest.raises(DownloadError, match="cannot fetch model.safetensors of user/model") as raised:
        load()
    assert "\n" not in str(raised.value)
    assert not weights_in(cache)
    seen = hub_server.files("user/model", hub_server.commits("user/model")[0])
    hub_server.clear()
    hub_server.add("user/model", seen)
    assert load().report.sha256 == sha256_of(files)


def test_a_wrong_body_is_found_out_and_removed(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load, cache: Path
) -> None:
    hub_server.add("user/model", files)
    wrong = files["model.safetensors"][:-1] + bytes([files["model.safetensors"][-1] ^ 1])
    hub_server.fail(WEIGHTS, body=wrong)
    with pytest.raises(IntegrityError, match=r"has sha256 \w{64}, expected \w{64}; it has been removed, load again"):
        load()
    assert not weights_in(cache)
    assert load().report.sha256 == sha256_of(files)


def test_a_file_that_is_damaged_in_the_cache_is_found_out_even_offline(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load, cache: Path
) -> None:
    hub_server.add("user/model", files)
    load()
    (snapshot,) = cache.rglob("snapshots/*/model.safetensors")
    content = snapshot.read_bytes()
    snapshot.resolve().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="it has been removed"):
        load(offline=True)
    assert not weights_in(cache)
    assert load().report.sha256 == sha256_of(files)


def into_the_shared_store(cache: Path) -> Path:
    """Weights as huggingface_hub keeps those that came by Xet: the blob links on to a file with a hash of Xet's."""
    (snapshot,) = cache.rglob("snapshots/*/model.safetensors")
    blob, store = snapshot.parent / os.readlink(snapshot), cache / "blobs" / "ab" / ("ab" * 32)
    store.parent.mkdir(parents=True)
    blob.rename(store)
    blob.symlink_to(os.path.relpath(store, blob.resolve().parent))
    return store


def test_a_blob_in_the_store_that_repositories_share_is_verified_too(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load, cache: Path
) -> None:
    hub_server.add("user/model", files)
    load()
    store = into_the_shared_store(cache)
    assert load().report.sha256 == sha256_of(files)
    assert len(hub_server.asked(WEIGHTS)) == 1
    store.write_bytes(store.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match=f"expected {sha256_of(files)}; it has been removed"):
        load(offline=True)
    assert not store.exists()
    assert not weights_in(cache)
    assert load().report.sha256 == sha256_of(files)


def test_what_a_cache_links_to_elsewhere_is_not_removed(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load, cache: Path, tmp_path: Path
) -> None:
    hub_server.add("user/model", files)
    load()
    (snapshot,) = cache.rglob("snapshots/*/model.safetensors")
    blob, elsewhere = snapshot.resolve(), tmp_path / "elsewhere"
    blob.unlink()
    elsewhere.write_bytes(b"?")
    blob.symlink_to(elsewhere)
    with pytest.raises(IntegrityError):
        load()
    assert elsewhere.read_bytes() == b"?"
    assert not weights_in(cache)


def test_a_damaged_configuration_is_removed(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load, cache: Path
) -> None:
    hub_server.add("user/model", files)
    hub_server.fail("*config.json", body=b"\0" * len(files["config.json"]))
    with pytest.raises(IntegrityError, match="is damaged .* load again"):
        load()
    assert load().report.sha256 == sha256_of(files)


@pytest.mark.parametrize("content", [b"{a: 1}", b"[" * 200_000, b" " * (1 << 20) + b"{}"])
def test_a_configuration_that_is_no_spec_is_its_authors(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load, cache: Path, content: bytes
) -> None:
    hub_server.add("user/model", files | {"config.json": content})
    with pytest.raises(SpecError):
        load()
    assert list(cache.rglob("snapshots/*/config.json"))  # as it was committed


def test_a_cache_that_may_only_be_read_is_said_to_be_damaged(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.add("user/model", files)
    load()
    (snapshot,) = cache.rglob("snapshots/*/model.safetensors")
    snapshot.resolve().write_bytes(b"?")

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(IntegrityError, match=r"could not be removed \(Permission denied\)"):
        load()


def test_verifying_the_cache_heals_the_store_that_repositories_share(
    hub_server: LoopbackHub, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    hub_server.add("user/shared", files)
    stzoo.load("hf://user/shared", progress=False)
    store = into_the_shared_store(Path(HF_HUB_CACHE))
    store.write_bytes(store.read_bytes()[:-1] + b"?")
    assert [len(bad) for kept, bad in verified() if kept.name == "user/shared"] == [1]
    assert not store.exists()
    assert stzoo.load("hf://user/shared", progress=False).report.sha256 == sha256_of(files)
    assert clear("user/shared")
    shutil.rmtree(store.parents[1])


def test_a_redirect_within_the_hub_is_followed(hub_server: LoopbackHub, files: dict[str, bytes], load: Load) -> None:
    commit = hub_server.add("user/renamed", files)
    for method in ("HEAD", "GET"):  # as the real hub answers for a repository with a new name
        for name in files:
            hub_server.redirect(
                f"/user/model/resolve/*/{name}", f"/user/renamed/resolve/{commit}/{name}", method=method
            )
    assert load().report.sha256 == sha256_of(files)


def test_what_is_in_the_cache_serves_while_the_hub_is_down(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load
) -> None:
    hub_server.add("user/model", files)
    load()
    hub_server.fail(method="HEAD", times=None, status=503)
    assert load().report.sha256 == sha256_of(files)


@pytest.mark.slow
def test_a_hub_that_stays_down_is_a_download_error(
    hub_server: LoopbackHub, files: dict[str, bytes], load: Load
) -> None:
    """huggingface_hub itself waits for half a minute here, so the faults share it."""
    for repo, status in (("user/a", 500), ("user/b", 503), ("user/c", 429)):
        hub_server.add(repo, files)
        hub_server.fail(f"/{repo}/*", method="HEAD", times=None, status=status)

    def outcome(source: str) -> str:
        with pytest.raises(DownloadError) as raised:
            load(source)
        return str(raised.value)

    with ThreadPoolExecutor(3) as threads:
        a, b, c = threads.map(outcome, ("hf://user/a", "hf://user/b", "hf://user/c"))
    assert a.startswith("the hub did not send config.json of user/a")
    assert "500" in a
    assert "503" in b
    assert "429" in c


@pytest.mark.slow
def test_a_body_that_stalls_is_asked_for_again(hub_server: LoopbackHub, files: dict[str, bytes], load: Load) -> None:
    hub_server.add("user/model", files)
    hub_server.fail(WEIGHTS, cut=10_000, stall=True)
    assert load().report.sha256 == sha256_of(files)
    assert len(hub_server.asked(WEIGHTS)) == 2


def test_credentials_of_the_endpoint_are_in_no_error_and_no_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Neither in ours, nor in those behind it, which a traceback shows."""

    def refuse(*_: object, **__: object) -> str:
        logging.getLogger("huggingface_hub.utils._http").warning("asking %s", "https://user:s3cret@hub/x?token=s3cret")
        try:
            raise ConnectionError("https://user:s3cret@hub/x")
        except ConnectionError as error:
            raise RuntimeError("cannot ask https://user:s3cret@hub/x \x1b[31m") from error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    monkeypatch.setattr("stzoo.hub.huggingface.time.sleep", lambda _: None)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for ask in (
        lambda: huggingface.fetch("user/model", None, "config.json", offline=False),
        lambda: huggingface.push(tmp_path, "user/model"),
    ):
        with pytest.raises(WeightsError, match=r"https://hub/x") as caught:
            ask()
        assert caught.value.__cause__ is caught.value.__context__ is None
        assert str(caught.value).isprintable()
        assert "s3cret" not in str(caught.value)
    assert "asking https://hub/x" in caplog.text
    assert "s3cret" not in caplog.text
