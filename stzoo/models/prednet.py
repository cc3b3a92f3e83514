"""PredNet (Lotter et al., ICLR 2017): every layer predicts what comes, and hands on only what it got wrong.

A layer has four kinds of units: the target A, which is the frame in the lowest layer; the prediction A^ of it; the
errors E between the two; and a representation R, kept by a ConvLSTM. A time step goes down and then up. From the top
to the bottom, each R is brought up to date from its layer's last errors and from the R above, and predicts. From the
bottom to the top, errors are taken as soon as the target is there, and become the target of the layer above.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.models.feedback import is_own
from stzoo.models.published import Layout, rules
from stzoo.models.reading import Frame, Reader, Shapes, Told, same_channels
from stzoo.spec import ModelSpec, bounded

MAX_LAYERS = 16


@dataclass(frozen=True)
class PredNetConfig:
    """`widths` channels in the layers above the lowest one, which has those of the frame; `kernel` x `kernel` weights.

    Each layer above the lowest one halves height and width. `any_range` keeps forecasts within [0, 1] as the module
    sees them, whatever the values are: for weights that were trained so, as OpenSTL trains all of them.
    """

    widths: tuple[int, ...] = bounded((32, 64, 128, 256), 1, 4096)
    kernel: int = bounded(3, 1, 31)
    any_range: bool = False

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise SpecError(f"spec.params.kernel is {self.kernel}; it must be odd")
        if len(self.widths) >= MAX_LAYERS:
            raise SpecError(f"spec.params.widths has {len(self.widths)} values; it may have at most {MAX_LAYERS - 1}")


class PredNetState(NamedTuple):
    """What is expected of the next frame. Layer l has planes of (B, channels, H / 2^l, W / 2^l), the lowest one first.

    Attributes:
        representation: R, the hidden state of each layer's ConvLSTM.
        cell: C, its cell.
        forecast: the prediction of the next frame, (B, C, H, W); None before the first frame, when nothing was
            predicted yet.
        earlier: the forecast before that one; zeros where there was none.
    """

    representation: tuple[Tensor, ...]
    cell: tuple[Tensor, ...]
    forecast: Tensor | None
    earlier: Tensor


class PredNetLayer(nn.Module):
    """One layer l: its ConvLSTM, the prediction from it, and the target of the layer above, if there is one.

    Equations 1 to 4 of the paper, where * is a convolution and max a 2x2 max-pooling:
    A_l+1 = max(ReLU(W_a * E_l));  A^_l = ReLU(W_p * R_l);  E_l = [ReLU(A_l - A^_l), ReLU(A^_l - A_l)];
    R_l = ConvLSTM(E_l, R_l, upsampled R_l+1), the first two being those of the last step.
    Public code has the two parts of E in the other order, and so have we.
    """

    def __init__(self, width: int, above: int, kernel: int):
        """`width` channels here, `above` in the layer above; 0 if this is the top."""
        super().__init__()

        def conv(c_in: int, c_out: int) -> nn.Conv2d:
            made = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)
            nn.init.zeros_(made.bias)  # type: ignore[arg-type]
            return made

        seen = width + 2 * width + above
        self.input_gate, self.forget_gate = conv(seen, width), conv(seen, width)
        self.output_gate, self.candidate = conv(seen, width), conv(seen, width)
        self.prediction = conv(width, width)
        self.target = conv(2 * width, above) if above else None

    def represent(self, r: Tensor, c: Tensor, e: Tensor, above: Tensor | None) -> tuple[Tensor, Tensor]:
        """R and C (B, width, h, w), E (B, 2 width, h, w), the new R above (B, above, h/2, w/2) -> the new R and C."""
        parts = [r, e] if above is None else [r, e, F.interpolate(above, scale_factor=2.0)]
        x = torch.cat(parts, 1)
        c = hard_sigmoid(self.forget_gate(x)) * c + hard_sigmoid(self.input_gate(x)) * self.candidate(x).tanh()
        return hard_sigmoid(self.output_gate(x)) * c.tanh(), c

    def raise_target(self, e: Tensor) -> Tensor:
        """The errors (B, 2 width, h, w) -> the target of the layer above, (B, above, h/2, w/2)."""
        assert self.target is not None
        return F.max_pool2d(self.target(e).relu(), 2)


class PredNet(nn.Module):
    """Sequential: one frame (B, C, H, W) in, the prediction of the next one out.

    H and W must be multiples of 2 to the number of `widths`. Where the spec has a value range, forecasts stay within
    it (the paper's SatLU); with `any_range` they stay within [0, 1].
    """

    def __init__(self, spec: ModelSpec, config: PredNetConfig):
        super().__init__()
        widths = (spec.channels, *config.widths)
        self.stride = 2 ** len(config.widths)
        self.layers = nn.ModuleList(
            PredNetLayer(width, above, config.kernel) for width, above in zip(widths, (*config.widths, 0), strict=True)
        )
        self.widths = widths
        unit = [0.0] * spec.channels, [1.0] * spec.channels
        self.bounds = unit if config.any_range else _normalised_range(spec)

    def initial_state(
        self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype
    ) -> PredNetState:
        """All memories are zero before the first frame of `batch` clips, whose frames have `size` (H, W)."""
        zeros = tuple(
            torch.zeros(batch, width, size[0] // 2**level, size[1] // 2**level, device=device, dtype=dtype)
            for level, width in enumerate(self.widths)
        )
        return PredNetState(zeros, zeros, None, zeros[0])

    def step(self, frame: Tensor, state: PredNetState) -> tuple[Tensor, PredNetState]:
        """One normalised frame (B, C, H, W) -> the forecast of the next one, of the same shape, and the new state.

        If the frame is the module's own forecast, the one before is taken for the true frame, as in the authors' code
        and OpenSTL's: compared with itself, a forecast would show no error, and so no motion.
        """
        if state.forecast is None:
            nothing = tuple(torch.cat([r, r], 1) for r in state.representation)
            state = self._expect(state, nothing)
        forecast = state.forecast
        assert forecast is not None
        target = torch.where(is_own(frame, forecast), state.earlier, frame)
        new = self._expect(state, self._errors(target, forecast, state.representation))
        assert new.forecast is not None
        return new.forecast, new

    def _errors(self, target: Tensor, forecast: Tensor, representation: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The frame and its forecast (B, C, H, W), and R of every layer -> the errors E of every layer."""
        errors: list[Tensor] = []
        layers = self._stack()
        for level, (layer, r) in enumerate(zip(layers, representation, strict=True)):
            if level:
                target = layers[level - 1].raise_target(errors[-1])
            predicted = layer.prediction(r).relu() if level else forecast
            errors.append(torch.cat([(predicted - target).relu(), (target - predicted).relu()], 1))
        return tuple(errors)

    def _expect(self, state: PredNetState, errors: tuple[Tensor, ...]) -> PredNetState:
        """The pass from the top to the bottom: new representations from the last errors, and the next forecast."""
        layers, above, states = self._stack(), None, []
        for layer, r, c, e in reversed(list(zip(layers, state.representation, state.cell, errors, strict=True))):
            above, c = layer.represent(r, c, e, above)
            states.append((above, c))
        representation, cell = zip(*reversed(states), strict=True)
        forecast = self._within_range(layers[0].prediction(representation[0]))
        return PredNetState(representation, cell, forecast, state.earlier if state.forecast is None else state.forecast)

    def _stack(self) -> list[PredNetLayer]:
        """The layers, the lowest one first."""
        return cast("list[PredNetLayer]", list(self.layers))

    def _within_range(self, frame: Tensor) -> Tensor:
        if self.bounds is None:
            return frame
        low, high = (torch.tensor(end, device=frame.device, dtype=frame.dtype).view(-1, 1, 1) for end in self.bounds)
        return frame.clamp(low, high)


def hard_sigmoid(x: Tensor) -> Tensor:
    """Keras's: 0.2 x + 0.5, within [0, 1]. PyTorch's rises more slowly."""
    return (0.2 * x + 0.5).clamp(0.0, 1.0)


def _normalised_range(spec: ModelSpec) -> tuple[list[float], list[float]] | None:
    """The ends of the value range as the module sees them, for each channel; None if there is none."""
    if spec.value_range is None:
        return None
    means, stds = (values if len(values) > 1 else values * spec.channels for values in (spec.mean, spec.std))
    low, high = ([(end - mean) / std for mean, std in zip(means, stds, strict=True)] for end in spec.value_range)
    return low, high


def any_range_where_trained(spec: ModelSpec, config: PredNetConfig) -> ModelSpec:
    """The spec of published weights, whose forecasts were kept within [0, 1] whatever their values were."""
    return spec.replace(any_range=True) if spec.value_range is None else spec


def told(shapes: Shapes, known: Frame) -> Told:
    """Of the predictions, one for each layer, every other name is taken: activations lie between them."""
    widths: list[int] = []
    while (prediction := f"Ahat.{2 * len(widths)}.weight") in shapes:
        widths.append(shapes[prediction][0])
    params = {"widths": tuple(widths[1:]), "kernel": shapes["Ahat.0.weight"][-1]}
    return Told(params=params, frame=Frame(channels=same_channels(widths[0], known.channels)))


OPENSTL = Layout(
    rules=rules(
        (r"layers\.(\d+)\.input_gate", r"i.\1"),
        (r"layers\.(\d+)\.forget_gate", r"f.\1"),
        (r"layers\.(\d+)\.output_gate", r"o.\1"),
        (r"layers\.(\d+)\.candidate", r"c.\1"),
        (r"layers\.(\d+)\.prediction", r"Ahat.<\1*2>"),  # activations lie between the convolutions
        (r"layers\.(\d+)\.target", r"A.<\1*2>"),
    ),
    spec=any_range_where_trained,
    readers=(Reader("Ahat.0.weight", told),),
)
ARCHITECTURE = Architecture(
    name="prednet",
    kind="sequential",
    config=PredNetConfig,
    module=PredNet,
    layouts={"openstl": OPENSTL},
)
