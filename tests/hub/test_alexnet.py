"""AlexNet's weights from a server that answers as PyTorch's does, with a small file in torchvision's layout."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub.server import LoopbackMirror
from safetensors import safe_open

from stzoo import metrics
from stzoo.errors import DownloadError, IntegrityError, OfflineError, SpecError, WeightsError
from stzoo.hub import cache
from stzoo.metrics.perceptual import HEADS, _shared_network, read_network
from stzoo.published import alexnet, trust

Publish = Callable[..., bytes]
DATA = Path(os.environ.get("STZOO_DATA", "")) / "lpips" / "lpips_alex_v01.npz"


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """As in torchvision's file, but with the fully connected layers cut down."""
    torch.manual_seed(seed)
    found = {}
    for n, (i, o, k) in alexnet.CONVOLUTIONS.items():
        found[f"features.{n}.weight"] = torch.randn(o, i, k, k) * (2 / (i * k * k)) ** 0.5
        found[f"features.{n}.bias"] = 0.1 * torch.randn(o)
    return found | {"classifier.1.weight": torch.randn(4, 8), "classifier.1.bias": torch.randn(4)}


@pytest.fixture
def publish(mirror: LoopbackMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Put a file at the address that stzoo knows; by default its name begins its sha256, as torchvision's does."""
    monkeypatch.delenv("STZOO_LPIPS", raising=False)
    _shared_network.cache_clear()

    def put(content: Any, digits: str | None = None, path: str = "/models") -> bytes:
        if not isinstance(content, bytes):
            torch.save(content, tmp_path / "theirs.pth")
            content = (tmp_path / "theirs.pth").read_bytes()
        digits = hashlib.sha256(content).hexdigest()[:8] if digits is None else digits
        monkeypatch.setattr(alexnet, "ADDRESS", mirror.add(f"{path}/alexnet-owt-{digits}.pth", content))
        return content

    return put


def test_only_the_convolutions_are_kept_and_found_again(
    publish: Publish, mirror: LoopbackMirror, own_home: Path
) -> None:
    content = publish(tensors())
    found = alexnet.convolutions(progress=False)
    assert found.tensors.keys() == {k for k in tensors() if k.startswith("features")}
    assert all(torch.equal(t, tensors()[k]) for k, t in found.tensors.items())
    again = alexnet.convolutions(offline=True)
    assert all(torch.equal(t, found.tensors[k]) for k, t in again.tensors.items())
    assert again.sha256 == found.sha256
    assert len(mirror.asked()) == 1
    name = alexnet.ADDRESS.rpartition("/")[2].removesuffix(".pth")
    kept = sorted(p.name for p in (own_home / "published").iterdir() if not p.name.startswith("."))
    assert kept == [f"{name}.json", f"{name}.safetensors"]
    with safe_open(own_home / "published" / kept[1], "pt") as file:
        assert len(file.keys()) == 10
    pin = trust.read_pin(name)
    assert pin is not None
    assert (pin.sha256, pin.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert [(k.name, k.kind, k.origin) for k in cache.listed()] == [(name, "published", pin.sha256)]
    assert [bad for _, bad in cache.verified()] == [()]


def test_a_frame_is_seen_with_them_and_the_packaged_heads(publish: Publish, mirror: LoopbackMirror) -> None:
    publish(tensors())
    network = read_network()
    with safe_open(HEADS, "pt") as file:
        assert "Richard Zhang" in file.metadata()["license"]
        for i in range(5):
            assert torch.equal(network.heads[i], file.get_tensor(f"lin{i}.weight"))
    assert torch.equal(network.features["3"].weight, tensors()["features.3.weight"])  # type: ignore[arg-type]
    assert not any(p.requires_grad for p in network.parameters())
    rng = np.random.default_rng(0)
    a, b = (rng.random((2, 3, 1, 40, 48)) for _ in range(2))
    distance = metrics.lpips(a, b)
    assert distance.shape == (2, 3)
    assert (distance > 0).all()
    assert not metrics.lpips(a, a).any()
    assert len(mirror.asked()) == 1


@pytest.mark.skipif(not DATA.is_file(), reason="needs the weights of LPIPS")
def test_the_heads_are_the_published_ones() -> None:
    with safe_open(HEADS, "pt") as file, np.load(DATA) as held:
        for i in range(5):
            assert np.array_equal(file.get_tensor(f"lin{i}.weight").numpy(), held[f"lin{i}.weight"].flatten())


def test_the_name_states_how_the_sha256_begins(publish: Publish, own_home: Path) -> None:
    publish(tensors(), digits="7be5be79")
    with pytest.raises(IntegrityError, match=r"does not begin with 7be5be79; the download was discarded.*STZOO_LPIPS"):
        alexnet.convolutions(progress=False)
    assert not [p for p in own_home.rglob("*") if p.is_file() and p.suffix in (".safetensors", ".pth", ".json")]


def test_another_file_than_the_first_is_refused(
    publish: Publish, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = publish(tensors())
    alexnet.convolutions(progress=False)
    name = alexnet.ADDRESS.rpartition("/")[2].removesuffix(".pth")
    (own_home / "published" / f"{name}.safetensors").unlink()
    publish(tensors(1), digits=name.rpartition("-")[2])
    with pytest.raises(IntegrityError, match=rf"If you trust a new file of the publisher, remove .*{name}\.json"):
        alexnet.convolutions(progress=False)
    publish(content)
    assert torch.equal(alexnet.convolutions(progress=False).tensors["features.0.bias"], tensors()["features.0.bias"])
    (own_home / "published" / f"{name}.safetensors").unlink()
    monkeypatch.setattr(alexnet, "_check_digits", lambda *_: None)  # a new file whose sha256 begins alike
    publish(tensors(1), digits=name.rpartition("-")[2])
    with pytest.raises(IntegrityError):
        alexnet.convolutions(progress=False)
    for file in (trust.pin_file(name), own_home / "published" / f"{name}.json"):  # as the error says
        file.unlink()
    assert torch.equal(alexnet.convolutions(progress=False).tensors["features.0.bias"], tensors(1)["features.0.bias"])


@pytest.mark.parametrize("note", ["{}", "[]", "{", '{"url": "u", "size": 1, "origin": "ORIGIN"}'])
def test_a_note_that_says_too_little_is_written_anew(note: str, publish: Publish, own_home: Path) -> None:
    content = publish(tensors())
    alexnet.convolutions(progress=False)
    (beside,) = (own_home / "published").glob("*.json")
    beside.write_text(note.replace("ORIGIN", hashlib.sha256(content).hexdigest()))
    found = alexnet.convolutions(progress=False)
    assert torch.equal(found.tensors["features.0.bias"], tensors()["features.0.bias"])
    assert "sha256" in beside.read_text()


def test_a_lost_pin_is_taken_from_the_kept_file(publish: Publish, own_home: Path) -> None:
    publish(tensors())
    alexnet.convolutions(progress=False)
    name = alexnet.ADDRESS.rpartition("/")[2].removesuffix(".pth")
    pin = trust.read_pin(name)
    trust.pin_file(name).unlink()
    alexnet.convolutions(progress=False)
    assert trust.read_pin(name) == pin
    trust.pin_file(name).unlink()
    (own_home / "published" / f"{name}.safetensors").write_bytes(b"damaged")
    publish(tensors(1), digits=name.rpartition("-")[2])
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(IntegrityError):
        alexnet.convolutions(progress=False)


def test_the_user_may_know_the_sha256(publish: Publish, mirror: LoopbackMirror) -> None:
    content = publish(tensors())
    right = hashlib.sha256(content).hexdigest()
    with pytest.raises(SpecError, match="64 hexadecimal digits"):
        metrics.fetch_lpips(sha256="7be5be79")
    assert not mirror.asked()
    with pytest.raises(IntegrityError):
        metrics.fetch_lpips(sha256=right[:-1] + ("0" if right[-1] != "0" else "1"), progress=False)
    metrics.fetch_lpips(sha256=right, progress=False)
    before = len(mirror.asked())
    metrics.fetch_lpips(sha256=right, progress=False)
    with pytest.raises(IntegrityError, match="the first download of alexnet-owt"):
        metrics.fetch_lpips(sha256="0" * 64, progress=False)
    assert len(mirror.asked()) == before


def test_a_damaged_file_is_made_anew(publish: Publish, own_home: Path, mirror: LoopbackMirror) -> None:
    publish(tensors())
    first = alexnet.convolutions(progress=False)
    (file,) = (own_home / "published").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged and is made anew"):
        found = alexnet.convolutions(progress=False)
    assert found.sha256 == first.sha256
    assert len(mirror.asked()) == 2


def test_without_the_network_it_says_what_to_do(
    publish: Publish, mirror: LoopbackMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tensors())
    monkeypatch.setenv("STZOO_OFFLINE", "1")
    for ask in (read_network, metrics.fetch_lpips):
        with pytest.raises(OfflineError, match=r"allow it once: they come from https://.*STZOO_MIRRORS.*STZOO_LPIPS"):
            ask()
    assert not mirror.asked()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<html>log in</html>", "sent a web page"),
        ({"features.0.weight": torch.zeros(64, 3, 11, 11)}, "is no AlexNet: features.3.weight should be"),
        ({**tensors(), "features.3.weight": torch.zeros(192, 64, 3, 3)}, r"should be \(192, 64, 5, 5\)"),
        ({**tensors(), "features.3.bias": torch.zeros(192).half()}, "features.3.bias should be in float32"),
        ({**tensors(), "features.0.bias": torch.full((64,), torch.nan)}, "features.0.bias holds values that are not"),
    ],
)
def test_what_is_no_alexnet(content: Any, says: str, publish: Publish, own_home: Path) -> None:
    publish(content)
    with pytest.raises(WeightsError, match=says):
        alexnet.convolutions(progress=False)
    assert not list(own_home.rglob("*.safetensors"))
    assert not list(own_home.rglob("*.json"))  # nothing is pinned


def test_a_mirror_has_it(publish: Publish, mirror: LoopbackMirror, monkeypatch: pytest.MonkeyPatch) -> None:
    content = publish(tensors())
    path = next(iter(mirror.files))
    del mirror.files[path]
    with pytest.raises(DownloadError, match="no address has the weights of AlexNet"):
        alexnet.convolutions(progress=False)
    mirror.add(path.replace("/models", "/mirror"), content)
    monkeypatch.setenv("STZOO_MIRRORS", f"{mirror.url}/mirror/")
    assert alexnet.convolutions(progress=False).tensors.keys() == tensors().keys() - {
        "classifier.1.weight", "classifier.1.bias",
    }  # fmt: skip


def test_an_evaluation_keeps_what_it_began_with(publish: Publish, own_home: Path, mirror: LoopbackMirror) -> None:
    """What another process removes meanwhile is not missed, and nothing is read twice."""
    publish(tensors())
    frames = np.random.default_rng(0).random((1, 2, 1, 32, 32))
    before = metrics.lpips(frames, 1 - frames)
    cache.clear()
    assert np.array_equal(metrics.lpips(frames, 1 - frames), before)
    assert len(mirror.asked()) == 1


def test_the_callers_random_state_stays(publish: Publish) -> None:
    publish(tensors())
    frames = np.zeros((1, 1, 1, 32, 32))
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    metrics.lpips(frames, frames)
    assert torch.equal(torch.rand(3), wanted)


def test_a_file_of_ones_own_opens_no_socket(
    publish: Publish, mirror: LoopbackMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tensors(1))
    held = {k: v.numpy() for k, v in tensors().items() if k.startswith("features")}
    held |= {
        f"lin{i}.weight": np.ones((1, o, 1, 1), np.float32) for i, (_, o, _) in enumerate(alexnet.CONVOLUTIONS.values())
    }
    np.savez(tmp_path / "own.npz", **held)  # type: ignore[arg-type]
    monkeypatch.setenv("STZOO_LPIPS", str(tmp_path / "own.npz"))
    assert torch.equal(read_network().features["0"].bias, tensors()["features.0.bias"])  # type: ignore[arg-type]
    assert not mirror.asked()
