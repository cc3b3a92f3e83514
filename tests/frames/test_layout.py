import numpy as np
import pytest
import torch

from stzoo.errors import FramesError
from stzoo.frames.layout import LAYOUTS, find_layout, from_bchw, to_btchw
from stzoo.opening import create
from stzoo.spec import ModelSpec

GRAY = ModelSpec(arch="tau", frames_in=4, frames_out=4, channels=1, height=16, width=16)
COLOUR = ModelSpec(arch="tau", frames_in=4, frames_out=4, channels=3, height=16, width=16)
PHYSICAL = GRAY.replace(value_range=None)


@pytest.mark.parametrize(
    ("spec", "shape", "layout"),
    [
        (GRAY, (5, 16, 24), "THW"),
        (GRAY, (5, 1, 16, 24), "TCHW"),
        (GRAY, (5, 16, 24, 1), "THWC"),
        (GRAY, (2, 5, 1, 16, 24), "BTCHW"),
        (GRAY, (2, 5, 16, 24, 1), "BTHWC"),
        (COLOUR, (5, 3, 16, 24), "TCHW"),
        (COLOUR, (5, 16, 24, 3), "THWC"),
        (GRAY, (5, 15, 23), "THW"),
        (GRAY, (5, 15, 23, 1), "THWC"),
        (GRAY, (5, 3, 15, 23), "TCHW"),
        (GRAY, (5, 15, 23, 3), "THWC"),
        (GRAY, (2, 5, 3, 15, 23), "BTCHW"),
        (COLOUR, (5, 15, 23), "THW"),
        (COLOUR, (5, 1, 15, 23), "TCHW"),
        (COLOUR, (2, 5, 15, 23, 1), "BTHWC"),
    ],
)
def test_shapes_are_read_the_one_way_that_fits(spec: ModelSpec, shape: tuple[int, ...], layout: str) -> None:
    assert find_layout(shape, spec, 4, None) == layout


@pytest.mark.parametrize(
    ("spec", "shape", "layout", "message"),
    [
        (GRAY, (16, 16), None, r"expected \(T>=4, H, W\) or .* given \(16, 16\)"),
        (GRAY, (5, 2, 16, 16), None, r"expected .* given \(5, 2, 16, 16\)"),
        (PHYSICAL, (5, 3, 16, 16), None, r"expected .* given \(5, 3, 16, 16\)"),
        (GRAY, (3, 16, 16), None, "at least 4 past frames, given 3"),
        (COLOUR, (5, 2, 16, 16), None, "expected"),
        (COLOUR, (3, 16, 16), None, "at least 4 past frames, given 3"),
        (GRAY, (0, 5, 1, 16, 16), None, r"expected .* given \(0, 5, 1, 16, 16\), which is empty"),
        (GRAY, (5, 16, 16), "TCHW", "has 4 axes"),
        (GRAY, (5, 16, 16), "HWT", "it may be THW"),
    ],
)
def test_what_does_not_fit_is_explained(
    spec: ModelSpec, shape: tuple[int, ...], layout: str | None, message: str
) -> None:
    with pytest.raises(FramesError, match=message):
        find_layout(shape, spec, 4, layout)


@pytest.mark.parametrize(
    ("shape", "alpha", "message"),
    [
        ((5, 16, 16, 2), False, r"given \(5, 16, 16, 2\): the model takes 1 or 3 channels$"),
        ((5, 16, 24, 4), False, r"if the fourth channel is alpha, leave it out: frames\[\.\.\., :3\]$"),
        ((5, 4, 16, 24), True, r"leave it out: frames\[:, :3\]$"),
        ((2, 5, 4, 16, 24), False, r"leave it out: frames\[:, :, :3\]$"),
        ((2, 5, 16, 24), False, r"channels; if these are 2 clips of 5 gray frames, say so with layout='BTHW'$"),
        ((2, 5, 16, 3), False, "at least 4 past frames, given 2"),
        ((5, 2, 16, 24), False, "channels$"),  # clips of two frames, which are too few
    ],
)
def test_an_error_names_what_would_be_read(shape: tuple[int, ...], alpha: bool, message: str) -> None:
    with pytest.raises(FramesError, match=message):
        find_layout(shape, GRAY, 4, None, alpha=alpha)


def test_an_error_shows_a_size_only_where_the_model_takes_no_other() -> None:
    many = r"\(T>=4, H, W\) or \(T>=4, 1 or 3, H, W\) or \(B, T>=4, 1 or 3, H, W\) or \(T>=4, H, W, 1 or 3\), given"
    with pytest.raises(FramesError, match=many):
        find_layout((5, 2, 16, 16), GRAY, 4, None)
    with pytest.raises(FramesError, match=r"expected \(T>=4, 16, 16\) or \(T>=4, 1 or 3, 16, 16\)"):
        find_layout((5, 2, 16, 16), GRAY, None, None)
    just = (
        r"expected \(T>=4, H, W\) or .* or \(T>=4, H, W, 1\) with H and W multiples of 4, .* the model takes 1 channel;"
    )
    with pytest.raises(FramesError, match=just):
        find_layout((5, 3, 16, 16), GRAY, 4, None, exact=True)


def test_two_readings_are_refused_with_both_named() -> None:
    for spec, shape in ((COLOUR, (5, 3, 16, 3)), (GRAY, (5, 3, 15, 3)), (GRAY, (5, 3, 15, 1)), (COLOUR, (5, 1, 15, 3))):
        with pytest.raises(FramesError, match=r"TCHW or as THWC; say which: layout='TCHW' or layout='THWC'"):
            find_layout(shape, spec, 1 if shape[2] == 16 else 2, None)


def test_what_is_just_as_the_model_reads_it_is_read_so() -> None:
    assert find_layout((5, 3, 16, 1), GRAY, 1, None) == "THWC"  # 3 rows, not three colours of one column
    with pytest.raises(FramesError, match=r"multiples of 4, given 15x16 .* nearest size that works is 16x16"):
        find_layout((5, 15, 16), GRAY, 4, None, exact=True)
    with pytest.raises(FramesError, match="expected"):
        find_layout((5, 3, 16, 16), GRAY, 4, None, exact=True)
    with pytest.raises(
        FramesError,
        match="the only size this model takes, given 16x20 .* its weights have .* resize=True",
    ):
        find_layout((5, 16, 20), GRAY, None, None)


def test_four_channels_are_rgba_where_it_is_said_and_they_come_last() -> None:
    assert find_layout((5, 16, 24, 4), GRAY, 4, None, alpha=True) == "THWC"
    for shape, alpha in (((5, 16, 24, 4), False), ((5, 4, 16, 24), True)):
        with pytest.raises(FramesError, match="expected"):
            find_layout(shape, GRAY, 4, None, alpha=alpha)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_comes_back_as_it_went(layout: str) -> None:
    """A model whose forecast is its past tells whether any axis was mixed up."""
    channels = 3 if "C" in layout else 1
    spec = ModelSpec(arch="tau", frames_in=4, frames_out=4, channels=channels, height=8, width=12)
    sizes = {"B": 2, "T": 4, "C": channels, "H": 8, "W": 12}
    x = torch.rand([sizes[a] for a in layout])
    past = to_btchw(x, find_layout(tuple(x.shape), spec, 4, layout))
    assert past.shape == (sizes["B"] if "B" in layout else 1, 4, channels, 8, 12)
    back = torch.stack([from_bchw(f, layout) for f in past.unbind(1)], layout.index("T"))
    assert torch.equal(back, x)


def test_a_channels_last_video_comes_back_channels_last() -> None:
    model = create(COLOUR.replace(params={"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2}))
    video = np.random.default_rng(0).random((4, 16, 16, 3), dtype=np.float32)
    answer = model.predict(video)
    assert answer.shape == (4, 16, 16, 3)
    np.testing.assert_array_equal(answer, model.predict(video.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1))
