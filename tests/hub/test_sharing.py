"""What one person pushes another one loads, through huggingface_hub and a hub on loopback."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hub.hf_server import LoopbackHub

import stzoo
from stzoo.codec import Codec
from stzoo.errors import DownloadError, OfflineError, WeightsError
from stzoo.forecaster import Forecaster
from stzoo.hub.card import Card


def pushed(server: LoopbackHub, source: str, repo: str) -> dict[str, bytes]:
    match = re.fullmatch(rf"hf://{repo}@([0-9a-f]{{40}})", source)
    assert match is not None
    return server.files(repo, match[1])


def test_a_pushed_forecaster_is_the_same(
    hub_server: LoopbackHub, forecaster: Forecaster, frames: np.ndarray, tmp_path: Path
) -> None:
    source = forecaster.push_to_hub("user/model", token="secret", message="The first one")
    files = pushed(hub_server, source, "user/model")
    assert files.keys() >= {"model.safetensors", "config.json", "README.md"}
    forecaster.save_pretrained(tmp_path / "model")
    assert files["config.json"] == (tmp_path / "model" / "config.json").read_bytes()
    body = files["README.md"].decode()
    assert "# model\n" in body
    assert 'stzoo.load("hf://user/model")' in body
    for other in (source, "hf://user/model"):
        np.testing.assert_array_equal(stzoo.load(other, progress=False).predict(frames), forecaster.predict(frames))
    (commit,) = hub_server.asked("/api/models/user/model/commit/*", "POST")
    assert b"The first one" in commit.body
    assert b"secret" not in commit.body


def test_a_second_push_is_a_second_commit(hub_server: LoopbackHub, forecaster: Forecaster, frames: np.ndarray) -> None:
    first = forecaster.push_to_hub("user/model", token="secret")
    before = forecaster.predict(frames)
    next(forecaster.module.parameters()).data.zero_()
    second = forecaster.push_to_hub("user/model", token="secret", card=Card(summary="Zeroed", license="MIT"))
    assert first != second
    np.testing.assert_array_equal(stzoo.load(first, progress=False).predict(frames), before)
    np.testing.assert_array_equal(stzoo.load(second, progress=False).predict(frames), forecaster.predict(frames))
    front = pushed(hub_server, second, "user/model")["README.md"].decode().split("---")[1]
    assert yaml.safe_load(front)["license"] == "mit"


def test_a_codec_and_a_modular_model_travel_too(hub_server: LoopbackHub) -> None:
    codec = stzoo.load_codec("vqvae-mmnist")
    source = codec.push_to_hub("user/codec", token="secret")
    assert "# codec\n" in pushed(hub_server, source, "user/codec")["README.md"].decode()
    again = Codec.from_pretrained("user/codec")
    for name, tensor in codec.module.state_dict().items():
        assert again.module.state_dict()[name].equal(tensor)
    model = stzoo.load("tctn-modular-mmnist")
    there = stzoo.load(model.push_to_hub("user/modular", token="secret"), progress=False)
    for name, tensor in model.module.state_dict().items():
        assert there.module.state_dict()[name].equal(tensor)


def test_the_home_folder_may_be_written_as_a_tilde(
    forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "me"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    forecaster.save_pretrained("~/model")
    forecaster.save_pretrained(Path("~/model"))
    assert (tmp_path / "me" / "model" / "config.json").is_file()
    assert list((tmp_path / "here").iterdir()) == []
    assert stzoo.load("~/model").spec == forecaster.spec


def test_what_was_loaded_from_a_hub_says_so(hub_server: LoopbackHub, forecaster: Forecaster, tmp_path: Path) -> None:
    source = forecaster.push_to_hub("user/model", token="secret")
    Forecaster.from_pretrained("user/model").save_pretrained(tmp_path)
    assert f"The weights of {source}." in (tmp_path / "README.md").read_text()


def test_a_folder_of_that_name_comes_first(
    hub_server: LoopbackHub,
    forecaster: Forecaster,
    frames: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    forecaster.push_to_hub("user/model", token="secret")
    remote = forecaster.predict(frames)
    next(forecaster.module.parameters()).data.zero_()
    hub_server.requests.clear()
    forecaster.save_pretrained(tmp_path / "user" / "model")
    np.testing.assert_array_equal(Forecaster.from_pretrained("user/model").predict(frames), forecaster.predict(frames))
    assert hub_server.requests == []
    (tmp_path / "user").rename(tmp_path / "moved")
    np.testing.assert_array_equal(Forecaster.from_pretrained("user/model").predict(frames), remote)
    np.testing.assert_array_equal(Forecaster.from_pretrained("user/model", revision="main").predict(frames), remote)


@pytest.mark.parametrize("source", ["./user/model", "../model", "user/model.safetensors", "a/b/c", Path("user/model")])
def test_a_path_is_never_looked_for_on_a_hub(hub_server: LoopbackHub, source: Any) -> None:
    with pytest.raises(WeightsError, match="no folder|does not exist"):
        Forecaster.from_pretrained(source)
    assert hub_server.requests == []


def test_names_and_missing_repositories(hub_server: LoopbackHub) -> None:
    assert Forecaster.from_pretrained("tau-ut").spec == stzoo.info("tau-ut").spec
    with pytest.raises(DownloadError, match="no repository nobody/nothing"):
        Forecaster.from_pretrained("nobody/nothing")


def test_a_private_repository_is_for_whoever_has_the_token(
    hub_server: LoopbackHub, forecaster: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = forecaster.push_to_hub("user/secret", private=True, token="secret")
    with pytest.raises(DownloadError, match="needs your token in HF_TOKEN"):
        stzoo.load(source, progress=False)
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert stzoo.load(source, progress=False).spec == forecaster.spec


@pytest.mark.parametrize("repo", ["model", "user/", "user/model/more", "../model", "user/mo del", "hf://user/model"])
def test_what_is_no_repository(hub_server: LoopbackHub, forecaster: Forecaster, repo: str) -> None:
    with pytest.raises(WeightsError, match="is no repository; write user/repo"):
        forecaster.push_to_hub(repo, token="secret")
    assert hub_server.requests == []


def test_without_a_token_or_a_network_nothing_is_sent(
    hub_server: LoopbackHub, forecaster: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match="publishing needs a token that may write, in HF_TOKEN"):
        forecaster.push_to_hub("user/model")
    assert hub_server.asked("*/commit/*", "POST") == []
    monkeypatch.setenv("STZOO_OFFLINE", "1")
    hub_server.requests.clear()
    with pytest.raises(OfflineError):
        forecaster.push_to_hub("user/model", token="secret")
    assert hub_server.requests == []
