import json
import subprocess
import sys

import pytest

import stzoo
from stzoo.catalog import CHECKPOINTS, entries, parse_manifest
from stzoo.errors import ManifestError, UnknownModelError
from stzoo.evaluate import golden
from stzoo.hub import file_sha256
from stzoo.models import build

ENTRY = {
    "summary": "s",
    "dataset": "d",
    "spec": {"arch": "tau", "frames_in": 1, "frames_out": 1, "channels": 1, "height": 4, "width": 4},
    "weights": None,
    "license": "l",
    "data_terms": "t",
    "citation": "c",
}
WEIGHTS = {"file": "a.safetensors", "size": 1, "sha256": "0" * 64, "sources": ["package"]}


@pytest.mark.parametrize("name", sorted(entries()))
def test_every_entry_builds(name: str) -> None:
    build(stzoo.info(name).spec, "meta")


@pytest.mark.parametrize("name", stzoo.list_models(pretrained=True))
def test_every_packaged_file_is_the_pinned_one_and_small(name: str) -> None:
    weights = stzoo.info(name).weights
    assert weights is not None
    file = CHECKPOINTS / weights.file
    assert (file_sha256(file), file.stat().st_size) == (weights.sha256, weights.size)


@pytest.mark.parametrize("name", stzoo.list_models(pretrained=True))
def test_every_packaged_model_forecasts_what_it_did_when_it_was_published(name: str) -> None:
    entry = stzoo.info(name)
    assert entry.golden is not None
    mean, std = golden(stzoo.load(name), entry.golden.input_seed)
    assert mean == pytest.approx(entry.golden.output_mean, abs=entry.golden.tolerance)
    assert std == pytest.approx(entry.golden.output_std, abs=entry.golden.tolerance)


@pytest.mark.parametrize("name", stzoo.list_models(pretrained=True))
def test_every_packaged_model_beats_persistence_on_its_card(name: str) -> None:
    for metrics in stzoo.info(name).metrics:
        assert metrics.mse < metrics.persistence_mse
        assert metrics.command.startswith("stzoo evaluate")


def test_all_checkpoints_together_are_at_most_90_mb() -> None:
    assert sum(f.stat().st_size for f in CHECKPOINTS.glob("*.safetensors")) <= 90_000_000
    listed = {e.weights.file for e in entries().values() if e.weights}
    assert {f.name for f in CHECKPOINTS.glob("*.safetensors")} == listed


def test_listing_filters() -> None:
    assert "tau-mmnist" in stzoo.list_models("tau-*", arch="tau", dataset="mmnist")
    assert stzoo.list_models("*-mmnist", dataset="nothing") == []
    assert set(stzoo.list_models(pretrained=True)).isdisjoint(stzoo.list_models(pretrained=False))


def test_unknown_names_get_the_close_ones() -> None:
    with pytest.raises(UnknownModelError, match="did you mean tau-mmnist") as caught:
        stzoo.info("tau-mnist")
    assert isinstance(caught.value, KeyError)
    assert not str(caught.value).startswith('"')  # KeyError shows a repr


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "not JSON"),
        ("[]", "schema must be 1"),
        ({"schema": 2, "models": {}}, "schema must be 1"),
        ({"schema": 1, "models": []}, "mapping 'models'"),
        ({"schema": 1, "models": {}, "more": 1}, "exactly"),
        ({"schema": 1, "models": {"../x": ENTRY}}, "no name for a model"),
        ({"schema": 1, "models": {"x": 3}}, "must be a mapping"),
        ({"schema": 1, "models": {"x": ENTRY | {"extra": 1}}}, "x.extra"),
        ({"schema": 1, "models": {"x": {k: v for k, v in ENTRY.items() if k != "license"}}}, "x.license is missing"),
        ({"schema": 1, "models": {"x": ENTRY | {"spec": {"arch": "tau"}}}}, r"x.spec.frames_in is missing"),
        ({"schema": 1, "models": {"x": ENTRY | {"weights": WEIGHTS | {"sha256": "ABC"}}}}, "64 hexadecimal"),
        ({"schema": 1, "models": {"x": ENTRY | {"weights": WEIGHTS | {"file": "../a.safetensors"}}}}, "plain name"),
        ({"schema": 1, "models": {"x": ENTRY | {"weights": WEIGHTS | {"sources": ["ftp://a"]}}}}, "ftp://a"),
        ({"schema": 1, "models": {"x": ENTRY | {"weights": WEIGHTS}}}, "weights but no metrics, no golden"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_key(manifest: object, message: str) -> None:
    content = manifest if isinstance(manifest, str) else json.dumps(manifest)
    with pytest.raises(ManifestError, match=message):
        parse_manifest(content.encode())


def test_importing_and_listing_cost_no_torch() -> None:
    code = (
        "import sys, stzoo; from stzoo.cli import main; stzoo.list_models(); main(['list']); "
        "main(['info', 'tau-mmnist']); print({'torch', 'numpy'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.endswith("set()\n")
    assert "tau-mmnist" in out


@pytest.mark.parametrize("name", stzoo.list_models(pretrained=True))
def test_loading_does_not_import_what_takes_longer_than_loading(name: str) -> None:
    code = f"import sys, stzoo; stzoo.load({name!r}); print({{'sympy', 'skimage', 'scipy'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_importing_stzoo_imports_no_room_of_it() -> None:
    code = "import sys, stzoo; print([m for m in sys.modules if m.startswith('stzoo.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
