"""Latents that are kept on disk: encoded once, whole or not at all."""

from pathlib import Path
from typing import Any

import pytest
import torch

from stzoo.errors import TrainingError
from stzoo.train.latents import CachedLatents


def numbered(asked: list[int]) -> Any:
    """An encoder whose latents of clip i are i, and i + 0.5 in the future; it writes down what it was asked for."""

    def encode(start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        asked.extend(range(start, stop))
        numbers = torch.arange(start, stop).float()[:, None, None, None, None]
        return numbers.expand(-1, 2, 3, 2, 2), numbers.expand(-1, 1, 3, 2, 2) + 0.5

    return encode


def test_a_killed_cache_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while a file is renamed into place, after 8 of 19 clips: those are kept, the others encoded."""
    asked: list[int] = []
    cache = CachedLatents(tmp_path, 19, numbered(asked), {})
    cache.clips(0, 3)
    with monkeypatch.context() as broken:
        broken.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cache.clips(8, 9)
    asked.clear()
    past, future = CachedLatents(tmp_path, 19, numbered(asked), {}).clips(7, 21)
    assert asked == [0, *range(8, 19)]
    wanted = [*range(7, 19), 0, 1]
    assert past.shape == (14, 2, 3, 2, 2)
    assert past[:, 0, 0, 0, 0].tolist() == wanted
    assert future[:, 0, 0, 0, 0].tolist() == [i + 0.5 for i in wanted]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    cache = CachedLatents(tmp_path, 4, numbered([]), {})
    cache.clips(0, 4)
    (file,) = cache.folder.iterdir()
    file.write_bytes(file.read_bytes()[:150])
    with pytest.raises(TrainingError, match=r"000000\.npy is damaged, remove it"):
        CachedLatents(tmp_path, 4, numbered([]), {}).clips(0, 4)


def test_latents_that_half_precision_cannot_hold(tmp_path: Path) -> None:
    def encode(start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((stop - start, 1, 2, 2, 2), 1e6), torch.zeros(stop - start, 1, 2, 2, 2)

    with pytest.raises(TrainingError, match=r"does not fit into float16; set recipe\.cached_clips to 0"):
        CachedLatents(tmp_path, 4, encode, {}).clips(0, 1)


def test_a_full_disk_is_known_in_advance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: _Usage())

    def encode(start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(1, 10, 64, 16, 16), torch.zeros(1, 10, 64, 16, 16)

    with pytest.raises(TrainingError, match=r"10,000 clips take 6\.6 GB more, and .* has 5\.0 GB left; lower recipe"):
        CachedLatents(tmp_path, 10_000, encode, {})
    assert not list(tmp_path.rglob("*.npy"))


class _Usage:
    free = 5_000_000_000
