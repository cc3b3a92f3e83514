"""PredFormer: a transformer without recurrence or convolution (Tang et al., arXiv 2410.04733).

Frames are cut into patches. Gated transformer layers attend in turns over the patches of one frame ("s", space) and
over one place in all frames ("t", time). What the layers make of the past frames is read as the future ones.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.models.encoder_decoder import DropPath
from stzoo.models.positions import positions
from stzoo.models.published import Layout, rules
from stzoo.models.reading import Frame, Reader, Shapes, Told, depth, hint_of, patches
from stzoo.models.recurrent import grid, to_patches
from stzoo.spec import ModelSpec, bounded

Form = Literal["full", "fac-st", "fac-ts", "st", "ts", "sts", "tst", "stts", "tsst"]

# The transformers of each form, in the order in which they run. A name that begins with "deep_" is of a form that is
# not interleaved: its layers are all in one transformer of each kind.
TRANSFORMERS: Mapping[Form, tuple[str, ...]] = MappingProxyType(
    {
        "full": ("deep_space_temporal",),
        "fac-st": ("deep_space", "deep_temporal"),
        "fac-ts": ("deep_temporal", "deep_space"),
        "st": ("st_space", "st_temporal"),
        "ts": ("ts_temporal", "ts_space"),
        "sts": ("space_first", "temporal", "space_second"),
        "tst": ("temporal_first", "space", "temporal_second"),
        "stts": ("st_space", "st_temporal", "ts_temporal", "ts_space"),
        "tsst": ("ts_temporal", "ts_space", "st_space", "st_temporal"),
    }
)


@dataclass(frozen=True)
class PredFormerConfig:
    """Tokens of `dim` channels from patches of `patch` x `patch` pixels, and `heads` attention heads of `head_dim`.

    `form` says in which order layers attend over space and time: "full" is over both at once; "fac-st" and "fac-ts"
    have first all layers of one kind and then all of the other; the others repeat their letters `blocks` times. Each
    transformer of a block has `layers` layers (those of "full" and "fac-" have `blocks` * `layers`). `mlp_ratio` is how
    many times wider the gated MLP is inside. `dropout` and `drop_path` are rates in training.

    Since positions are numbered over a whole clip, the model takes frames of the spec's size only.
    """

    form: Form = "tsst"
    dim: int = bounded(256, 2, 4096)
    heads: int = bounded(8, 1, 64)
    head_dim: int = bounded(32, 1, 512)
    blocks: int = bounded(6, 1, 64)
    layers: int = bounded(1, 1, 64)
    mlp_ratio: int = bounded(4, 1, 16)
    patch: int = bounded(8, 1, 64)
    dropout: float = bounded(0.0, 0.0, 0.9)
    drop_path: float = bounded(0.0, 0.0, 0.9)

    def __post_init__(self) -> None:
        if self.dim % 2:
            raise SpecError(f"spec.params.dim is {self.dim}; it must be even")


class Attention(nn.Module):
    """Multi-head self-attention, softmax(q k^T / sqrt(head_dim)) v; q, k and v have no bias."""

    def __init__(self, config: PredFormerConfig):
        super().__init__()
        self.heads, self.rate, inner = config.heads, config.dropout, config.heads * config.head_dim
        self.qkv = nn.Linear(config.dim, 3 * inner, bias=False)
        self.out = nn.Linear(inner, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        seen = F.scaled_dot_product_attention(q, k, v, dropout_p=self.rate if self.training else 0.0)
        return self.dropout(self.out(seen.transpose(1, 2).flatten(2)))


class GatedMlp(nn.Module):
    """SwiGLU: W_3 (SiLU(W_1 x) * W_2 x); `gate` is W_1, `value` W_2, `out` W_3."""

    def __init__(self, config: PredFormerConfig):
        super().__init__()
        inner = config.dim * config.mlp_ratio
        self.gate, self.value = nn.Linear(config.dim, inner), nn.Linear(config.dim, inner)
        self.out = nn.Linear(inner, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return self.dropout(self.out(self.dropout(F.silu(self.gate(x)) * self.value(x))))


class GatedLayer(nn.Module):
    """x + Attention(LN(x)), then x + GatedMlp(LN(x))."""

    def __init__(self, config: PredFormerConfig):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(config.dim), Attention(config)
        self.norm2, self.mlp = nn.LayerNorm(config.dim), GatedMlp(config)
        self.drop_path = DropPath(config.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class GatedTransformer(nn.Module):
    """`layers` times `GatedLayer`, then LayerNorm, over the axis that `name` tells: "space", "temporal", or both."""

    def __init__(self, name: str, layers: int, config: PredFormerConfig):
        super().__init__()
        self.space, self.time = "space" in name, "temporal" in name
        self.layers = nn.ModuleList(GatedLayer(config) for _ in range(layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, T, N, dim) of T frames with N patches each -> the same shape."""
        b, t, n, dim = x.shape
        alone = self.time and not self.space  # the places, which then do not see each other
        x = x.transpose(1, 2) if alone else x
        x = x.reshape(-1, t * n if self.space and self.time else x.shape[2], dim)
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return x.reshape(b, n, t, dim).transpose(1, 2) if alone else x.reshape(b, t, n, dim)


class PredFormer(nn.Module):
    """Block: past frames (B, T, C, H, W) in, as many future frames out. T, H and W must be those of the spec."""

    stride = None

    def __init__(self, spec: ModelSpec, config: PredFormerConfig):
        super().__init__()
        grid(spec, config.patch)
        self.patch = config.patch
        names, values = TRANSFORMERS[config.form], spec.channels * config.patch**2
        blocks, layers = config.blocks, config.layers
        if names[0].startswith("deep_"):
            blocks, layers = 1, config.blocks * config.layers
        self.embed = nn.Linear(values, config.dim)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({name: GatedTransformer(name, layers, config) for name in names}) for _ in range(blocks)
        )
        self.norm, self.readout = nn.LayerNorm(config.dim), nn.Linear(config.dim, values)
        self.apply(_initialise)

    def forward(self, past: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised past frames -> the T frames that follow, of the same shape."""
        (b, t, _, h, w), p = past.shape, self.patch
        x = to_patches(past.flatten(0, 1), p).flatten(2).transpose(1, 2)
        x = self.embed(x).unflatten(0, (b, t))
        numbers = torch.arange(t * x.shape[2], device="cpu")  # some devices lack float64
        x = x + positions(numbers, x.shape[3]).to(x).view(x.shape[1:])
        for block in self.blocks:
            transformers: Any = block  # the type checker does not know what an nn.ModuleList holds
            for transformer in transformers.values():
                x = transformer(x)
        x = self.readout(self.norm(x)).flatten(0, 1).transpose(1, 2).unflatten(2, (h // p, w // p))
        return F.pixel_shuffle(x, p).unflatten(0, (b, t))  # the colour comes first here, and last in what is read


def _initialise(part: nn.Module) -> None:
    """Linear layers as their authors begin them: normal of deviation 0.02, cut at 2; biases are zero."""
    if isinstance(part, nn.Linear) and not part.weight.is_meta:
        nn.init.trunc_normal_(part.weight, std=0.02)
        if part.bias is not None:
            nn.init.zeros_(part.bias)


_TRANSFORMER = (  # where one is, here and as published
    (r"blocks\.0\.deep_(\w+)", r"\1_transformer"),
    (r"blocks\.(\d+)\.(space|temporal)_(first|second)", r"blocks.\1.\2_transformer_\3"),
    (r"blocks\.(\d+)\.(\w+)", r"blocks.\1.\2_transformer"),
)
_PART = (  # of a transformer
    (r"norm", r"norm"),
    (r"layers\.(?P<n>\d+)\.norm1", r"layers.\g<n>.0.norm"),
    (r"layers\.(?P<n>\d+)\.attention\.qkv", r"layers.\g<n>.0.fn.to_qkv"),
    (r"layers\.(?P<n>\d+)\.attention\.out", r"layers.\g<n>.0.fn.to_out.0"),
    (r"layers\.(?P<n>\d+)\.norm2", r"layers.\g<n>.1.norm"),
    (r"layers\.(?P<n>\d+)\.mlp\.gate", r"layers.\g<n>.1.fn.fc1_g"),
    (r"layers\.(?P<n>\d+)\.mlp\.value", r"layers.\g<n>.1.fn.fc1_x"),
    (r"layers\.(?P<n>\d+)\.mlp\.out", r"layers.\g<n>.1.fn.fc2"),
)


_EMBEDDING = "to_patch_embedding.1.weight"


def told(shapes: Shapes, known: Frame) -> Told:
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
    return Told(params=params, frame=frame, untold=untold, product=attended, hint=hint_of(known))


def _as_published(name: str, where: str) -> str:
    """The published name of a transformer of ours, if it can lie there: those that lie in no block are deep ones."""
    deep, short, end = cast("re.Match[str]", re.fullmatch(r"(deep_)?(\w+?)(|_first|_second)", name)).groups()
    return f"{short}_transformer{end}" if bool(deep) != bool(where) else ""


PUBLISHED = Layout(
    rules=rules(
        (r"embed", r"to_patch_embedding.1"),
        (r"norm", r"mlp_head.0"),
        (r"readout", r"mlp_head.1"),
        *((rf"{a}\.{b}", f"{c}.{d}") for a, c in _TRANSFORMER for b, d in _PART),
    ),
    dead=r"pos_embedding",  # computed, and never trained
    readers=(Reader(_EMBEDDING, told),),
)
ARCHITECTURE = Architecture(
    name="predformer",
    kind="block",
    config=PredFormerConfig,
    module=PredFormer,
    recompute=(GatedLayer,),
    layouts={"openstl": PUBLISHED, "official": PUBLISHED},  # the authors' code is written on OpenSTL's
)
