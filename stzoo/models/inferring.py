"""What the names and shapes of a published checkpoint say of its model: the architecture, and how large its parts are.

Read from the tensors: widths, depths, kernel sizes, how many channels a frame has, and, where a tensor depends on it,
how many frames go in and how large they are. No tensor tells activations, how many frames come out, or the range of
values; nor does one tell the settings that `Inferred.untold` names, which are for the caller to set.

Names are those of `stzoo.models.published.Layout.rules`, that is, without "module." and such in front.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from math import isqrt
from typing import Any, cast

from stzoo.errors import SpecError
from stzoo.models.predformer import TRANSFORMERS
from stzoo.models.published import Shape
from stzoo.spec import bounded

Shapes = Mapping[str, Shape]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Channels, height and width of a frame, as far as they are known."""

    channels: int | None = bounded(None, 1, 4096)
    height: int | None = bounded(None, 1, 16384)
    width: int | None = bounded(None, 1, 16384)


@dataclass(frozen=True, kw_only=True)
class Inferred:
    """What the tensors say.

    Attributes:
        arch: `ModelSpec.arch`.
        origin: the layout whose names these are, one of `Architecture.layouts`.
        params: for `ModelSpec.params`; what is not among them cannot be read from tensors.
        frame: channels, height and width; None where no tensor depends on them.
        frames_in: how many frames go in; None where no tensor depends on it.
        untold: what else in `ModelSpec.params` a forecast depends on and no tensor tells.
        product: two of `untold`, and what they make when multiplied, which the tensors do tell.
        hint: the field of `frame` that was needed to read the others, and that the tensors do not tell, therefore.
    """

    arch: str
    params: Mapping[str, Any]
    frame: Frame
    frames_in: int | None = None
    origin: str = "openstl"
    untold: tuple[str, ...] = ()
    product: tuple[str, str, int] | None = None
    hint: str | None = None


class ChannelsUntold(SpecError):
    """The first layer reads patches of `features` channels, and nothing says how many channels a frame has.

    Attributes:
        features: how many channels a patch has.
        told: the fields of `Frame` that the tensors tell as soon as the channels are known.
    """

    def __init__(self, features: int, told: tuple[str, ...]):
        super().__init__(
            f"the first layer reads patches of {features} channels; say how many channels a frame has (--channels or "
            "--dataset), because no tensor tells that from the size of a patch"
        )
        self.features, self.told = features, told


@dataclass(frozen=True)
class Reader:
    """One architecture: `mark` is a name that its checkpoints have and that those of later readers need not have."""

    mark: str
    read: Callable[[Shapes, Frame], Inferred]
    also: Callable[[Shapes], bool] = field(default=lambda shapes: True)


def infer(shapes: Shapes, known: Frame = Frame()) -> Inferred:
    """The model that tensors of these names and shapes belong to.

    Args:
        shapes: the names and shapes of all tensors of the checkpoint.
        known: what is known of the frames. Recurrent models read patches, and a tensor tells only how many channels a
            patch has: `channels` is needed for them, or, where weights belong to places, `height`.

    Raises:
        SpecError: no architecture is known that has such names, a tensor is missing or has too few dimensions, or what
            is known contradicts the tensors.
    """
    reader = _reader(shapes)
    if reader is None:
        absent = next((name for name, mark in ABSENT.items() if any(re.match(mark, tensor) for tensor in shapes)), None)
        if absent is not None:
            raise SpecError(f"its tensors are those of {absent}, an architecture that stzoo does not have")
        raise SpecError(
            "no architecture is known whose published checkpoints have tensors of these names; if you know the model, "
            "name it (--model)"
        )
    try:
        return reader.read(shapes, known)
    except KeyError as error:
        raise SpecError(f"the checkpoint has {reader.mark}, but no tensor {error.args[0]}") from None
    except (IndexError, ZeroDivisionError):  # too few dimensions, or an empty one
        raise SpecError(f"the checkpoint has {reader.mark}, but tensors of other shapes beside it") from None


def is_recognised(names: Collection[str]) -> bool:
    """Whether tensors of these names are those of an architecture that is known, be it one that stzoo has or not."""
    marks = {reader.mark for reader in READERS}
    return not marks.isdisjoint(names) or any(re.match(mark, name) for name in names for mark in ABSENT.values())


def _reader(shapes: Shapes) -> Reader | None:
    return next((reader for reader in READERS if reader.mark in shapes and reader.also(shapes)), None)


def depth(shapes: Shapes, stack: str) -> int:
    """How many parts there are of a stack, named `stack`.0, `stack`.1, and so on."""
    heads = {name[len(stack) + 1 :].split(".", 1)[0] for name in shapes if name.startswith(f"{stack}.")}
    return next(i for i in range(len(heads) + 1) if str(i) not in heads)


def patches(features: int, known: Frame, grid: tuple[int, int] | None, shrink: int = 1) -> tuple[int, Frame]:
    """The size of a patch, and the frame, of a model whose first layer reads `features` channels.

    Args:
        grid: rows and columns of the planes that weights belong to, if there are such.
        shrink: how many patches lie side by side in one place of the grid.

    Raises:
        SpecError: `known` does not tell, or contradicts the tensors.
    """
    if known.channels is not None:
        patch = isqrt(features // known.channels)
    elif grid is not None and known.height is not None:
        patch = known.height // (grid[0] * shrink)
    else:
        raise ChannelsUntold(features, () if grid is None else ("height", "width"))
    channels = features // max(1, patch * patch)
    height, width = (None, None) if grid is None else (side * shrink * patch for side in grid)
    found = Frame(channels=channels, height=height, width=width)
    agrees = all(
        None in (wanted, got) or wanted == got
        for wanted, got in (
            (known.channels, channels),
            (known.height, height),
            (known.width, width),
        )
    )
    if not patch or channels * patch * patch != features or not agrees:
        raise SpecError(
            f"the first layer reads patches of {features} channels{_of(grid, shrink)}, which do not make frames of "
            f"{_shown(known)}"
        )
    return patch, found


def _of(grid: tuple[int, int] | None, shrink: int) -> str:
    return "" if grid is None else f", {grid[0] * shrink} rows and {grid[1] * shrink} columns of them"


def _shown(frame: Frame) -> str:
    return f"{frame.channels or '?'}x{frame.height or '?'}x{frame.width or '?'} (channels x height x width)"


def _grid(shapes: Shapes, name: str) -> tuple[int, int]:
    """The last two dimensions of a weight for every place."""
    return shapes[name][-2], shapes[name][-1]


def _stacked(
    arch: str, first: str, stack: str = "cell_list", place: str = "", untold: tuple[str, ...] = ()
) -> Callable[[Shapes, Frame], Inferred]:
    """A reader of `layers` cells named `stack`.0 and so on, whose input convolution is `first`.

    `place` is a weight of the model that belongs to places, if it has one.
    """

    def read(shapes: Shapes, known: Frame) -> Inferred:
        inputs = shapes[f"{stack}.0.{first}"]
        grid = _grid(shapes, place) if place in shapes else None
        patch, frame = patches(inputs[1], known, grid)
        params = {
            "layers": depth(shapes, stack),
            "hidden": shapes["conv_last.weight"][1],
            "kernel": inputs[-1],
            "patch": patch,
        }
        return Inferred(arch=arch, params=params, frame=frame, untold=untold, hint=_hint(known))

    return read


def _hint(known: Frame) -> str:
    """Which field of what is known told `patches` the size of a patch."""
    return "height" if known.channels is None else "channels"


def _predrnn(shapes: Shapes, known: Frame) -> Inferred:
    norm = "cell_list.0.conv_x.1.weight"
    plain = _stacked("predrnn", "conv_x.0.weight", place=norm)(shapes, known)
    more = {"layer_norm": norm in shapes, "decouple": "adapter.weight" in shapes}
    return replace(plain, params=dict(plain.params) | more)


def _mau(shapes: Shapes, known: Frame) -> Inferred:
    first, gates = shapes["encoders.0.encoder_t_conv-1.weight"], shapes["cell_list.0.conv_s.0.weight"]
    shrink = 2 ** min(depth(shapes, "encoders") - 1, 16)  # more than any configuration may have, and still printable
    patch, frame = patches(first[1], known, _grid(shapes, "cell_list.0.conv_s.1.weight"), shrink)
    params = {
        "layers": depth(shapes, "cell_list"),
        "hidden": first[0],
        "kernel": gates[-1],
        "patch": patch,
        "shrink": shrink,
    }
    return Inferred(arch="mau", params=params, frame=frame, untold=("tau", "recall"), hint=_hint(known))


def _lmc(shapes: Shapes, known: Frame) -> Inferred:
    first = shapes["encoder.0.weight"]
    params = {
        "width": first[0],
        "layers": depth(shapes, "convlstm_list"),
        "slots": shapes["memory.memory_w"][0],
        "pools": 4 if "memory.embedder.2.weight" in shapes else 3,
    }
    frame = Frame(channels=_same(first[1], known.channels))
    return Inferred(arch="lmc", params=params, frame=frame, origin="official", untold=("sigmoid",))


def _phydnet(prefix: str, origin: str) -> Callable[[Shapes, Frame], Inferred]:
    def read(shapes: Shapes, known: Frame) -> Inferred:
        first = shapes[f"{prefix}encoder_E.c1.main.0.weight"]
        stack = f"{prefix}convcell.cell_list"
        widths = [shapes[f"{stack}.{i}.conv.weight"][0] // 4 for i in range(depth(shapes, stack))]
        params = {
            "width": first[0],
            "lstm": tuple(widths[:-1]),
            "kernel": shapes[f"{prefix}phycell.cell_list.0.F.conv1.weight"][-1],
        }
        frame = Frame(channels=_same(first[1], known.channels))
        untold = ("patch", "sigmoid")
        return Inferred(arch="phydnet", params=params, frame=frame, origin=origin, untold=untold)

    return read


def _convttlstm(shapes: Shapes, known: Frame) -> Inferred:
    """How many blocks are skipped is told by what reads more channels than the block before it has."""
    first, order = shapes[f"{_TRAIN}.0.weight"], depth(shapes, _TRAIN)
    gates = f"layers.{order - 1}.weight"
    widths = [shapes[f"layers.b0l0.{gates}"][0] // 4]
    while f"layers.b{len(widths)}l0.{gates}" in shapes:
        widths.append(shapes[f"layers.b{len(widths)}l0.{gates}"][0] // 4)
    if first[4] != 1:
        raise SpecError(f"its cells read {first[4]} hidden states with one kernel; stzoo reads published ones of one")
    ranks, blocks = first[0], range(1, len(widths))
    inputs = [*(shapes[f"layers.b{b}l0.{gates}"][1] - ranks for b in blocks), shapes["layers.output.weight"][1]]
    skips = [b for b, (width, reads) in enumerate(zip(widths, inputs, strict=True)) if reads > width]
    params = {
        "hidden": tuple(widths),
        "layers": sum(re.fullmatch(r"layers\.b0l\d+\.layers_\.0\.weight", name) is not None for name in shapes),
        "skip": skips[0] if skips else max(1, len(widths)),
        "order": order,
        "steps": order,
        "ranks": ranks,
        "kernel": first[2],
        "patch": 1,
    }
    channels = _same(shapes[f"layers.b0l0.{gates}"][1] - ranks, known.channels)
    frame = Frame(channels=channels)
    return Inferred(arch="convttlstm", params=params, frame=frame, origin="official", untold=("sigmoid",))


def _swinlstm(way: str, cell: str, blocks: str) -> Callable[[Shapes, Frame], Inferred]:
    """A reader of cells named `way`.`cell` with a number, each of a stack of blocks called `blocks`."""

    def read(shapes: Shapes, known: Frame) -> Inferred:
        first = shapes[f"{way}.patch_embed.proj.weight"]
        cells = [f"{way}.{cell}.{i}" for i in range(depth(shapes, f"{way}.{cell}"))] or [f"{way}.{cell}"]
        tables = [shapes[f"{name}.{blocks}.0.attn.relative_position_bias_table"] for name in cells]
        ups = depth(shapes, "Upsample.layers")
        params = {
            "dim": first[0],
            "down": tuple(depth(shapes, f"{name}.{blocks}") for name in cells),
            "up": tuple(depth(shapes, f"Upsample.layers.{i}.{blocks}") for i in range(ups)),
            "heads": tuple(table[1] for table in tables),
            "window": (isqrt(tables[0][0]) + 1) // 2,
            "mlp_ratio": shapes[f"{cells[0]}.{blocks}.0.mlp.fc1.weight"][0] // first[0],
            "patch": first[-1],
        }
        return Inferred(arch="swinlstm", params=params, frame=Frame(channels=_same(first[1], known.channels)))

    return read


def _predformer(shapes: Shapes, known: Frame) -> Inferred:
    """Two pairs of forms have the same tensors in another order, which no tensor tells.

    Queries, keys and values lie below each other, those of all heads together.
    """
    dim = shapes[_EMBEDDING][0]
    patch, frame = patches(shapes[_EMBEDDING][1], known, None)
    where = "blocks.0." if depth(shapes, "blocks") else ""
    names = {n.removeprefix(where).split(".")[0] for n in shapes if re.match(rf"{where}\w+_transformer\w*\.", n)}
    forms = [form for form, ours in TRANSFORMERS.items() if {_as_published(name, where) for name in ours} == names]
    if not forms:
        raise SpecError(f"its transformers are {', '.join(sorted(names)) or 'none'}, which are of no known form")
    first = f"{where}{min(names)}.layers"
    params: dict[str, Any] = {
        "dim": dim,
        "blocks": depth(shapes, "blocks") or depth(shapes, first),
        "layers": depth(shapes, first) if where else 1,
        "mlp_ratio": shapes[f"{first}.0.1.fn.fc1_g.weight"][0] // dim,
        "patch": patch,
    }
    params |= {"form": forms[0]} if len(forms) == 1 else {}
    untold = ("heads", "head_dim", *(("form",) if len(forms) > 1 else ()))
    attended = ("heads", "head_dim", shapes[f"{first}.0.0.fn.to_qkv.weight"][0] // 3)
    return Inferred(arch="predformer", params=params, frame=frame, untold=untold, product=attended, hint=_hint(known))


def _as_published(name: str, where: str) -> str:
    """The published name of a transformer of ours, if it can lie there: those that lie in no block are deep ones."""
    deep, short, end = cast("re.Match[str]", re.fullmatch(r"(deep_)?(\w+?)(|_first|_second)", name)).groups()
    return f"{short}_transformer{end}" if bool(deep) != bool(where) else ""


def _prednet(shapes: Shapes, known: Frame) -> Inferred:
    """Of the predictions, one for each layer, every other name is taken: activations lie between them."""
    widths: list[int] = []
    while (prediction := f"Ahat.{2 * len(widths)}.weight") in shapes:
        widths.append(shapes[prediction][0])
    params = {"widths": tuple(widths[1:]), "kernel": shapes["Ahat.0.weight"][-1]}
    return Inferred(arch="prednet", params=params, frame=Frame(channels=_same(widths[0], known.channels)))


def _crevnet(shapes: Shapes, known: Frame) -> Inferred:
    """A stage begins with the block that makes four times the channels of what it reads."""
    blocks: list[int] = []
    for number in range(depth(shapes, "encoder.stack")):
        body = f"encoder.stack.{number}.bottleneck_block."
        reads = shapes[f"{body}{2 if number else 0}.weight"][1]
        makes = shapes[f"{body}{9 if number else 7}.weight"][0]
        if number == 0 or makes > reads:
            blocks.append(0)
        blocks[-1] += 1
    params = {"blocks": tuple(blocks), "layers": depth(shapes, "frame_predictor.convlstm")}
    channels = shapes["encoder.stack.0.bottleneck_block.0.weight"][1] // 2
    return Inferred(arch="crevnet", params=params, frame=Frame(channels=_same(channels, known.channels)))


def _translated(arch: str, translator: str, mark: str) -> Callable[[Shapes, Frame], Inferred]:
    """A reader of TAU, or of SimVP with this translator: they share the encoder and the decoder.

    The first block of the translator reads `outer` channels, those of all past frames.
    """

    def read(shapes: Shapes, known: Frame) -> Inferred:
        first, told = shapes["enc.enc.0.conv.conv.weight"], shapes[mark]
        hid_s, n_s = first[0], depth(shapes, "enc.enc")
        params: dict[str, Any] = {"hid_s": hid_s, "n_s": n_s, "n_t": depth(shapes, "hid.enc")}
        params |= {"translator": translator} if arch == "simvp" else {}
        if translator == "incepu":
            outer, params["hid_t"] = told[1], shapes["hid.enc.0.layers.0.conv.weight"][0]
        else:
            outer = shapes[f"{BLOCK}{_NORM.get(translator, 'norm1')}.bias"][0]
            params["hid_t"] = shapes.get("hid.enc.0.reduction.bias", (outer,))[0]
            if translator != "convmixer":
                params["mlp_ratio"] = shapes[f"{BLOCK}{_WIDE.get(translator, 'mlp.fc1')}.bias"][0] // outer
        if translator == "swin":  # a bias for each head, and for each way from one place of a window to another
            params |= {"heads": told[1], "window": (isqrt(told[0]) + 1) // 2}
        frame = Frame(channels=_same(first[1], known.channels))
        if translator == "mlpmixer":
            _check_places(told[1], 2 ** min(n_s // 2, 16), known)
        untold = (*(("heads",) if translator in ("vit", "uniformer") else ()), "from_last", "period", "lagrangian")
        return Inferred(arch=arch, params=params, frame=frame, frames_in=outer // hid_s, untold=untold)

    return read


def _pfgnet(shapes: Shapes, known: Frame) -> Inferred:
    """Published ones have no `hid_t`, so that their blocks tell how many frames go in."""
    first = shapes["enc.enc.0.conv.conv.weight"]
    hid_s, dim, rings = first[0], shapes[f"{_PFG}grn_dw.gamma"][1], depth(shapes, f"{_PFG}tm.branches")
    params = {
        "hid_s": hid_s,
        "n_s": depth(shapes, "enc.enc"),
        "n_t": depth(shapes, "hid.blocks"),
        "kernels": tuple(shapes[f"{_PFG}tm.branches.{i}.dw_h.weight"][-1] for i in range(rings)),
        "mlp_ratio": shapes[f"{_PFG}dw_v.weight"][0] // dim,
    }
    frame = Frame(channels=_same(first[1], known.channels))
    return Inferred(arch="pfgnet", params=params, frame=frame, frames_in=dim // hid_s)


def _check_places(places: int, fold: int, known: Frame) -> None:
    """An MLP-Mixer has weights for each place of its features, which are `fold` times smaller than the frame."""
    if known.height and known.width and (known.height // fold) * (known.width // fold) != places:
        raise SpecError(
            f"the translator has weights for {places} places of {fold}x{fold} pixels, which do not make frames of "
            f"{_shown(known)}"
        )


def _same(found: int, known: int | None) -> int:
    if known not in (None, found):
        raise SpecError(f"the first layer reads frames of {found} channels, not of {known}")
    return found


_TRAIN = "layers.b0l0.layers_"  # of the first cell of a Conv-TT-LSTM
_EMBEDDING = "to_patch_embedding.1.weight"
_PFG = "hid.blocks.0."
BLOCK = "hid.enc.0.block."  # the first one of a translator
_GATE = f"{BLOCK}attn.spatial_gating_unit."
_NORM = {"convmixer": "conv_dw", "convnext": "conv_dw"}  # whose bias has one value for each channel; else that of norm1
_WIDE = {"hornet": "pwconv1", "mlpmixer": "mlp_channels.fc1"}  # the first layer of a block's MLP; else mlp.fc1


def _doubles(shapes: Shapes) -> bool:
    """gSTA's attention ends in twice the channels; that of VAN, whose tensors have the same names, does not."""
    shape = shapes[f"{_GATE}conv1.weight"]
    return len(shape) > 1 and shape[0] == 2 * shape[1]


def _translator(
    name: str, mark: str, arch: str = "simvp", also: Callable[[Shapes], bool] = lambda shapes: True
) -> Reader:
    return Reader(mark, _translated(arch, name, mark), also)


READERS = (
    Reader("gradient_highway.x_concat.0.weight", _stacked("predrnnpp", "conv_x.0.weight")),
    Reader(
        "stlstm_layer.0.conv_x.0.weight",
        _stacked("mim", "conv_x.0.weight", "stlstm_layer", "stlstm_layer.1.ct_weight"),
    ),
    Reader(
        "cell_list.0.conv_gm.0.conv3d.weight",
        _stacked("e3dlstm", "conv_x.0.conv3d.weight", place="cell_list.0._norm_c_t.weight", untold=("stride",)),
    ),
    Reader("cell_list.0.conv_t_next.0.weight", _mau),
    Reader("cell_list.0.conv_m.0.weight", _predrnn),
    Reader("cell_list.0.conv_x.0.weight", _stacked("convlstm", "conv_x.0.weight")),
    Reader(_EMBEDDING, _predformer),
    Reader(f"{_PFG}tm.gate_head.weight", _pfgnet),
    Reader("Ahat.0.weight", _prednet),
    Reader("encoder.stack.0.bottleneck_block.0.weight", _crevnet),
    Reader("memory.memory_w", _lmc),
    Reader(f"{_TRAIN}.0.weight", _convttlstm),
    Reader("Downsample.layers.0.Swin.layers.0.red.weight", _swinlstm("Downsample", "layers", "Swin.layers")),
    Reader("Downsample.layers.0.STBs.0.red.weight", _swinlstm("Downsample", "layers", "STBs")),
    Reader("ST.layers.0.Swin.layers.0.red.weight", _swinlstm("ST", "layers", "Swin.layers")),
    Reader("ST.layer.STBs.0.red.weight", _swinlstm("ST", "layer", "STBs")),
    Reader("encoder.encoder_E.c1.main.0.weight", _phydnet("encoder.", "openstl")),
    Reader("encoder_E.c1.main.0.weight", _phydnet("", "official")),
    _translator("tau", f"{_GATE}fc.0.weight", arch="tau"),
    _translator("gsta", f"{_GATE}conv1.weight", also=_doubles),
    _translator("van", f"{_GATE}conv1.weight"),
    _translator("incepu", "hid.enc.0.conv1.weight"),
    _translator("swin", f"{BLOCK}attn.relative_position_bias_table"),
    _translator("uniformer", f"{BLOCK}pos_embed.weight"),
    _translator("vit", f"{BLOCK}attn.qkv.weight"),
    _translator("mlpmixer", f"{BLOCK}mlp_tokens.fc1.weight"),
    _translator("convmixer", f"{BLOCK}conv_pw.weight"),
    _translator("convnext", f"{BLOCK}gamma"),
    _translator("hornet", f"{BLOCK}gnconv.proj_in.weight"),
    _translator("moganet", f"{BLOCK}attn.value.DW_conv0.weight"),
    _translator("poolformer", f"{BLOCK}layer_scale_1"),
)

# Architectures with published checkpoints that stzoo does not have -> how the name of one of their tensors begins.
ABSENT = {"DMVFN": r"stu\.0\."}
