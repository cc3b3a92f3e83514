"""PhyDNet (Le Guen and Thome, CVPR 2020): a physical branch and a residual branch in one latent space.

PhyCell advances its state by a combination of learned partial derivatives and corrects it by the frame that it reads,
like a Kalman filter; a ConvLSTM carries what the physics does not explain. In training a term of the loss holds each
7x7 kernel to the derivative that it stands for (equation 8).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.models.published import Layout, Rule, rules
from stzoo.models.reading import Frame, Reader, Shapes, Told, depth, same_channels
from stzoo.models.recurrent import any_range_where_trained, check_squeezed, check_unit_range, zero_plane
from stzoo.spec import ModelSpec, bounded

MAX_LAYERS = 32  # of the residual branch; the other recurrent architectures have the same limit


@dataclass(frozen=True)
class PhyDNetConfig:
    """Frames are encoded to 2 * `width` channels at 1/`patch` of their height and width.

    `kernel`^2 derivatives are learned with kernels of `kernel` x `kernel`. `lstm` gives the hidden channels of the
    residual branch's layers, after which one more layer with 2 * `width` follows. `sigmoid` squeezes the output into
    (0, 1); switch it off for values without a range, such as latents. `any_range` allows the sigmoid for frames whose
    normalised values leave [0, 1], which a forecast then never reaches: OpenSTL's checkpoints for WeatherBench were
    trained so.
    """

    width: int = bounded(32, 16, 1024)
    lstm: tuple[int, ...] = bounded((128, 128), 1, 4096)
    kernel: int = bounded(7, 3, 15)
    patch: Literal[2, 4] = 4
    sigmoid: bool = True
    any_range: bool = False

    def __post_init__(self) -> None:
        if self.width % 16:
            raise SpecError(f"spec.params.width is {self.width}; it must be a multiple of 16")
        if self.kernel % 2 == 0:
            raise SpecError(f"spec.params.kernel is {self.kernel}; it must be odd")
        if len(self.lstm) > MAX_LAYERS:
            raise SpecError(f"spec.params.lstm has {len(self.lstm)} values; it may have at most {MAX_LAYERS}")
        check_squeezed(self)


class PhyDNetState(NamedTuple):
    """Planes of (B, channels, H/patch, W/patch).

    Attributes:
        physical: the state of PhyCell, 2 * width channels.
        residual: hidden state and cell of every layer of the residual branch.
    """

    physical: Tensor
    residual: tuple[tuple[Tensor, Tensor], ...]


class ConvLayer(nn.Sequential):
    """3x3 convolution (transposed if `up`), GroupNorm(16), LeakyReLU(0.2).

    (B, c_in, h, w) -> (B, c_out, h / stride, w / stride), or with `up` (B, c_out, h * stride, w * stride).
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1, up: bool = False):
        conv = upsample(c_in, c_out, stride) if up else nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1)
        super().__init__(conv, nn.GroupNorm(16, c_out), nn.LeakyReLU(0.2))


def upsample(c_in: int, c_out: int, stride: int) -> nn.ConvTranspose2d:
    """(B, c_in, h, w) -> (B, c_out, h * stride, w * stride)."""
    return nn.ConvTranspose2d(c_in, c_out, 3, stride=stride, padding=1, output_padding=stride - 1)


class PhyCell(nn.Module):
    """Prediction p = h + Phi(h), then correction p + K (x - p) with the gain K = sigmoid(W [x, h]).

    `derivatives` holds kernel^2 filters; filter i * kernel + j stands for the derivative of order i, j.
    """

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.derivatives = nn.Conv2d(channels, kernel**2, kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(kernel, kernel**2)
        self.combine = nn.Conv2d(kernel**2, channels, 1)
        self.gain = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Features x and state h, (B, channels, h, w) each -> the new state."""
        predicted = h + self.combine(self.norm(self.derivatives(h)))
        gain = self.gain(torch.cat([x, h.to(x.dtype)], 1)).sigmoid()
        return predicted + gain * (x - predicted)


class LstmCell(nn.Module):
    """3x3 ConvLSTM with biases, input and hidden state convolved together: c' = f c + i g; h' = o tanh(c').

    Gates lie in the order i, f, o, g.
    """

    def __init__(self, c_in: int, hidden: int):
        super().__init__()
        self.gates = nn.Conv2d(c_in + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, c_in, h, w), hidden state and cell (B, hidden, h, w) -> the new hidden state and cell."""
        i, f, o, g = self.gates(torch.cat([x, h.to(x.dtype)], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class PhyDNet(nn.Module):
    """Sequential: one frame (B, C, H, W) in, the forecast of the next one out; with `sigmoid` both lie in [0, 1].

    H and W must be multiples of `patch`.
    """

    def __init__(self, spec: ModelSpec, config: PhyDNetConfig):
        super().__init__()
        if config.sigmoid:
            check_unit_range(spec, config.any_range)
        self.stride, self.sigmoid = config.patch, config.sigmoid
        w, features = config.width, 2 * config.width
        second = config.patch // 2
        self.encoder = nn.Sequential(ConvLayer(spec.channels, w, 2), ConvLayer(w, w), ConvLayer(w, features, second))
        self.to_physical = nn.Sequential(ConvLayer(features, features), ConvLayer(features, features))
        self.to_residual = nn.Sequential(ConvLayer(features, features), ConvLayer(features, features))
        self.physical = PhyCell(features, config.kernel)
        self.widths = (*config.lstm, features)
        inputs = (features, *config.lstm)
        self.residual = nn.ModuleList(LstmCell(a, b) for a, b in zip(inputs, self.widths, strict=True))
        self.from_physical = nn.Sequential(
            ConvLayer(features, features, up=True), ConvLayer(features, features, up=True)
        )
        self.from_residual = nn.Sequential(
            ConvLayer(features, features, up=True), ConvLayer(features, features, up=True)
        )
        self.decoder = nn.Sequential(
            ConvLayer(features, w, 2, up=True), ConvLayer(w, w, up=True), upsample(w, spec.channels, second)
        )

    def initial_state(
        self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype
    ) -> PhyDNetState:
        """All memories are zero before the first frame of `batch` clips, whose frames have `size` (H, W)."""

        def zeros(channels: int) -> Tensor:
            return zero_plane(batch, channels, size, self.stride, device, dtype)

        return PhyDNetState(zeros(self.widths[-1]), tuple((zeros(w), zeros(w)) for w in self.widths))

    def step(self, frame: Tensor, state: PhyDNetState) -> tuple[Tensor, PhyDNetState]:
        """One normalised frame (B, C, H, W) -> the forecast of the next one, of the same shape, and the new state."""
        state = self.advance(frame, state)
        decoded = self.decoder(self.from_physical(state.physical) + self.from_residual(state.residual[-1][0]))
        return decoded.sigmoid() if self.sigmoid else decoded, state

    def advance(self, frame: Tensor, state: PhyDNetState) -> PhyDNetState:
        """One normalised frame (B, C, H, W) -> the new state, from which nothing is forecast yet."""
        features = self.encoder(frame)
        physical = self.physical(self.to_physical(features), state.physical)
        x, residual = self.to_residual(features), []
        for cell, (h, c) in zip(self.residual, state.residual, strict=True):
            x, c = cell(x, h, c)
            residual.append((x, c))
        return PhyDNetState(physical, tuple(residual))

    def derivative_kernels(self) -> Tensor:
        """(kernel^2, 2 * width, kernel, kernel): kernel i * k + j stands for the derivative of order i, j."""
        return self.physical.derivatives.weight


def published_under(prefix: str) -> tuple[Rule, ...]:
    """Where the tensors lie in a checkpoint whose names begin with `prefix`."""
    return rules(
        (r"encoder\.(\d)\.([01])", prefix + r"encoder_E.c<\1+1>.main.\2"),
        (r"to_physical\.(\d)\.([01])", prefix + r"encoder_Ep.c<\1+1>.main.\2"),
        (r"to_residual\.(\d)\.([01])", prefix + r"encoder_Er.c<\1+1>.main.\2"),
        (r"physical\.derivatives", prefix + r"phycell.cell_list.0.F.conv1"),
        (r"physical\.norm", prefix + r"phycell.cell_list.0.F.bn1"),
        (r"physical\.combine", prefix + r"phycell.cell_list.0.F.conv2"),
        (r"physical\.gain", prefix + r"phycell.cell_list.0.convgate"),
        (r"residual\.(\d+)\.gates", prefix + r"convcell.cell_list.\1.conv"),
        (r"from_physical\.(\d)\.([01])", prefix + r"decoder_Dp.upc<\1+1>.main.\2"),
        (r"from_residual\.(\d)\.([01])", prefix + r"decoder_Dr.upc<\1+1>.main.\2"),
        (r"decoder\.(\d)\.([01])", prefix + r"decoder_D.upc<\1+1>.main.\2"),
        (r"decoder\.2", prefix + r"decoder_D.upc3"),
    )


# OpenSTL stores both cells twice, alone and within the encoder, which is what forecasts use; `k2m` turns kernels into
# moments, for the loss. The authors published the encoder alone.


def reads_under(prefix: str) -> Callable[[Shapes, Frame], Told]:
    """For `Reader.read`: names begin with `prefix`."""

    def read(shapes: Shapes, known: Frame) -> Told:
        first = shapes[f"{prefix}encoder_E.c1.main.0.weight"]
        stack = f"{prefix}convcell.cell_list"
        widths = [shapes[f"{stack}.{i}.conv.weight"][0] // 4 for i in range(depth(shapes, stack))]
        params = {
            "width": first[0],
            "lstm": tuple(widths[:-1]),
            "kernel": shapes[f"{prefix}phycell.cell_list.0.F.conv1.weight"][-1],
        }
        frame = Frame(channels=same_channels(first[1], known.channels))
        untold = ("patch", "sigmoid")
        return Told(params=params, frame=frame, untold=untold)

    return read


OPENSTL = Layout(
    rules=published_under("encoder."),
    dead=r"(phycell|convcell)\..+|k2m\.(_inv|_)M\d",
    spec=any_range_where_trained,
    readers=(Reader("encoder.encoder_E.c1.main.0.weight", reads_under("encoder.")),),
)
OFFICIAL = Layout(
    rules=published_under(""),
    spec=any_range_where_trained,
    readers=(Reader("encoder_E.c1.main.0.weight", reads_under("")),),
)
ARCHITECTURE = Architecture(
    name="phydnet",
    kind="sequential",
    config=PhyDNetConfig,
    module=PhyDNet,
    advances=True,
    layouts={"openstl": OPENSTL, "official": OFFICIAL},
    derivative_kernels=PhyDNet.derivative_kernels,
)
