"""MetaFormer blocks as SimVP's translator (Tan et al., SimVPv2, 2022, and OpenSTL, NeurIPS 2023).

A MetaFormer block mixes pixels, then channels, each in a residual branch (Yu et al., CVPR 2022); how it mixes pixels is
what gives it its name. Time lies in the channels, so that mixing channels mixes frames. One file holds one kind of
block. There is none for VAN, whose block is the one in `stzoo.models.gated_block`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isqrt
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models.encoder_decoder import block_widths, reads_around
from stzoo.models.gated_block import FIRST_BLOCK, GatedConfig, drop_rates, initialise, told_by_block
from stzoo.models.metaformers import hornet, moganet, swin
from stzoo.models.metaformers.convmixer import ConvMixerBlock
from stzoo.models.metaformers.convnext import ConvNextBlock
from stzoo.models.metaformers.hornet import HorNetBlock
from stzoo.models.metaformers.mlpmixer import MixerBlock
from stzoo.models.metaformers.moganet import MogaBlock
from stzoo.models.metaformers.parts import BlockPlace
from stzoo.models.metaformers.poolformer import PoolFormerBlock
from stzoo.models.metaformers.swin import SwinBlock
from stzoo.models.metaformers.uniformer import uniformer_block
from stzoo.models.metaformers.vit import VitBlock
from stzoo.models.published import rules
from stzoo.models.reading import Frame, Reader, Shapes, depth, lacks, shown_size
from stzoo.spec import bounded

BLOCKS: Mapping[str, Callable[[BlockPlace], nn.Module]] = MappingProxyType(
    {
        "vit": VitBlock,
        "swin": SwinBlock,
        "uniformer": uniformer_block,
        "mlpmixer": MixerBlock,
        "convmixer": ConvMixerBlock,
        "poolformer": PoolFormerBlock,
        "convnext": ConvNextBlock,
        "hornet": HorNetBlock,
        "moganet": MogaBlock,
    }
)


@dataclass(frozen=True)
class MetaConfig(GatedConfig):
    """A `GatedConfig`, and what attention needs.

    `heads` is the number of attention heads, `window` the side of Swin's windows in pixels of the features. Without it,
    the window is 7 if the height of the features is a multiple of 7, else the larger of 4 and a sixteenth of that
    height, at most 8 (OpenSTL's rule).
    """

    heads: int = bounded(8, 1, 64)
    window: int | None = bounded(None, 1, 64)


class MetaBlock(nn.Module):
    """A block, and a 1x1 convolution after it if the width changes."""

    def __init__(self, block: nn.Module, dim: int, dim_out: int):
        super().__init__()
        self.block = block
        self.reduction = nn.Conv2d(dim, dim_out, 1) if dim_out != dim else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim_out, h, w)."""
        return self.reduction(self.block(x))


def metaformer(kind: str, outer: int, size: tuple[int, int], config: MetaConfig) -> nn.Sequential:
    """n_t blocks of a kind in `BLOCKS`, (B, outer, h, w) -> (B, outer, h, w), `hid_t` channels wide between the ends.

    Args:
        kind: a key of `BLOCKS`.
        outer: the width of what the encoder gives for all frames together.
        size: (h, w) of the features of frames of the spec's size.

    Raises:
        SpecError: a width does not divide into the parts that blocks of this kind need.
    """
    widths = block_widths(config.hid_t if config.project else outer, config.hid_t, config.n_t)
    layers: list[nn.Module] = [
        MetaBlock(
            BLOCKS[kind](
                BlockPlace(
                    dim=a,
                    number=number,
                    keeps_width=a == b,
                    size=size,
                    mlp_ratio=config.mlp_ratio,
                    drop_path=rate,
                    heads=config.heads,
                    window=config.window,
                )
            ),
            a,
            b,
        )
        for number, ((a, b), rate) in enumerate(zip(widths, drop_rates(config), strict=True))
    ]
    if config.project:
        layers = [nn.Conv2d(outer, config.hid_t, 1), *layers, nn.Conv2d(config.hid_t, outer, 1)]
    translator = nn.Sequential(*layers)
    initialise(translator)
    return translator


# Tensors that the files of this folder do not rename have OpenSTL's names.
OPENSTL_META = (
    swin.OPENSTL + hornet.OPENSTL + moganet.OPENSTL + rules((r"translator\.(\d+)\.(block\..+)", r"hid.enc.\1.\2"))
)
OPENSTL_META_DEAD = swin.OPENSTL_DEAD

_BIASES = f"{FIRST_BLOCK}attn.relative_position_bias_table"


def told_by_swin(shapes: Shapes, known: Frame) -> tuple[int, dict[str, Any]]:
    """There is a bias for each head, and for each way from one place of a window to another."""
    outer, params = told_by_block()(shapes, known)
    ways, heads = shapes[_BIASES]
    return outer, params | {"heads": heads, "window": (isqrt(ways) + 1) // 2}


def told_by_mlpmixer(shapes: Shapes, known: Frame) -> tuple[int, dict[str, Any]]:
    """An MLP-Mixer has weights for each place of its features, which are smaller than the frame."""
    places = shapes[f"{FIRST_BLOCK}mlp_tokens.fc1.weight"][1]
    fold = 2 ** min(depth(shapes, "enc.enc") // 2, 16)
    if known.height and known.width and (known.height // fold) * (known.width // fold) != places:
        raise SpecError(
            f"the translator has weights for {places} places of {fold}x{fold} pixels, which do not make frames of "
            f"{shown_size(known)}"
        )
    return told_by_block(wide="mlp_channels.fc1")(shapes, known)


def _has_no_attention(shapes: Shapes) -> bool:
    """PoolFormer mixes pixels by a mean, which has no weights."""
    return not any(name.startswith(f"{FIRST_BLOCK}attn.") for name in shapes)


_HEADS = ("heads",)
META_READERS = (
    Reader(_BIASES, reads_around(told_by_swin, "swin")),
    Reader(f"{FIRST_BLOCK}pos_embed.weight", reads_around(told_by_block(), "uniformer", _HEADS)),
    Reader(
        f"{FIRST_BLOCK}attn.qkv.weight",
        reads_around(told_by_block(), "vit", _HEADS),
        also=lacks(_BIASES, f"{FIRST_BLOCK}pos_embed.weight"),
    ),
    Reader(f"{FIRST_BLOCK}mlp_tokens.fc1.weight", reads_around(told_by_mlpmixer, "mlpmixer")),
    Reader(f"{FIRST_BLOCK}conv_pw.weight", reads_around(told_by_block("conv_dw", wide=None), "convmixer")),
    Reader(f"{FIRST_BLOCK}gamma", reads_around(told_by_block("conv_dw"), "convnext")),
    Reader(f"{FIRST_BLOCK}gnconv.proj_in.weight", reads_around(told_by_block(wide="pwconv1"), "hornet")),
    Reader(f"{FIRST_BLOCK}attn.value.DW_conv0.weight", reads_around(told_by_block(), "moganet")),
    Reader(f"{FIRST_BLOCK}layer_scale_1", reads_around(told_by_block(), "poolformer"), also=_has_no_attention),
)
