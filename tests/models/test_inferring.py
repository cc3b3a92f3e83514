"""What is read from the names and shapes of a published checkpoint is what it was made with."""

import csv
import json
import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from models.published_shapes import published_shapes

from stzoo.errors import SpecError
from stzoo.models import architecture_of, architectures, inferring
from stzoo.models.inferring import infer, readers_of
from stzoo.models.published import Layout
from stzoo.models.reading import Frame, Reader
from stzoo.spec import ModelSpec

WIDE = {"layers": 4, "hidden": 128, "kernel": 5}
SMALL = {"hid_s": 8, "hid_t": 24, "n_s": 2, "n_t": 3}
TOKENS = {"dim": 256, "blocks": 3, "layers": 1, "mlp_ratio": 2, "patch": 8}
TRAIN = {"layers": 3, "order": 3, "steps": 3, "ranks": 8, "kernel": 5, "patch": 1}
SWIN = {"dim": 32, "window": 5, "mlp_ratio": 2, "patch": 3}
GATED = {"hid_s": 64, "hid_t": 256, "n_s": 2, "n_t": 6}


def spec_of(arch: str, frames: tuple[int, int, int, int], **params: Any) -> ModelSpec:
    """`frames` is (T, C, H, W) of the past, as OpenSTL's configurations have it."""
    t, c, h, w = frames
    return ModelSpec(arch=arch, frames_in=t, frames_out=t, channels=c, height=h, width=w, params=params)


SPECS = {
    "convlstm, moving digits": spec_of("convlstm", (10, 1, 64, 64), **WIDE, patch=4),
    "convlstm, large": spec_of("convlstm", (10, 1, 64, 64), **WIDE | {"hidden": 192}, patch=4),
    "predrnn, streets": spec_of("predrnn", (10, 3, 128, 160), **WIDE, patch=2),
    "predrnn, normed": spec_of("predrnn", (10, 1, 64, 64), **WIDE, patch=4, layer_norm=True),
    "predrnn, second version": spec_of("predrnn", (10, 1, 128, 128), **WIDE, patch=2, decouple=True),
    "predrnnpp, traffic": spec_of("predrnnpp", (4, 2, 32, 32), **WIDE, patch=2),
    "mim, wind": spec_of("mim", (12, 2, 32, 64), **WIDE, patch=4),
    "e3dlstm, people": spec_of("e3dlstm", (4, 3, 256, 256), **WIDE, patch=8),
    "e3dlstm, weather": spec_of("e3dlstm", (12, 1, 32, 64), **WIDE, patch=4),
    "mau, moving digits": spec_of("mau", (10, 1, 64, 64), layers=4, hidden=64, kernel=5, patch=1, shrink=4),
    "mau, streets": spec_of("mau", (10, 3, 128, 160), layers=4, hidden=64, kernel=5, patch=1, shrink=2),
    "mau, weather": spec_of("mau", (12, 1, 32, 64), layers=3, hidden=32, kernel=3, patch=2, shrink=1),
    "phydnet": spec_of("phydnet", (10, 3, 64, 64), width=32, lstm=(128, 128), kernel=7),
    "phydnet, deeper": spec_of("phydnet", (4, 3, 64, 64), width=16, lstm=(8, 4, 12), kernel=5),
    "tau, KTH": spec_of("tau", (10, 1, 128, 128), **GATED, mlp_ratio=8),
    "tau, traffic": spec_of("tau", (4, 2, 32, 32), hid_s=32, hid_t=256, n_s=2, n_t=8, mlp_ratio=8),
    "gSTA, streets": spec_of("simvp", (10, 3, 128, 160), **GATED, mlp_ratio=4, translator="gsta"),
    "IncepU, KTH": spec_of("simvp", (10, 1, 128, 128), **GATED, translator="incepu"),
    "Swin": spec_of("simvp", (4, 2, 32, 32), **SMALL, mlp_ratio=3, translator="swin", heads=4, window=4),
    "MLP-Mixer": spec_of("simvp", (4, 2, 32, 32), **SMALL, mlp_ratio=2, translator="mlpmixer"),
    "PFGNet, traffic": spec_of("pfgnet", (4, 2, 32, 32), hid_s=32, n_s=2, n_t=8, mlp_ratio=4, kernels=(9, 15, 31)),
    "PFGNet, other kernels": spec_of("pfgnet", (8, 1, 64, 64), hid_s=8, n_s=4, n_t=3, mlp_ratio=2, kernels=(7, 21)),
    "PredNet, streets": spec_of("prednet", (10, 3, 128, 160), widths=(32, 64, 128, 256), kernel=3),
    "PredNet, low": spec_of("prednet", (4, 2, 32, 32), widths=(6,), kernel=5),
    "CrevNet": spec_of("crevnet", (10, 1, 64, 64), blocks=(4, 5, 3), layers=8),
    "CrevNet, low": spec_of("crevnet", (10, 3, 64, 64), blocks=(2,), layers=1),
    "PredFormer, full": spec_of("predformer", (4, 2, 32, 32), **TOKENS, form="full"),
    "PredFormer, streets": spec_of("predformer", (10, 3, 32, 64), **TOKENS, form="sts"),
    "PredFormer, TST": spec_of("predformer", (4, 1, 32, 32), **TOKENS | {"layers": 2}, form="tst"),
    "PredFormer, binary": spec_of("predformer", (4, 2, 32, 32), **TOKENS, form="ts"),
    "Conv-TT-LSTM": spec_of("convttlstm", (10, 1, 64, 64), **TRAIN, hidden=(32, 48, 48, 32), skip=2),
    "Conv-TT-LSTM, plain": spec_of("convttlstm", (4, 3, 32, 64), **TRAIN, hidden=(8, 16), skip=2),
    "SwinLSTM, deep": spec_of("swinlstm", (10, 3, 120, 180), **SWIN, down=(2, 6), up=(3, 4), heads=(4, 8)),
    "SwinLSTM, base": spec_of("swinlstm", (4, 2, 30, 45), **SWIN, down=(12,), up=(), heads=(4,)),
    "ConvMixer": spec_of("simvp", (4, 2, 32, 32), **SMALL, translator="convmixer"),
}
FULL = (  # methods of OpenSTL's table of configurations, and ours
    ("ConvLSTM", "convlstm", {}),
    ("PredRNN", "predrnn", {}),
    ("PredRNNpp", "predrnnpp", {}),
    ("PredRNNv2", "predrnn", {"decouple": True}),
    ("MIM", "mim", {}),
    ("E3DLSTM", "e3dlstm", {}),
    ("MAU", "mau", {}),
    ("PhyDNet", "phydnet", {}),
    ("TAU", "tau", {}),
    ("SimVP", "simvp", {}),
)


def origin_of(name: str) -> str:
    """OpenSTL, where it has the architecture."""
    return "official" if SPECS[name].arch == "convttlstm" else "openstl"


def agrees(spec: ModelSpec, known: Frame, origin: str = "openstl") -> None:
    """What is inferred is what `spec` says, so that the tensors of both are the same."""
    found = infer(published_shapes(spec, origin), known)
    assert (found.arch, found.origin) == (spec.arch, origin)
    params = found.told.params
    assert {name: params[name] for name in spec.params} == spec.params
    assert not any(params[name] for name in params if name not in spec.params)  # switches that are off
    assert found.told.frame.channels == spec.channels
    assert found.told.frames_in in (None, spec.frames_in)
    size = found.told.frame.height, found.told.frame.width
    if spec.arch in ("mim", "e3dlstm", "mau") or spec.params.get("layer_norm"):
        assert size == (spec.height, spec.width)
    else:
        assert size == (known.height, known.width)


@pytest.mark.parametrize("name", SPECS)
def test_a_configuration_is_read_from_its_tensors(name: str) -> None:
    agrees(SPECS[name], Frame(channels=SPECS[name].channels), origin_of(name))


@pytest.mark.parametrize(
    "name", [n for n, s in SPECS.items() if s.arch in ("pfgnet", "phydnet", "swinlstm", "tau", "simvp")]
)
def test_channels_are_told_where_no_patch_hides_them(name: str) -> None:
    agrees(SPECS[name], Frame())


@pytest.mark.parametrize("name", ["mim, wind", "e3dlstm, people", "mau, streets", "predrnn, normed"])
def test_the_height_tells_a_patch_where_weights_belong_to_places(name: str) -> None:
    agrees(SPECS[name], Frame(height=SPECS[name].height))


@pytest.mark.parametrize(("one", "other"), [("tsst", "stts"), ("fac-st", "fac-ts")])
def test_the_order_of_a_predformer_is_not_told_by_its_tensors(one: str, other: str) -> None:
    a, b = (published_shapes(spec_of("predformer", (4, 2, 32, 32), **TOKENS, form=form)) for form in (one, other))
    assert a == b
    found = infer(a, Frame(channels=2))
    assert "form" in found.told.untold
    assert "form" not in found.told.params
    assert found.told.params == TOKENS


@pytest.mark.parametrize("name", ["phydnet", "mau, streets"])
def test_the_authors_own_checkpoints_are_read(name: str) -> None:
    if SPECS[name].arch == "phydnet":  # those of MAU have the same names as OpenSTL's
        agrees(SPECS[name], Frame(channels=3), "official")
    else:
        assert published_shapes(SPECS[name], "official") == published_shapes(SPECS[name])


@pytest.mark.parametrize(
    ("name", "known", "message"),
    [
        ("predrnn, streets", Frame(), r"patches of 12 channels; say how many channels a frame has"),
        ("predrnn, streets", Frame(channels=5), r"patches of 12 channels, which do not make frames of 5x\?x\?"),
        ("predrnn, streets", Frame(channels=13), r"do not make frames of 13x"),
        ("predrnn, streets", Frame(channels=0), r"tensors of other shapes"),
        ("mim, wind", Frame(channels=2, height=64), r"32 channels, 8 rows and 16 columns of them, .* 2x64x\?"),
        ("mim, wind", Frame(height=20), r"do not make frames of \?x20x\?"),
        ("tau, traffic", Frame(channels=1), r"frames of 2 channels, not of 1"),
        ("phydnet", Frame(channels=1), r"frames of 3 channels, not of 1"),
    ],
)
def test_frames_that_contradict_the_tensors_are_refused(name: str, known: Frame, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        infer(published_shapes(SPECS[name]), known)


@pytest.mark.parametrize(("name", "origin"), [(n, o) for n in SPECS for o in architecture_of(SPECS[n]).layouts])
def test_one_reader_alone_knows_it(name: str, origin: str) -> None:
    """So that the order of architectures, to which other packages add theirs, decides nothing."""
    assert [found[0] for found in readers_of(published_shapes(SPECS[name], origin))] == [SPECS[name].arch]


def test_what_two_architectures_claim_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of ours that another package's reader marks as its own, too."""
    shapes = published_shapes(SPECS["phydnet"])
    other = Layout(rules=(), readers=(Reader("encoder.encoder_E.c1.main.0.weight", lambda shapes, known: {}["x"]),))
    added = replace(architecture_of(SPECS["phydnet"]), name="mine", layouts={"theirs": other})
    monkeypatch.setattr(inferring, "architectures", lambda: {**architectures(), "mine": added})
    with pytest.raises(SpecError, match=r"may be those of phydnet and mine; .* \(--model\)"):
        infer(shapes)


@pytest.mark.parametrize(("lost", "arch"), [("cell_list.0.conv_m.0.weight", "predrnnpp"), (None, "tau")])
def test_a_damaged_checkpoint_is_of_the_architecture_that_it_was(lost: str | None, arch: str) -> None:
    """PredRNN++ has the names of ConvLSTM and PredRNN as well, TAU those of SimVP's gSTA."""
    name = {"predrnnpp": "predrnnpp, traffic", "tau": "tau, KTH"}[arch]
    shapes = dict(published_shapes(SPECS[name]))
    if lost is None:
        last = "hid.enc.0.block.attn.spatial_gating_unit.conv1.weight"
        shapes[last] = (2 * shapes[last][0], *shapes[last][1:])
    else:
        del shapes[lost]
    assert [found[0] for found in readers_of(shapes)] == [arch]


@pytest.mark.parametrize("name", SPECS)
def test_any_checkpoint_is_read_or_refused_in_a_sentence(name: str) -> None:
    """A tensor left out, or with other dimensions, ends in another model or in an error, never in a traceback."""
    shapes, known = published_shapes(SPECS[name], origin_of(name)), Frame(channels=SPECS[name].channels)
    for tensor, shape in shapes.items():
        for other in ({}, {tensor: ()}, {tensor: (0,) * len(shape)}, {tensor: tuple(3 * n for n in shape)}):
            with suppress(SpecError):
                infer({n: s for n, s in shapes.items() if n != tensor} | other, known)


def test_what_is_unknown_is_said() -> None:
    with pytest.raises(SpecError, match="no architecture is known"):
        infer({"features.0.weight": (3, 3)})


def test_every_configuration_of_openstl_is_read() -> None:
    """Where the table of configurations lies beside STZOO_DATA; see tests/models/test_published_goldens.py."""
    table = Path(os.environ.get("STZOO_DATA", "")).parent / "published" / "openstl_configs.tsv"
    if "STZOO_DATA" not in os.environ or not table.is_file():
        pytest.skip("set STZOO_DATA to a folder that lies beside published/ to run this test")
    with table.open(encoding="utf-8") as lines:
        specs = [spec for row in csv.DictReader(lines, delimiter="\t") if (spec := configured(row)) is not None]
    assert len(specs) > 100
    for spec in {json.dumps(spec.to_dict()): spec for spec in specs}.values():  # many data sets share one
        agrees(spec, Frame(channels=spec.channels))


def configured(row: dict[str, str]) -> ModelSpec | None:
    """The spec of a row of that table; None for translators of SimVP that tests/published/test_records.py looks at."""
    settings = dict(part.split("=", 1) for part in row["model settings"].split())
    frames = tuple(int(n) for n in re.findall(r"\d+", row["frames"].split("]")[0]))
    arch, params = next((ours, dict(more)) for method, ours, more in FULL if method == row["method"])
    if arch in ("tau", "simvp"):
        translator = settings["model_type"].lower()
        if translator not in ("tau", "gsta", "incepu"):
            return None
        params |= {k.lower(): int(settings[k]) for k in ("hid_S", "hid_T", "N_S", "N_T")}
        params |= {} if translator == "tau" else {"translator": translator}
        params |= {} if translator == "incepu" else {"mlp_ratio": 8}
    elif arch == "phydnet":
        params |= {"width": 32, "lstm": (128, 128), "kernel": 7}
    else:
        hidden = settings["num_hidden"].split(",")
        params |= {"layers": len(hidden), "hidden": int(hidden[0]), "kernel": int(settings["filter_size"])}
        params |= {"patch": int(settings["patch_size"])}
        params |= {"shrink": int(settings["sr_size"])} if arch == "mau" else {}
    return spec_of(arch, frames, **params)  # type: ignore[arg-type]
