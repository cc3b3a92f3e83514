"""SimVP's MetaFormer translators as published: outputs, parameter counts, names and shapes of tensors."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from metaformer_specs import KINDS, SMALL, WITHOUT_MLP, small, spec_of
from safetensors.torch import load_file

import stzoo
from stzoo.convert import convert
from stzoo.errors import SpecError
from stzoo.models import build
from stzoo.models.inferring import infer, readers_of
from stzoo.models.reading import Frame

Shapes = dict[str, tuple[int, ...]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_forecast_is_the_published_one(kind: str, tmp_path: Path) -> None:
    """Random weights in the publisher's layout, and what the publisher's code made of them."""
    folder = Path(os.environ.get("STZOO_DATA", "")).parent / "published" / "golden"
    if not (folder / f"simvp_{kind}.pth").is_file():
        pytest.skip("put the folder published/ beside the one that STZOO_DATA names to run this test")
    settings = json.loads((folder / "specs.json").read_text())[f"simvp_{kind}"]
    frames, channels, height, width = settings["in_shape"]
    params = {"hid_s": settings["hid_S"], "hid_t": settings["hid_T"], "n_s": settings["N_S"], "n_t": settings["N_T"]}
    ratio = {} if kind in WITHOUT_MLP else {"mlp_ratio": int(settings["mlp_ratio"])}
    spec = spec_of(kind, frames, channels, height, width, **params, **ratio)
    convert("openstl", folder / f"simvp_{kind}.pth", spec, tmp_path / "out")
    model, io = stzoo.load(tmp_path / "out"), load_file(folder / f"simvp_{kind}.io.safetensors")
    torch.testing.assert_close(model.predict(io["x"]), io["y"], rtol=0, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(model.module.eval()(io["x"]), io["y"], rtol=0, atol=1e-5)


# Parameters in millions, as counted from OpenSTL's configurations: of Moving MNIST, KITTI to Caltech and TaxiBJ.
COUNTS = {
    "vit": (46.102, 12.701, 9.658),
    "swin": (46.105, 15.333, 9.661),
    "uniformer": (44.835, 11.787, 9.525),
    "mlpmixer": (38.192, 22.236, 8.244),
    "convmixer": (3.919, 1.534, 0.841),
    "poolformer": (37.115, 12.378, 7.753),
    "convnext": (37.314, 12.468, 7.844),
    "van": (44.521, 14.895, 9.484),
    "hornet": (45.738, 15.263, 9.680),
    "moganet": (46.777, 15.638, 9.964),
}


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_the_published_ones(kind: str) -> None:
    depth = 4 if kind in ("vit", "uniformer") else 6
    specs = (
        spec_of(kind, 10, 1, 64, 64, hid_s=64, hid_t=512, n_s=4, n_t=8),
        spec_of(kind, 10, 3, 128, 160, hid_s=64, hid_t=256, n_s=2, n_t=depth),
        spec_of(kind, 4, 2, 32, 32, hid_s=32, hid_t=256, n_s=2, n_t=8),
    )
    counted = (sum(p.numel() for p in build(spec, "meta").parameters()) / 1e6 for spec in specs)
    assert tuple(round(n, 3) for n in counted) == COUNTS[kind]


def linear(name: str, c_in: int, c_out: int) -> Shapes:
    return {f"{name}.weight": (c_out, c_in), f"{name}.bias": (c_out,)}


def conv(name: str, c_in: int, c_out: int, kernel: int = 1) -> Shapes:
    return {f"{name}.weight": (c_out, c_in, kernel, kernel), f"{name}.bias": (c_out,)}


def norm(name: str, dim: int, counts: bool = False) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}
    if counts:
        shapes |= {f"{name}.running_mean": (dim,), f"{name}.running_var": (dim,), f"{name}.num_batches_tracked": ()}
    return shapes


def published_block(kind: str, c: int, first_or_changes: bool) -> Shapes:
    """The tensors of one block, spelt out; c channels, 2 c in the MLP, 8 x 16 features, windows of 4."""
    m, pre = 2 * c, norm("norm1", c) | norm("norm2", c)
    batch = norm("norm1", c, True) | norm("norm2", c, True)
    attention = linear("attn.qkv", c, 3 * c) | linear("attn.proj", c, c)
    mlp = linear("mlp.fc1", c, m) | linear("mlp.fc2", m, c)
    pixels = conv("mlp.fc1", c, m) | conv("mlp.fc2", m, c)
    if kind == "vit":
        return pre | attention | mlp
    if kind == "swin":
        return pre | attention | mlp | {"attn.relative_position_bias_table": (49, 8)}
    if kind == "uniformer" and first_or_changes:
        mixing = conv("conv1", c, c) | conv("conv2", c, c) | conv("attn", 1, c, 5)
        return conv("pos_embed", 1, c, 3) | batch | mixing | pixels
    if kind == "uniformer":
        return conv("pos_embed", 1, c, 3) | pre | attention | mlp | {"gamma_1": (c,), "gamma_2": (c,)}
    if kind == "mlpmixer":
        tokens = linear("mlp_tokens.fc1", 128, c // 2) | linear("mlp_tokens.fc2", c // 2, 128)
        return pre | tokens | linear("mlp_channels.fc1", c, m) | linear("mlp_channels.fc2", m, c)
    if kind == "convmixer":
        return conv("conv_dw", 1, c, 11) | norm("norm_1", c, True) | conv("conv_pw", c, c) | norm("norm_2", c, True)
    if kind == "poolformer":
        return pre | pixels | {"layer_scale_1": (c,), "layer_scale_2": (c,)}
    if kind == "convnext":
        return conv("conv_dw", 1, c, 7) | norm("norm", c) | pixels | {"gamma": (c,)}
    if kind == "hornet":
        mixing = conv("gnconv.proj_in", c, 2 * c) | conv("gnconv.dwconv", 1, 15 * c // 8, 7)
        mixing |= conv("gnconv.proj_out", c, c)
        for i in range(3):
            mixing |= conv(f"gnconv.pws.{i}", c >> 3 - i, c >> 2 - i)
        return pre | mixing | linear("pwconv1", c, m) | linear("pwconv2", m, c) | {"gamma1": (c,), "gamma2": (c,)}
    mixing = conv("attn.proj_1", c, c) | conv("attn.proj_2", c, c)
    if kind == "van":
        mixing |= conv("attn.spatial_gating_unit.conv0", 1, c, 5) | conv("attn.spatial_gating_unit.conv1", c, c)
        mixing |= conv("attn.spatial_gating_unit.conv_spatial", 1, c, 7) | conv("mlp.dwconv.dwconv", 1, m, 3)
        return batch | mixing | pixels | {"layer_scale_1": (c,), "layer_scale_2": (c,)}
    assert kind == "moganet"
    mixing |= conv("attn.gate", c, c) | conv("attn.value.DW_conv0", 1, c, 5) | conv("attn.value.PW_conv", c, c)
    mixing |= conv("attn.value.DW_conv1", 1, 3 * c // 8, 5) | conv("attn.value.DW_conv2", 1, c // 2, 7)
    mixing |= conv("mlp.dwconv", 1, m, 3) | conv("mlp.decompose", m, 1)
    scales = dict.fromkeys(("layer_scale_1", "layer_scale_2", "attn.sigma"), (1, c, 1, 1))
    return batch | mixing | pixels | scales | {"mlp.sigma": (1, m, 1, 1)}


def published_translator(kind: str) -> Shapes:
    """The published tensors of the translator of `small(kind)`: 16, 24 and 24 channels wide."""
    shapes: Shapes = {}
    for i, (c, c_out) in enumerate(((16, 24), (24, 24), (24, 16))):
        block = published_block(kind, c, first_or_changes=i != 1)
        shapes |= {f"hid.enc.{i}.block.{name}": shape for name, shape in block.items()}
        if c != c_out:
            shapes |= conv(f"hid.enc.{i}.reduction", c, c_out)
    return shapes


def published_frames() -> Shapes:
    """The published tensors of the encoder and decoder of `small(kind)`."""
    shapes = conv("enc.enc.0.conv.conv", 2, 4, 3) | conv("enc.enc.1.conv.conv", 4, 4, 3)
    shapes |= conv("dec.dec.0.conv.conv.0", 4, 16, 3) | conv("dec.dec.1.conv.conv", 4, 4, 3) | conv("dec.readout", 4, 2)
    for layer in ("enc.enc.0", "enc.enc.1", "dec.dec.0", "dec.dec.1"):
        shapes |= norm(f"{layer}.conv.norm", 4)
    return shapes


RENAMED = {  # parts of published names, and what takes their place in ours
    "swin": {"attn.relative_position_bias_table": "windows.bias_table", "attn.qkv": "windows.attn.qkv",
             "attn.proj": "windows.attn.proj"},
    "hornet": {"gnconv.proj_in": "gated.enter", "gnconv.proj_out": "gated.leave", "gnconv.dwconv": "gated.spread",
               "gnconv.pws": "gated.widen", "pwconv": "feed.fc"},
    "moganet": {"DW_conv0": "near", "DW_conv1": "far", "DW_conv2": "farthest", "PW_conv": "mix"},
    "van": {"block.": "", "layer_scale_": "scale", "attn.proj_": "proj", "mlp.fc1": "mlp.0",
            "mlp.dwconv.dwconv": "mlp.1", "mlp.fc2": "mlp.3", "attn.spatial_gating_unit.conv0": "gate.statical.0",
            "attn.spatial_gating_unit.conv_spatial": "gate.statical.1",
            "attn.spatial_gating_unit.conv1": "gate.statical.2"},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_published_tensor_finds_its_place(kind: str, tmp_path: Path) -> None:
    shapes = published_frames() | published_translator(kind)
    state = {n: torch.tensor(3) if n.endswith("tracked") else torch.rand(shape) for n, shape in shapes.items()}
    dead = {}
    if kind == "swin":
        dead = {f"hid.enc.{i}.block.attn.relative_position_index": torch.zeros(16, 16).long() for i in range(3)}
        dead["hid.enc.1.block.attn_mask"] = torch.zeros(8, 16, 16)
    torch.save(state | dead, tmp_path / "ckpt.pth")
    report = convert("openstl", tmp_path / "ckpt.pth", small(kind), tmp_path / "out")
    assert report.tensors == len(state)
    assert set(report.unused) == set(dead)
    loaded = stzoo.load(tmp_path / "out").module.state_dict()
    for name in published_translator(kind):
        ours = name.replace("hid.enc.", "translator.")
        for theirs, our in RENAMED.get(kind, {}).items():
            ours = ours.replace(theirs, our)
        assert torch.equal(loaded[ours].flatten(), state[name].flatten()), name


def told(shapes: Shapes) -> tuple[int | None, int | None, dict[str, Any]]:
    """Channels, past frames and parameters of a SimVP, as its tensors tell them."""
    found = infer(shapes)
    assert len(readers_of(shapes)) == 1
    assert found.arch == "simvp"
    return found.told.frame.channels, found.told.frames_in, dict(found.told.params)


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_shapes_tell_the_settings(kind: str) -> None:
    spec = small(kind).replace(**({"heads": 8, "window": 4} if kind == "swin" else {}))
    assert told(published_frames() | published_translator(kind)) == (2, 4, dict(spec.params))


def test_the_first_two_translators_are_told() -> None:
    gsta = published_frames() | published_translator("van")
    for i, c in enumerate((16, 24, 24)):
        gsta |= conv(f"hid.enc.{i}.block.attn.spatial_gating_unit.conv1", c, 2 * c)
    assert told(gsta) == (2, 4, SMALL | {"translator": "gsta", "mlp_ratio": 2})
    incepu = published_frames() | conv("hid.enc.0.conv1", 16, 12) | conv("hid.enc.1.conv1", 24, 12)
    incepu |= (
        conv("hid.enc.0.layers.0.conv", 12, 24) | conv("hid.dec.0.conv1", 24, 12) | conv("hid.dec.1.conv1", 48, 12)
    )
    assert told(incepu) == (2, 4, SMALL | {"translator": "incepu", "n_t": 2})


def test_what_is_no_simvp_tells_nothing() -> None:
    shapes = published_frames() | published_translator("vit")
    for lost, message in (
        ("enc.enc.0.conv.conv.weight", r"but no tensor enc\.enc\.0\.conv\.conv\.weight"),
        ("hid.enc.0.block.attn.qkv.weight", "no architecture is known"),
        ("hid.enc.0.block.norm1.bias", r"but no tensor hid\.enc\.0\.block\.norm1\.bias"),
    ):
        with pytest.raises(SpecError, match=message):
            infer({name: shape for name, shape in shapes.items() if name != lost})
    squeeze = linear("hid.enc.0.block.attn.spatial_gating_unit.fc.0", 16, 4)
    shapes = published_frames() | published_translator("van") | squeeze
    assert infer(shapes).arch == "tau"
    assert len(readers_of(shapes)) == 1


def test_an_mlp_mixer_says_if_frames_are_of_another_size() -> None:
    shapes = published_frames() | published_translator("mlpmixer")
    infer(shapes, Frame(height=16, width=32))
    with pytest.raises(SpecError, match=r"weights for 128 places of 2x2 pixels, which do not make frames of \?x32x32"):
        infer(shapes, Frame(height=32, width=32))
