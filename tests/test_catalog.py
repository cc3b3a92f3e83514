import json
import subprocess
import sys

import pytest

import stzoo
from stzoo.catalog import CHECKPOINTS, entries, parse_manifest
from stzoo.data import DATASETS
from stzoo.errors import ManifestError, UnknownModelError
from stzoo.evaluate import golden
from stzoo.figures import FIGURES
from stzoo.hub import file_sha256
from stzoo.metrics import DEFINITIONS
from stzoo.models import build

ENTRY = {
    "summary": "s",
    "dataset": "mmnist",
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
    seed = entry.golden.input_seed
    load = stzoo.load_codec if entry.kind == "codec" else stzoo.load
    mean, std = golden(load(name), seed)
    assert mean == pytest.approx(entry.golden.output_mean, abs=entry.golden.tolerance)
    assert std == pytest.approx(entry.golden.output_std, abs=entry.golden.tolerance)


@pytest.mark.parametrize("name", stzoo.list_models(pretrained=True))
def test_every_packaged_model_beats_persistence_on_its_card(name: str) -> None:
    for metrics in stzoo.info(name).metrics:
        if stzoo.info(name).kind == "codec":
            assert metrics.mse < 6  # an empty frame has an error of 170
            assert metrics.codes_used is not None
            assert metrics.codes_used > 100
        else:
            assert metrics.persistence_mse is not None
            share = 0.5 if stzoo.info(name).dataset == "mmnist" else 1.0  # real frames change less from one to the next
            assert metrics.mse < metrics.persistence_mse * share
        assert metrics.command.startswith("stzoo evaluate")


def test_all_checkpoints_together_are_at_most_90_mb() -> None:
    assert sum(f.stat().st_size for f in CHECKPOINTS.glob("*.safetensors")) <= 90_000_000
    listed = {e.weights.file for e in entries().values() if e.weights}
    assert {f.name for f in CHECKPOINTS.glob("*.safetensors")} == listed


MODULAR = {
    "arch": "modular", "frames_in": 1, "frames_out": 1, "channels": 1, "height": 8, "width": 8,
    "params": {"codec": {"arch": "vqvae", "params": {"dim": 8}}, "predictor": {"arch": "predrnn"}},
}  # fmt: skip
CODEC = ENTRY | {
    "kind": "codec", "spec": ENTRY["spec"] | {"arch": "vqvae", "params": {"dim": 8}},  # type: ignore[operator]
}  # fmt: skip


def test_the_card_of_a_modular_entry_names_its_parts() -> None:
    card = str(stzoo.info("predrnn-modular-mmnist"))
    assert "modular (codec vqvae (width 256, " in card
    assert "predictor predrnn (layers 4, hidden 64, " in card
    assert "codec         vqvae-mmnist" in card


def test_a_modular_entry_names_its_codecs_entry() -> None:
    entry = ENTRY | {"spec": MODULAR, "codec": {"entry": "y"}}
    found = parse_manifest(json.dumps({"schema": 1, "models": {"x": entry, "y": CODEC}}).encode())
    assert found["x"].codec is not None
    assert found["x"].codec.entry == "y"


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"x": ENTRY | {"spec": MODULAR}, "y": CODEC}, "x: 'codec' names the codec's entry"),
        ({"x": ENTRY | {"codec": {"entry": "y"}}, "y": CODEC}, "x: 'codec' names"),
        ({"x": ENTRY | {"spec": MODULAR, "codec": {"entry": "z"}}}, "codec.entry is 'z', which is no codec"),
        (
            {"x": ENTRY | {"spec": MODULAR, "codec": {"entry": "y"}}, "y": ENTRY},
            "codec.entry is 'y', which is no codec",
        ),
        (
            {
                "x": ENTRY | {"spec": MODULAR, "codec": {"entry": "y"}},
                "y": CODEC | {"spec": ENTRY["spec"] | {"arch": "vqvae"}},  # type: ignore[operator]
            },
            r"x: its codec is not that of y: params \{'dim': 8\} for \{\}",
        ),
        (
            {"x": ENTRY | {"spec": MODULAR | {"mean": [0.5]}, "codec": {"entry": "y"}}, "y": CODEC},
            r"x: its codec is not that of y: mean \[0\.5\] for \[0\.0\]",
        ),
        ({"x": ENTRY | {"spec": MODULAR, "codec": {"entry": "y", "sha256": "zz"}}, "y": CODEC}, "64 hexadecimal"),
        (
            {"x": ENTRY | {"spec": MODULAR | {"params": {}}, "codec": {"entry": "y"}}, "y": CODEC},
            "x: 'codec' names .*; spec.params.codec names no architecture",
        ),
    ],
)
def test_parts_that_do_not_belong_together(models: dict[str, object], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        parse_manifest(json.dumps({"schema": 1, "models": models}).encode())


def test_metrics_are_those_of_the_kind() -> None:
    figures = {"protocol": "p", "mse": 1.0, "mae": 1.0, "ssim": 1.0, "psnr": 1.0, "command": "c"}
    forecast, codes = {"persistence_mse": 2.0}, {"codes_used": 3, "perplexity": 2.0}
    nothing: dict[str, float] = {}  # as of a codec without a codebook
    half = {"codes_used": 3}
    for entry, right, wrong in (
        (ENTRY, (forecast,), (codes, forecast | codes, half, nothing)),
        (CODEC, (codes, nothing), (forecast, forecast | codes, half)),
    ):
        for beside in right:
            manifest = {"schema": 1, "models": {"x": entry | {"metrics": [figures | beside]}}}
            parse_manifest(json.dumps(manifest).encode())
        for beside in wrong:
            manifest = {"schema": 1, "models": {"x": entry | {"metrics": [figures | beside]}}}
            with pytest.raises(
                ManifestError, match="x: metrics of a forecaster hold persistence_mse, those of a codec"
            ):
                parse_manifest(json.dumps(manifest).encode())


def test_every_figure_of_the_catalogue_is_a_metric_that_an_entry_is_measured_by() -> None:
    """And every metric is a figure, except for some of the many scores of rain."""
    used = dict.fromkeys(record.definition for record in DATASETS.values())
    measured = {name: set(DEFINITIONS[name].names) for name in used}
    figures = {figure.name for figure in FIGURES if not figure.codec_only}
    assert figures <= set.union(*measured.values())
    assert figures >= set.union(*(names for name, names in measured.items() if name != "stzoo-rain-rates"))


def test_modular_entries_pin_the_codec_that_is_there() -> None:
    for entry in entries().values():
        if entry.codec is not None and entry.weights is not None:
            codec = stzoo.info(entry.codec.entry).weights
            assert codec is not None
            assert codec.sha256 == entry.codec.sha256


def test_listing_filters() -> None:
    assert "vqvae-mmnist" in stzoo.list_models(kind="codec")
    assert "vqvae-mmnist" not in stzoo.list_models(kind="forecaster")
    assert set(stzoo.list_models(kind="codec")) | set(stzoo.list_models(kind="forecaster")) == set(stzoo.list_models())
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
    load = "load_codec" if stzoo.info(name).kind == "codec" else "load"
    code = f"import sys, stzoo; stzoo.{load}({name!r}); print({{'sympy', 'skimage', 'scipy'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_importing_stzoo_imports_one_room_of_it() -> None:
    """The one that decides how torch's threads wait, which must come before torch."""
    code = "import sys, stzoo; print([m for m in sys.modules if m.startswith('stzoo.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "['stzoo.threads']\n"
