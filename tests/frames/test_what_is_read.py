"""Paths that lead to no ordinary file: nothing waits for a FIFO, reads a device, or reads what has no end."""

import os
import socket
from pathlib import Path

import pytest

from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster

SUFFIXES = (".npy", ".npz", ".gif", ".png", ".webp", ".mp4", ".avi", ".nc", ".zarr")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["fifo", "device", "socket", "link to a fifo", "link to itself", "/proc"])
def test_what_is_no_ordinary_file_is_refused_at_once(
    kind: str, suffix: str, forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a{suffix}"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # the path of a socket must be short
        socket.socket(socket.AF_UNIX).bind(path.name)
    elif kind == "link to a fifo":
        os.mkfifo(tmp_path / "fifo")
        path.symlink_to(tmp_path / "fifo")
    elif kind == "link to itself":
        path.symlink_to(path)
    else:
        if not Path("/proc/self/status").is_file():
            pytest.skip("this system has no /proc")
        path.symlink_to("/proc/self/status")
    with pytest.raises(FramesError, match=rf"a\{suffix}") as caught:
        forecaster.predict(path)
    assert str(caught.value).isprintable()


def test_a_fifo_in_a_folder_of_images_is_refused(forecaster: Forecaster, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.png")
    with pytest.raises(FramesError, match=r"0\.png is no file"):
        forecaster.predict(tmp_path)
