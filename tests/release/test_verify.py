"""`stzoo catalog verify` finds what is wrong, names it, and goes on to the other entries."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from release.shared import Checkout, constant

from stzoo import catalog, hub
from stzoo.cli import main
from stzoo.release.verify import verify
from stzoo.weights import half_precision, save_weights


def lines(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What was printed of each entry."""
    return {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}


def repin(checkout: Checkout, name: str) -> None:
    """Let the manifest pin the file as it is now."""
    models, file = checkout.read(), checkout.checkpoints / f"{name}.safetensors"
    models[name]["weights"] |= {"sha256": hub.file_sha256(file), "size": file.stat().st_size}
    checkout.write(models)


@pytest.mark.slow
def test_the_catalogue_of_this_checkout_is_in_order() -> None:
    findings = list(verify())
    assert [f for f in findings if not f.ok] == []
    assert [f.name for f in findings] == list(catalog.entries())


def test_an_entry_is_a_line(three: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["catalog", "verify"]) == 0
    found = lines(capsys)
    assert list(found) == ["one", "squeeze", "two"]
    assert all(line.startswith("ok") for line in found.values())
    assert main(["catalog", "verify", "two"]) == 0
    assert list(lines(capsys)) == ["two"]
    assert main(["catalog", "verify", "three"]) == 2
    assert "no model 'three'" in capsys.readouterr().err


def other_values(checkout: Checkout) -> None:
    model = constant(catalog.info("one").spec, 0.25)
    save_weights(checkout.checkpoints / "one.safetensors", model.spec, half_precision(model.module.state_dict()))
    repin(checkout, "one")


def other_spec_inside(checkout: Checkout) -> None:
    spec = catalog.info("one").spec
    state = half_precision(constant(spec, 0.5).module.state_dict())
    save_weights(checkout.checkpoints / "one.safetensors", spec.replace(frames_out=2), state)
    repin(checkout, "one")


def fewer_tensors(checkout: Checkout) -> None:
    spec = catalog.info("one").spec
    state = dict(list(constant(spec, 0.5).module.state_dict().items())[1:])
    save_weights(checkout.checkpoints / "one.safetensors", spec, half_precision(state))
    repin(checkout, "one")


def flipped_bit(checkout: Checkout) -> None:
    file = checkout.checkpoints / "one.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def absent(checkout: Checkout) -> None:
    (checkout.checkpoints / "one.safetensors").unlink()


def edited(change: Any) -> Any:
    def edit(checkout: Checkout) -> None:
        models = checkout.read()
        change(models["one"])
        checkout.write(models)

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_values, "the golden forecast has mean 0.250000"),
        (other_spec_inside, "the spec inside one.safetensors differs"),
        (fewer_tensors, "1 missing"),
        (flipped_bit, "has sha256"),
        (absent, "is not there"),
        (edited(lambda e: e["weights"].update(size=7)), "the manifest says 7"),
        (edited(lambda e: e["golden"].update(output_mean=0.6)), "the manifest says 0.600000"),
        (edited(lambda e: e["metrics"][0].update(protocol="clips-4-9")), "no figures on clips-4-4, its own protocol"),
        (edited(lambda e: e["spec"].update(arch="unknown")), "spec.arch is 'unknown'"),
        (edited(lambda e: e["spec"]["params"].update(hid_s=8)), "differs from the entry's"),
        (edited(lambda e: e["spec"].update(height=17)), "multiples of"),
    ],
)
def test_what_is_wrong_is_named_and_the_others_are_still_checked(
    damage: Any, message: str, three: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(three)
    capsys.readouterr()
    assert main(["catalog", "verify"]) == 2
    out, err = capsys.readouterr()
    assert err == "stzoo: 1 of 3 fail: one\n"
    rows = {line.split()[1]: line for line in out.splitlines()}
    assert rows["one"].startswith("FAIL")
    assert message in rows["one"]
    assert rows["squeeze"].startswith("ok")
    assert rows["two"].startswith("ok")


def test_another_codec_than_the_pinned_one(three: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    from stzoo.codec import load_codec

    codec = load_codec("squeeze")
    with torch.no_grad():
        list(codec.module.parameters())[-1].add_(1)
    save_weights(three.checkpoints / "squeeze.safetensors", codec.spec, half_precision(codec.module.state_dict()))
    repin(three, "squeeze")
    capsys.readouterr()
    assert main(["catalog", "verify"]) == 2
    found = lines(capsys)
    assert "two was trained on the codec squeeze with sha256" in found["two"]
    assert "the golden forecast" in found["squeeze"]
    assert found["one"].startswith("ok")


def test_files_that_no_entry_names(three: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("stray.safetensors", ".one.safetensors", ".one.safetensors.before"):
        (three.checkpoints / name).write_bytes(b"")
    capsys.readouterr()
    assert main(["catalog", "verify"]) == 2
    out, err = capsys.readouterr()
    assert err == "stzoo: 3 of 6 fail: .one.safetensors, .one.safetensors.before, stray.safetensors\n"
    assert out.count("no entry names this file of the package") == 3


def test_json_says_the_same(three: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    absent(three)
    capsys.readouterr()
    assert main(["catalog", "verify", "--json"]) == 2
    rows = json.loads(capsys.readouterr().out)
    assert [(r["name"], r["ok"]) for r in rows] == [("one", False), ("squeeze", True), ("two", True)]
    assert rows[0]["problems"]
    assert rows[1]["problems"] == []


def test_a_manifest_that_cannot_be_read(three: Checkout, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    three.manifest.write_text("{")
    catalog.entries.cache_clear()
    capsys.readouterr()
    assert main(["catalog", "verify"]) == 2
    assert "the manifest is not JSON" in capsys.readouterr().err
