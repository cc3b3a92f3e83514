"""Checkpoints that others published -> a folder that `stzoo.load` reads.

Every tensor is accounted for, in both directions: each of ours is found under its published name and shape, each of
theirs is used, or known to be dead in the code that published it, or an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from stzoo.catalog import WEIGHTS_FILE
from stzoo.errors import MismatchError, SpecError, WeightsError
from stzoo.models import build, config_of
from stzoo.models.e3dlstm import WINDOW
from stzoo.spec import ModelSpec
from stzoo.weights import save_folder

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ConvertReport:
    """What was written, and which published tensors have no use: dead in their own code, or in the spec asked for."""

    folder: Path
    tensors: int
    parameters: int
    unused: tuple[str, ...]

    def __str__(self) -> str:
        line = f"{self.folder}: {self.tensors} tensors, {self.parameters:,} parameters"
        return line + (f"; unused: {', '.join(self.unused)}" if self.unused else "; every tensor was used")


@dataclass(frozen=True)
class Names:
    """How an architecture's published tensors are called.

    Attributes:
        rules: pattern of our name -> the published name, and the published shape from ours where they differ.
        dead: pattern of published names that nothing reads.
    """

    rules: tuple[tuple[str, str, Callable[[Shape], Shape]], ...]
    dead: str = r"(?!)"


def same(shape: Shape) -> Shape:
    return shape


def rules(*pairs: tuple[str, str], shape: Callable[[Shape], Shape] = same) -> tuple[tuple[str, str, Callable], ...]:
    return tuple((ours, theirs, shape) for ours, theirs in pairs)


def framed(shape: Shape) -> Shape:
    """A 2-D kernel over the channels of both frames was a 3-D one."""
    return (shape[0], shape[1] // WINDOW, WINDOW, *shape[2:])


_FRAMES = rules(
    (r"encoder\.layers\.(\d+)\.(conv|norm)", r"enc.enc.\1.conv.\2"),
    (r"decoder\.layers\.(\d+)\.(conv|norm)", r"dec.dec.\1.conv.\2"),
    (r"decoder\.readout", r"dec.readout"),
)
_BLOCK = r"translator\.(\d+)\."
_GATED = rules(
    (_BLOCK + r"(norm[12])", r"hid.enc.\1.block.\2"),
    (_BLOCK + r"proj([12])", r"hid.enc.\1.block.attn.proj_\2"),
    (_BLOCK + r"gate\.(?:statical|attention)\.0", r"hid.enc.\1.block.attn.spatial_gating_unit.conv0"),
    (_BLOCK + r"gate\.(?:statical|attention)\.1", r"hid.enc.\1.block.attn.spatial_gating_unit.conv_spatial"),
    (_BLOCK + r"gate\.(?:statical|attention)\.2", r"hid.enc.\1.block.attn.spatial_gating_unit.conv1"),
    (_BLOCK + r"gate\.dynamical\.([02])", r"hid.enc.\1.block.attn.spatial_gating_unit.fc.\2"),
    (_BLOCK + r"mlp\.0", r"hid.enc.\1.block.mlp.fc1"),
    (_BLOCK + r"mlp\.1", r"hid.enc.\1.block.mlp.dwconv.dwconv"),
    (_BLOCK + r"mlp\.3", r"hid.enc.\1.block.mlp.fc2"),
    (_BLOCK + r"reduction", r"hid.enc.\1.reduction"),
) + rules((_BLOCK + r"scale([12])", r"hid.enc.\1.block.layer_scale_\2"), shape=lambda s: s[:1])
_INCEPU = rules(
    (r"translator\.down\.(\d+)\.reduce", r"hid.enc.\1.conv1"),
    (r"translator\.up\.(\d+)\.reduce", r"hid.dec.\1.conv1"),
    (r"translator\.down\.(\d+)\.branches\.(\d+)\.0", r"hid.enc.\1.layers.\2.conv"),
    (r"translator\.down\.(\d+)\.branches\.(\d+)\.1", r"hid.enc.\1.layers.\2.norm"),
    (r"translator\.up\.(\d+)\.branches\.(\d+)\.0", r"hid.dec.\1.layers.\2.conv"),
    (r"translator\.up\.(\d+)\.branches\.(\d+)\.1", r"hid.dec.\1.layers.\2.norm"),
)
_READOUT = rules((r"readout", r"conv_last"))

OPENSTL: Mapping[str, Names] = MappingProxyType(
    {
        "tau": Names(_FRAMES + _GATED),
        "simvp": Names(_FRAMES + _GATED + _INCEPU),
        "convlstm": Names(
            rules((r"cells\.(\d+)\.([xh])", r"cell_list.\1.conv_\2.0")) + _READOUT,
            dead=r"cell_list\.\d+\.(conv_o\.0|conv_last)\.weight",
        ),
        "predrnn": Names(
            rules(
                (r"cells\.(\d+)\.([xhmo])\.([01])", r"cell_list.\1.conv_\2.\3"),  # with its LayerNorm
                (r"cells\.(\d+)\.([xhmo])", r"cell_list.\1.conv_\2.0"),
                (r"cells\.(\d+)\.mix", r"cell_list.\1.conv_last"),
                (r"adapter", r"adapter"),
            )
            + _READOUT,
            dead=r"adapter\.weight",  # a forecast does without
        ),
        "predrnnpp": Names(
            rules(
                (r"cells\.(\d+)\.([xhcm])", r"cell_list.\1.conv_\2.0"),
                (r"cells\.(\d+)\.c_to_m", r"cell_list.\1.conv_c2m.0"),
                (r"cells\.(\d+)\.m_to_o", r"cell_list.\1.conv_om.0"),
                (r"cells\.(\d+)\.mix", r"cell_list.\1.conv_last"),
                (r"highway\.([xz])", r"gradient_highway.\1_concat.0"),
            )
            + _READOUT,
            dead=r"cell_list\.\d+\.conv_o\.0\.weight",
        ),
        "mim": Names(
            rules(
                (r"first\.([xhmo])", r"stlstm_layer.0.conv_\1.0"),
                (r"first\.mix", r"stlstm_layer.0.conv_last"),
                (r"blocks\.(\d+)\.x", r"stlstm_layer.<\1+1>.conv_x_cc.0"),
                (r"blocks\.(\d+)\.h", r"stlstm_layer.<\1+1>.conv_t_cc.0"),
                (r"blocks\.(\d+)\.m", r"stlstm_layer.<\1+1>.conv_s_cc.0"),
                (r"blocks\.(\d+)\.mix", r"stlstm_layer.<\1+1>.conv_last"),
                (r"blocks\.(\d+)\.stationary\.([xh])", r"stlstm_layer.<\1+1>.conv_\2_concat.0"),
                (r"blocks\.(\d+)\.stationary\.peep_if", r"stlstm_layer.<\1+1>.ct_weight"),
                (r"blocks\.(\d+)\.stationary\.peep_o", r"stlstm_layer.<\1+1>.oc_weight"),
                (r"changes\.(\d+)\.([xh])", r"stlstm_layer_diff.\1.conv_\2_concat.0"),
                (r"changes\.(\d+)\.peep_if", r"stlstm_layer_diff.\1.ct_weight"),
                (r"changes\.(\d+)\.peep_o", r"stlstm_layer_diff.\1.oc_weight"),
            )
            + _READOUT,
            dead=r"stlstm_layer_diff\.\d+\.conv_last\.weight",
        ),
        "e3dlstm": Names(
            rules(
                (r"cells\.(\d+)\.([xh])", r"cell_list.\1.conv_\2.0.conv3d"),
                (r"cells\.(\d+)\.m", r"cell_list.\1.conv_gm.0.conv3d"),
                (r"cells\.(\d+)\.c_to_o", r"cell_list.\1.conv_new_cell.0.conv3d"),
                (r"cells\.(\d+)\.m_to_o", r"cell_list.\1.conv_new_gm.0.conv3d"),
                (r"readout", r"conv_last"),
                shape=framed,
            )
            + rules((r"cells\.(\d+)\.mix", r"cell_list.\1.conv_last.conv3d"), shape=lambda s: (*s, 1))
            + rules((r"cells\.(\d+)\.norm", r"cell_list.\1._norm_c_t")),
        ),
    }
)


def convert_openstl(checkpoint: Path, spec: ModelSpec, out: Path) -> ConvertReport:
    """Write the published weights in `checkpoint` as a folder of config.json and model.safetensors.

    The file may hold the tensors themselves, or under "state_dict", their names with or without a "model." in front.
    It is read with ``weights_only=True``, so nothing in it can run. An E3D-LSTM becomes `variant` "public", with a
    `history` that covers one forecast, because that is how published ones were trained.

    Raises:
        SpecError: no layout is known for the spec's architecture, or `out` holds a model already.
        WeightsError: the file is not a pickle of tensors alone, or a value is not finite.
        MismatchError: a tensor is missing, misshapen or of no known use; the message names it as published.
    """
    if spec.arch not in OPENSTL:
        raise SpecError(f"spec.arch is {spec.arch!r}; published layouts are known for {', '.join(OPENSTL)}")
    if (out / WEIGHTS_FILE).exists():
        raise SpecError(f"{out} holds a model already; name another folder")
    if spec.arch == "e3dlstm":
        history = max(config_of(spec).history, spec.frames_in + spec.frames_out - 1)
        spec = spec.replace(variant="public", history=history)
    module = build(spec, "meta")
    state, unused = _renamed(checkpoint, read_tensors(checkpoint), module.state_dict(), OPENSTL[spec.arch])
    save_folder(out, spec, state)
    return ConvertReport(out, len(state), sum(p.numel() for p in module.parameters()), unused)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their bare names. Raises `WeightsError` where there is anything else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # what a file that is no checkpoint raises depends on its first bytes
        reason = str(error).split("\n", 1)[0]
        raise WeightsError(f"{path} is not a checkpoint of pure tensors, and nothing else is read: {reason}") from error
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds {type(content).__name__}, not named tensors")
    tensors = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path}: {key!r} is {type(value).__name__}, not a tensor")
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_nested:
            raise WeightsError(f"{path}: {key} is not a dense tensor that holds its values")
        if value.is_floating_point() and not value.float().isfinite().all():
            raise WeightsError(f"{path}: {key} holds values that are not finite")
        bare = key.removeprefix("module.").removeprefix("model.")
        bare = re.sub(r"^(dec\.dec\.\d+\.conv\.conv)\.0\.", r"\1.", bare)  # an upsampling layer's, inside its shuffle
        if bare in tensors:
            raise WeightsError(f"{path} holds {bare} twice, with and without a prefix")
        tensors[bare] = value
    return tensors


def _renamed(
    path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], names: Names
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Our tensors from theirs, and the names of those without a use."""
    state, used, problems = {}, set(), []
    for ours, like in wanted.items():
        theirs, shape = _published(ours, tuple(like.shape), names)
        if theirs not in found:
            problems.append(f"{theirs} is missing")
        elif tuple(found[theirs].shape) != shape:
            problems.append(f"{theirs} is {tuple(found[theirs].shape)}, not {shape}")
        elif found[theirs].is_floating_point() != like.is_floating_point():
            problems.append(f"{theirs} is {found[theirs].dtype}, not {like.dtype}")
        else:
            state[ours] = found[theirs].reshape(like.shape).to(like.dtype, copy=True)  # two may share their memory
        used.add(theirs)
    unused = tuple(sorted(found.keys() - used))
    problems += [f"{name} is unknown" for name in unused if not re.fullmatch(names.dead, name)]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise MismatchError(f"{path} does not fit the spec: {'; '.join(problems[:8])}{more}")
    return state, unused


def _published(name: str, shape: Shape, names: Names) -> tuple[str, Shape]:
    """The published name and shape of our tensor `name`: the first rule that matches all of it but its last part."""
    stem, leaf = name, ""
    if re.search(r"\.(weight|bias|running_mean|running_var|num_batches_tracked)$", name):
        stem, leaf = name.rsplit(".", 1)
    for ours, theirs, shaped in names.rules:
        match = re.fullmatch(ours, stem)
        if match:
            published = re.sub(r"<(\d+)\+1>", lambda m: str(int(m[1]) + 1), match.expand(theirs))
            return (f"{published}.{leaf}" if leaf else published), shaped(shape)
    return f"(nothing published for {name})", shape
