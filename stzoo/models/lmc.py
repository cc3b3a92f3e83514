"""LMC-Memory (Lee et al., CVPR 2021): video prediction that recalls long-term motion from a memory.

A memory of `slots` vectors holds what motions look like in long clips. The differences of the past frames, seen by 3D
convolutions, address it: what is recalled is a mean of the slots, weighted by how alike they are. A stack of ConvLSTMs
forecasts frame by frame; the decoder paints each frame from the top of the stack and from the recalled motion, whose
channels an attention weighs anew at every step.

Training has two phases (`stzoo.train.objectives`). In the storing phase, long clips address the memory through an
encoder of their own, and the memory learns; in the matching phase the past alone has to recall the same, and the memory
stays as it is. Only the second phase's parts forecast.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.models.published import Layout, rules
from stzoo.models.reading import Frame, Reader, Shapes, Told, depth, same_channels
from stzoo.models.recurrent import check_unit_range
from stzoo.spec import ModelSpec, bounded

SQUEEZED = 16  # width inside the attention to channels of the recalled motion


@dataclass(frozen=True)
class LmcConfig:
    """Frames have `width` channels at H/2 x W/2 and twice as many at H/4 x W/4, where `layers` ConvLSTMs work.

    The memory has `slots` vectors of 8 * `width` values. Motion is seen through `pools` halvings of height and width: 4
    as published, or 3 for frames whose sides are no multiples of 16. `sigmoid` ends the decoder, as for KTH.
    """

    width: int = bounded(64, 1, 1024)
    layers: int = bounded(4, 1, 32)
    slots: int = bounded(100, 1, 1 << 16)
    pools: int = bounded(4, 3, 4)
    sigmoid: bool = False


class MotionEncoder(nn.Module):
    """What moves in a clip: 3D convolutions over differences of frames, and the mean over time in the end.

    Where published code halves the time, this does too as long as two moments are left, so that it reads short clips.
    """

    def __init__(self, channels: int, width: int, pools: int):
        super().__init__()
        self.pools = pools
        widths = (channels, width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width)
        self.convolutions = nn.ModuleList(nn.Conv3d(i, o, 3, padding=1) for i, o in pairwise(widths))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, C, H, W) with T >= 2 -> (B, 8 * width, H / 2^pools, W / 2^pools)."""
        x = frames.diff(dim=1).transpose(1, 2)
        for number, convolution in enumerate(self.convolutions):
            x = convolution(x).relu()
            if number in (0, 1, 3, 5):  # after which the first, second, third and fourth halving comes
                moments = 2 if number > 0 and x.shape[2] > 1 else 1
                pixels = 1 if number == 5 and self.pools == 3 else 2
                x = F.max_pool3d(x, (moments, pixels, pixels))
        return x.mean(2)


class Cell(nn.Module):
    """A ConvLSTM whose gates come in the order input, candidate, forget, output."""

    def __init__(self, width: int):
        super().__init__()
        self.conv2d_x = nn.Conv2d(width, 4 * width, 3, padding=1)
        self.conv2d_h = nn.Conv2d(width, 4 * width, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x, h and c: (B, width, h, w) each -> the new h and c."""
        i, g, f, o = (self.conv2d_x(x) + self.conv2d_h(h)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Memory(nn.Module):
    """Slots of motion, addressed by clips: a short one through `matching`, a long one through `context`."""

    def __init__(self, channels: int, config: LmcConfig):
        super().__init__()
        deep = 8 * config.width
        self.matching, self.context = (MotionEncoder(channels, config.width, config.pools) for _ in range(2))
        self.context.load_state_dict(self.matching.state_dict())  # both phases begin with the same eyes
        self.slots = nn.Parameter(torch.randn(config.slots, deep))
        widths = (deep, 4 * config.width, 2 * config.width) if config.pools == 4 else (deep, 2 * config.width)
        self.embedder = nn.ModuleList(
            nn.ConvTranspose2d(i, o, 3, 2, padding=1, output_padding=1) for i, o in pairwise(widths)
        )

    def address(self, queries: Tensor, slots: Tensor) -> Tensor:
        """What is recalled at each place: sum_i softmax_i(cos(query, slot_i)) slot_i (equations 1 and 2).

        Args:
            queries: (B, D, h, w), one of D values for each place.
            slots: (N, D).

        Returns:
            (B, D, h, w).
        """
        likeness = torch.einsum("bdhw,nd->bnhw", F.normalize(queries, dim=1), F.normalize(slots, dim=1))
        return torch.einsum("bnhw,nd->bdhw", likeness.softmax(1), slots)

    def recall(self, past: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, 2 * width, H/4, W/4). The slots get no gradient."""
        return self._embed(self.address(self.matching(past), self.slots.detach()))

    def store(self, clip: Tensor) -> Tensor:
        """(B, T, C, H, W), a clip that goes on into the future -> as `recall`. The slots learn from it."""
        return self._embed(self.address(self.context(clip), self.slots))

    def _embed(self, recalled: Tensor) -> Tensor:
        for layer in self.embedder:
            recalled = layer(recalled).relu()
        return recalled


class Lmc(nn.Module):
    """Block: (B, T, C, H, W) normalised past frames -> the T frames that follow. H and W are multiples of 2^pools.

    Motion is recalled once for a block. A longer forecast recalls it anew for every further block, from what was
    forecast; published code recalls it once, however many frames it forecasts.
    """

    def __init__(self, spec: ModelSpec, config: LmcConfig):
        super().__init__()
        if spec.frames_in < 2:
            raise SpecError(f"spec.frames_in is {spec.frames_in}; lmc sees motion, so it needs at least 2 past frames")
        if config.sigmoid:
            check_unit_range(spec)
        self.stride = 2**config.pools
        channels, narrow, wide = spec.channels, config.width, 2 * config.width
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, narrow, 3, 2, padding=1), nn.ELU(),
            nn.Conv2d(narrow, narrow, 3, padding=1), nn.ELU(),
            nn.Conv2d(narrow, wide, 3, 2, padding=1), nn.ELU(),
            nn.Conv2d(wide, wide, 3, padding=1), nn.ELU(),
        )  # fmt: skip
        self.cells = nn.ModuleList(Cell(wide) for _ in range(config.layers))
        self.memory = Memory(channels, config)
        self.attention = nn.Sequential(nn.Linear(2 * wide, SQUEEZED), nn.ReLU(), nn.Linear(SQUEEZED, wide))
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(2 * wide, wide, 3, 1, padding=1), nn.ELU(),
            nn.ConvTranspose2d(wide, narrow, 3, 2, padding=1, output_padding=1), nn.ELU(),
            nn.ConvTranspose2d(narrow, narrow, 3, 1, padding=1), nn.ELU(),
            nn.ConvTranspose2d(narrow, channels, 3, 2, padding=1, output_padding=1),
            *([nn.Sigmoid()] if config.sigmoid else []),
        )  # fmt: skip

    def forward(self, past: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T, C, H, W): the matching phase, and every forecast."""
        return self._forecast(past, self.memory.recall(past))

    def storing(self, past: Tensor, future: Tensor) -> Tensor:
        """The forecast of the storing phase, whose motion is recalled from the past and the true future together.

        Args:
            past, future: (B, T, C, H, W) and (B, T', C, H, W), normalised.

        Returns:
            (B, T, C, H, W), as `forward`.
        """
        return self._forecast(past, self.memory.store(torch.cat([past, future], 1)))

    def _forecast(self, past: Tensor, motion: Tensor) -> Tensor:
        h = [torch.zeros_like(motion) for _ in self.cells]
        c = list(h)
        painted: list[Tensor] = []
        for t in range(2 * past.shape[1] - 1):
            x = self.encoder(past[:, t] if t < past.shape[1] else painted[-1])
            for i, cell in enumerate(self.cells):
                h[i], c[i] = cell(x, h[i], c[i])
                x = h[i]
            if t >= past.shape[1] - 1:
                weights = self.attention(torch.cat([c[-1], motion], 1).mean((2, 3))).sigmoid()
                painted.append(self.decoder(torch.cat([x, motion * weights[:, :, None, None]], 1)))
        return torch.stack(painted, 1)


_MOTION = {0: 0, 1: 3, 2: 6, 3: 8, 4: 11, 5: 13}  # a convolution of ours -> its number among the published layers


def told(shapes: Shapes, known: Frame) -> Told:
    """For `Reader.read`."""
    first = shapes["encoder.0.weight"]
    params = {
        "width": first[0],
        "layers": depth(shapes, "convlstm_list"),
        "slots": shapes["memory.memory_w"][0],
        "pools": 4 if "memory.embedder.2.weight" in shapes else 3,
    }
    frame = Frame(channels=same_channels(first[1], known.channels))
    return Told(params=params, frame=frame, untold=("sigmoid",))


PUBLISHED = Layout(
    rules=rules(
        (r"(encoder|decoder)\.(\d+)", r"\1.\2"),
        (r"cells\.(\d+)\.(\w+)", r"convlstm_list.\1.\2"),
        (r"attention\.0", "attention_func.2"),
        (r"attention\.2", "attention_func.4"),
        (r"memory\.embedder\.0", "memory.embedder.0"),
        (r"memory\.embedder\.1", "memory.embedder.2"),
        *(
            (rf"memory\.{kind}\.convolutions\.{ours}", f"memory.motion_{kind}_encoder.{theirs}")
            for kind in ("matching", "context")
            for ours, theirs in _MOTION.items()
        ),
        (r"memory\.slots", "memory.memory_w"),
    ),
    readers=(Reader("memory.memory_w", told),),
)
ARCHITECTURE = Architecture(
    name="lmc",
    kind="block",
    config=LmcConfig,
    module=Lmc,
    stores=lambda module, past, future: module.storing(past, future),
    layouts={"official": PUBLISHED},
)
