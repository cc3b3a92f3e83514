"""How much a pass computes and moves, beside the figures of the papers."""

import pytest

import stzoo
from stzoo.benchmark.counting import bytes_moved, macs

PUBLISHED = {  # GMAC of the papers and of published benchmarks, as docs/architectures.md has them
    ("tau-mmnist-paper", 10): 15.95,
    ("simvp-mmnist-paper", 10): 16.53,
    ("simvp-incepu-mmnist-paper", 10): 19.43,
    ("tau-kth", 10): 73.8,
    ("tau-taxibj", 4): 2.49,
    ("convlstm-mmnist-paper", 10): 56.8,
    ("predrnn-mmnist-paper", 10): 115.95,
    ("predrnnpp-mmnist-paper", 10): 171.7,
    ("mim-mmnist-paper", 10): 179.2,
    ("e3dlstm-mmnist-paper", 10): 298.9,
    ("phydnet-mmnist-paper", 10): 15.3,
    ("mau-mmnist-paper", 10): 17.8,
    ("predformer-mmnist-paper", 10): 16.5,
    ("swinlstm-mmnist-paper", 10): 69.9,
}


@pytest.mark.parametrize(("entry", "steps"), PUBLISHED)
def test_multiply_accumulates_are_the_published_ones(entry: str, steps: int) -> None:
    spec = stzoo.info(entry).spec
    spec = spec.replace(variant="public") if spec.arch == "e3dlstm" else spec
    assert macs(spec, steps) / 1e9 == pytest.approx(PUBLISHED[entry, steps], rel=0.01)


def test_e3dlstm_recalls_with_one_query_for_both_frames_of_a_window() -> None:
    """Half of the products of recall, which the formula counts: 19 steps of 4 layers, 20 memories of 2 x 256 places."""
    spec = stzoo.info("e3dlstm-mmnist-paper").spec
    saved = macs(spec.replace(variant="public"), 10) - macs(spec, 10)
    recalled = sum(4 * 256 * (min(step, 20) * 2 * 256) * 128 * 2 for step in range(1, 20))
    assert saved == pytest.approx(recalled, rel=0.01)


def test_every_block_and_every_step_is_counted() -> None:
    block, step = stzoo.info("tau-mmnist").spec, stzoo.info("predrnn-mmnist").spec
    one, ten, eleven = (macs(block, n) for n in (1, 10, 11))
    assert (one, eleven) == (ten, 2 * ten)
    assert macs(step, 3) * 10 == macs(step, 1) * 12  # ten frames are read, of which the last gives the first forecast


def test_bytes_are_weights_clips_and_frames() -> None:
    spec = stzoo.info("tau-ut").spec
    size = stzoo.info("tau-ut").weights
    assert size is not None
    frames = 4 * 3 * (10 + 7) * 64 * 64
    half = bytes_moved(spec, 3, 7, "bfloat16") - frames
    assert bytes_moved(spec, 3, 7, "float32") - frames == 2 * half
    assert half == pytest.approx(size.size, rel=0.02)  # of float16, with a header
