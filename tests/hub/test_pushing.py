"""Publishing to a hub, through huggingface_hub as it is: whole, in one commit, or not at all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub.hf_server import LoopbackHub
from hub.shared import Load

import stzoo
from stzoo.errors import DownloadError, OfflineError, WeightsError
from stzoo.forecaster import Forecaster
from stzoo.hub import file_sha256, huggingface


def test_what_was_pushed_loads_bit_for_bit(
    hub_server: LoopbackHub, forecaster: Forecaster, frames: np.ndarray, tmp_path: Path, load: Load
) -> None:
    forecaster.save_pretrained(tmp_path / "mine")
    source = huggingface.push(tmp_path / "mine", "user/mine", token="writes", message="The first version")
    commit = source.removeprefix("hf://user/mine@")
    assert hub_server.commits("user/mine") == [commit]  # one commit for all files
    sent = hub_server.files("user/mine", commit)
    assert sent == {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    (request,) = hub_server.asked("*/commit/*", "POST")
    assert json.loads(request.body.splitlines()[0])["value"]["summary"] == "The first version"
    again = load(source)
    assert again.report.sha256 == file_sha256(tmp_path / "mine" / "model.safetensors")
    np.testing.assert_array_equal(again.predict(frames), forecaster.predict(frames))


def test_pushing_again_adds_a_commit_and_pushing_the_same_adds_none(
    hub_server: LoopbackHub, forecaster: Forecaster, tmp_path: Path
) -> None:
    forecaster.save_pretrained(tmp_path / "mine")
    first = huggingface.push(tmp_path / "mine", "user/mine", token="writes", message="one")
    assert huggingface.push(tmp_path / "mine", "user/mine", token="writes", message="same") == first
    (tmp_path / "mine" / "notes.txt").write_text("new")
    second = huggingface.push(tmp_path / "mine", "user/mine", token="writes", message="two")
    assert hub_server.commits("user/mine") == [first[-40:], second[-40:]]
    assert hub_server.files("user/mine", second[-40:]).keys() > hub_server.files("user/mine", first[-40:]).keys()
    assert len(hub_server.asked("/objects/*", "PUT")) == 1  # weights that are there are not sent again


def test_a_private_repository_is_pushed_and_loaded_with_a_token(
    hub_server: LoopbackHub, forecaster: Forecaster, tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecaster.save_pretrained(tmp_path / "mine")
    source = huggingface.push(tmp_path / "mine", "user/mine", private=True, token="writes", message="one")
    with pytest.raises(DownloadError, match="no repository user/mine for you"):
        load(source)
    monkeypatch.setenv("HF_TOKEN", "writes")
    assert load(source).report.sha256 == file_sha256(tmp_path / "mine" / "model.safetensors")
    assert huggingface.push(tmp_path / "mine", "user/other", message="by HF_TOKEN").startswith("hf://user/other@")
    for request in hub_server.requests:
        assert request.origin == hub_server.url or "writes" not in str(request.headers)


def test_a_codec_that_an_earlier_model_left_does_not_take_the_place_of_the_new_one(
    hub_server: LoopbackHub, load: Load
) -> None:
    hub_server.add("user/modular", {"codec.safetensors": b"of another model", "notes.txt": b"mine"})
    model = stzoo.load("tctn-modular-mmnist")
    source = model.push_to_hub("user/modular", token="writes")
    there = load(source).module.state_dict()
    assert all(torch.equal(tensor, there[name]) for name, tensor in model.module.state_dict().items())
    names = {"config.json", "model.safetensors", "README.md", "notes.txt"}
    assert hub_server.files("user/modular", source[-40:]).keys() == names
    assert len(hub_server.commits("user/modular")) == 2


def test_a_codec_in_the_folder_is_sent(hub_server: LoopbackHub, tmp_path: Path) -> None:
    hub_server.add("user/modular", {"codec.safetensors": b"old"})
    (tmp_path / "codec.safetensors").write_bytes(b"new")
    source = huggingface.push(tmp_path, "user/modular", token="writes")
    assert hub_server.files("user/modular", source[-40:]) == {"codec.safetensors": b"new"}


def test_white_space_around_a_token_is_left_out(hub_server: LoopbackHub, forecaster: Forecaster) -> None:
    forecaster.push_to_hub("user/mine", token=" writes\n")
    (request,) = hub_server.asked("*/commit/*", "POST")
    assert request.headers["authorization"] == "Bearer writes"


@pytest.mark.parametrize("token", ["hf_SEC\nRET", "hf_SEC RET", "hf_SECRET\x1b[31m", "hf_SECR\u00c9T", "\n"])
def test_a_token_that_is_none_is_refused_and_not_repeated(
    hub_server: LoopbackHub, forecaster: Forecaster, token: str
) -> None:
    with pytest.raises(WeightsError, match="the token is empty, or holds a character that no token has") as raised:
        forecaster.push_to_hub("user/mine", token=token)
    assert "SEC" not in str(raised.value)
    assert not hub_server.requests


@pytest.mark.parametrize(
    ("method", "pattern", "fault"),
    [
        pytest.param("POST", "/api/repos/create", {"status": 403}, id="may not create"),
        pytest.param("POST", "*/preupload/*", {"status": 403}, id="may not write"),
        pytest.param("PUT", "/objects/*", {"status": 403}, id="the upload is refused"),
        pytest.param("POST", "*/commit/*", {"status": 412}, id="the commit is refused"),
        pytest.param("POST", "*/commit/*", {"status": 500}, id="the commit fails"),
    ],
)
def test_a_push_that_is_refused_says_why_and_publishes_nothing(
    hub_server: LoopbackHub, forecaster: Forecaster, tmp_path: Path, method: str, pattern: str, fault: dict[str, Any]
) -> None:
    forecaster.save_pretrained(tmp_path / "mine")
    hub_server.fail(pattern, method=method, times=None, **fault)
    with pytest.raises(WeightsError, match=r"cannot publish to user/mine: .*HF_TOKEN") as raised:
        huggingface.push(tmp_path / "mine", "user/mine", token="writes", message="one")
    assert "writes" not in str(raised.value).replace("publishing", "")
    assert not hub_server.commits("user/mine")


def test_pushing_needs_a_name_a_network_and_a_token(
    hub_server: LoopbackHub, forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecaster.save_pretrained(tmp_path / "mine")
    for name in ("mine", "user/../mine", "a/b/c", "", "user/mine@main"):
        with pytest.raises(WeightsError, match="is no repository; write user/repo"):
            huggingface.push(tmp_path / "mine", name, token="writes", message="one")
    with pytest.raises(WeightsError, match="cannot publish to user/mine: .*401"):
        huggingface.push(tmp_path / "mine", "user/mine", message="one")
    hub_server.requests.clear()
    monkeypatch.setenv("STZOO_OFFLINE", "1")
    with pytest.raises(OfflineError, match="nothing is sent to user/mine"):
        huggingface.push(tmp_path / "mine", "user/mine", token="writes", message="one")
    assert not hub_server.requests
