"""From the package to a hub and back: the manifest names a place only where the very bytes were read back."""

import json
import re
from typing import Any

import pytest
import yaml
from hub.hf_server import LoopbackHub
from release.shared import Checkout

import stzoo
from stzoo import catalog
from stzoo.cli import main
from stzoo.release import manifest, publish


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")


def sources(checkout: Checkout) -> dict[str, list[str]]:
    return {name: entry["weights"]["sources"] for name, entry in checkout.read().items() if entry["weights"]}


def commit_of(checkout: Checkout, name: str, org: str = "org") -> str:
    (source,) = [s for s in sources(checkout)[name] if s.startswith(f"hf://{org}/")]
    match = re.fullmatch(rf"hf://{org}/{name}@([0-9a-f]{{40}})", source)
    assert match is not None
    return match[1]


def test_everything_with_weights_is_published(
    three: Checkout, hub_server: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    models = three.read()
    three.write(models | {"later": models["one"] | {"weights": None}})
    before = three.manifest.read_text().splitlines()
    capsys.readouterr()
    assert main(["catalog", "publish", "hf://org"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in out] == ["one", "squeeze", "two"]
    added = set(three.manifest.read_text().splitlines()) - set(before)
    assert len([line for line in added if '"hf://org/' in line]) == 3
    for name in ("one", "squeeze", "two"):
        files = hub_server.files(f"org/{name}", commit_of(three, name))
        assert files["model.safetensors"] == (three.checkpoints / f"{name}.safetensors").read_bytes()
        assert json.loads(files["config.json"]) == catalog.info(name).spec.to_dict()
        card = files["README.md"].decode()
        front = yaml.safe_load(card.split("---\n")[1])
        assert (front["license"], front["model-index"][0]["name"]) == ("mit", name)
        assert f'("hf://org/{name}")' in card
        assert ("codec.safetensors" in files) is (name == "two")
    files = hub_server.files("org/two", commit_of(three, "two"))
    assert files["codec.safetensors"] == (three.checkpoints / "squeeze.safetensors").read_bytes()


def test_what_was_published_loads_by_name_where_the_package_lacks_it(
    three: Checkout, hub_server: LoopbackHub, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    packaged = stzoo.load("two")
    assert main(["catalog", "publish", "hf://org"]) == 0
    for file in three.checkpoints.iterdir():
        file.unlink()
    for source in ("two", "hf://org/two", f"hf://org/two@{commit_of(three, 'two')}"):
        there = stzoo.load(source, cache_dir=tmp_path / "cache", progress=False)
        for name, tensor in packaged.module.state_dict().items():
            assert there.module.state_dict()[name].equal(tensor)
    there.save_pretrained(tmp_path / "saved")
    assert "No figures" not in (tmp_path / "saved" / "README.md").read_text()  # they are the entry's very weights
    capsys.readouterr()
    assert main(["catalog", "verify"]) == 0  # a package may be built without its checkpoints
    assert capsys.readouterr().out.count("; not in the package, but at ") == 3
    for name in ("one", "squeeze", "two"):
        (three.checkpoints / f"{name}.safetensors").write_bytes(b"damaged")
    assert main(["catalog", "verify"]) == 2
    assert capsys.readouterr().out.count("the package: ") == 4  # "two" has its codec's trouble as well


def test_a_second_run_sends_nothing(
    three: Checkout, hub_server: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["catalog", "publish", "hf://org", "one", "one"]) == 0
    assert main(["catalog", "publish", "hf://org"]) == 0
    before, commits = three.snapshot(), hub_server.commits("org/one")
    hub_server.requests.clear()
    capsys.readouterr()
    assert main(["catalog", "publish", "hf://org"]) == 0
    assert capsys.readouterr().out.count("since an earlier run") == 3
    assert hub_server.requests == []
    assert (three.snapshot(), hub_server.commits("org/one")) == (before, commits)
    assert main(["catalog", "publish", "hf://other", "one"]) == 0
    assert [s.partition("@")[0] for s in sources(three)["one"]] == ["package", "hf://org/one", "hf://other/one"]


def test_a_failure_in_the_middle_keeps_what_was_published(
    three: Checkout, hub_server: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    hub_server.fail("/api/models/org/squeeze/commit/*", method="POST", status=403)
    assert main(["catalog", "publish", "hf://org"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("one: hf://org/one@")
    assert err.splitlines()[-1].startswith("stzoo: cannot publish to org/squeeze: ")
    assert [len(s) for s in sources(three).values()] == [2, 1, 1]
    assert main(["catalog", "publish", "hf://org"]) == 0
    assert [len(s) for s in sources(three).values()] == [2, 2, 2]
    assert len(hub_server.commits("org/one")) == 1


def test_what_comes_back_otherwise_is_not_entered(
    three: Checkout, hub_server: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    before = three.snapshot()
    body = bytearray((three.checkpoints / "one.safetensors").read_bytes())
    body[-1] ^= 1
    hub_server.fail("/objects/*", times=None, body=bytes(body))
    assert main(["catalog", "publish", "hf://org", "one"]) == 2
    assert "sha256" in capsys.readouterr().err
    assert three.snapshot() == before
    hub_server.clear()
    hub_server.fail("*/resolve/*", method="HEAD", times=None, status=403)
    assert main(["catalog", "publish", "hf://org", "one"]) == 2
    assert three.snapshot() == before


def test_another_codec_on_the_hub_is_not_entered(
    three: Checkout, hub_server: LoopbackHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = three.snapshot()
    send = publish.push

    def push(folder: Any, repo: str, **how: Any) -> str:
        (folder / "codec.safetensors").write_bytes((three.checkpoints / "one.safetensors").read_bytes())
        return send(folder, repo, **how)

    monkeypatch.setattr(publish, "push", push)
    assert main(["catalog", "publish", "hf://org", "two"]) == 2
    assert "does not hold what was sent; the manifest is left as it was" in capsys.readouterr().err
    assert three.snapshot() == before


def test_where_the_manifest_cannot_be_written_the_next_run_goes_on(
    three: Checkout, hub_server: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = three.snapshot()

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_atomically", full)
        assert main(["catalog", "publish", "hf://org", "one"]) == 2
    assert three.snapshot() == before
    assert main(["catalog", "publish", "hf://org", "one"]) == 0
    assert commit_of(three, "one") in hub_server.commits("org/one")


def test_a_damaged_package_is_not_published(
    three: Checkout, hub_server: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    file = three.checkpoints / "one.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.warns(UserWarning, match="sha256"):
        assert main(["catalog", "publish", "hf://org", "one"]) == 2
    assert "expected" in capsys.readouterr().err
    assert hub_server.requests == []


@pytest.mark.parametrize(
    "given", ["org", "hf://", "hf://org/", "hf://org/one", "hf://../x", "hf://a b", "hf://-a", "HF://o"]
)
def test_what_is_no_organisation(
    given: str, three: Checkout, hub_server: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["catalog", "publish", given]) == 2
    assert "is no organisation of a hub; write hf://ORG" in capsys.readouterr().err
    assert hub_server.requests == []


def test_names_are_checked_before_anything_is_sent(
    three: Checkout, hub_server: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    models = three.read()
    three.write(models | {"later": models["one"] | {"weights": None}})
    capsys.readouterr()
    for name, message in (("later", "no weights in the package for later"), ("nothing", "no model 'nothing'")):
        assert main(["catalog", "publish", "hf://org", "one", name]) == 2
        assert message in capsys.readouterr().err
    assert hub_server.requests == []


def test_private_repositories_need_the_token(
    three: Checkout, hub_server: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    assert main(["catalog", "publish", "hf://org", "one", "--private"]) == 0
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(stzoo.StzooError, match="HF_TOKEN"):
        stzoo.load("hf://org/one", cache_dir=tmp_path, progress=False)


def test_without_a_token_the_way_to_one_is_named(
    three: Checkout, hub_server: LoopbackHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    before = three.snapshot()
    assert main(["catalog", "publish", "hf://org"]) == 2
    assert "needs a token that may write, in HF_TOKEN" in capsys.readouterr().err
    assert three.snapshot() == before
