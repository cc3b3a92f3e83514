"""On Ray: what workers make is what one process makes, whatever happens to them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scale.shared import field, written

from stzoo.errors import StzooError
from stzoo.scale import forecast_archive
from stzoo.scale.folder import ArchiveFolder

ray = pytest.importorskip("ray", reason="the extra `scale` is not installed")
psutil = pytest.importorskip("psutil")

pytestmark = pytest.mark.slow
HERE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray of two CPUs on loopback, which this process has joined."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: it holds sockets
    with pytest.MonkeyPatch.context() as patch:
        for name, value in HERE.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        at_sigterm = signal.getsignal(signal.SIGTERM)
        ray.init(
            "local", num_cpus=2, include_dashboard=False, object_store_memory=10**8, _temp_dir=folder,
            _node_ip_address="127.0.0.1", log_to_driver=False, logging_level="ERROR",
        )  # fmt: skip
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()
        signal.signal(signal.SIGTERM, at_sigterm)  # Ray would end the process that runs the tests
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """84 hours: 81 starts."""
    field(84).to_netcdf(tmp_path / "long.nc")
    return tmp_path / "long.nc"


def test_workers_that_are_killed_on_the_way(cluster: str, model: Path, long: Path, tmp_path: Path) -> None:
    """Both of two, once the first units are done: Ray begins others, and the bytes are those of one process."""
    killed: list[int] = []
    left: list[int] = []

    def kill() -> None:
        folder = ArchiveFolder(tmp_path / "out")
        while not (folder.path / "done").is_dir() or not folder.finished():
            time.sleep(0.005)
        for process in psutil.Process().children(recursive=True):
            if "MapWorker" in process.name() or "MapWorker" in " ".join(process.cmdline()):
                process.kill()
                killed.append(process.pid)
        left.append(41 - len(folder.finished()))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    report = forecast_archive(long, model, 40, tmp_path / "out", unit=2, workers=2)
    killer.join()
    assert len(killed) == 2
    assert left[0] > 0
    assert (report.forecasts, report.failed, report.workers) == (81, 0, 2)
    assert ray.is_initialized()  # it was not ours to end
    forecast_archive(long, model, 40, tmp_path / "alone", unit=2, threads=1, in_process=True)
    assert written(tmp_path / "out") == written(tmp_path / "alone")


def test_a_unit_that_ends_every_worker_ends_the_run(
    cluster: str, model: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one whose memory is never there: Ray would begin workers for it without end."""
    out = ArchiveFolder(tmp_path / "out")
    forecast_archive(clips, model, 3, out.path, unit=2, threads=1, in_process=True)
    out.marker(1).unlink()
    monkeypatch.setattr("stzoo.scale.folder.ArchiveFolder.begin", lambda *_: [out.attempt(1) for _ in range(5)])
    with pytest.raises(StzooError, match=r"unit 1 of .* has ended 5 workers"):
        forecast_archive(clips, model, 3, out.path, unit=2, threads=1)
    assert out.failed(1) is None


def test_a_cluster_is_joined_and_left_as_it_was(cluster: str, model: Path, clips: Path, tmp_path: Path) -> None:
    environment = os.environ | HERE | {"RAY_ADDRESS": cluster}

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stzoo", *_command(clips, model, 3, tmp_path / "out", *options)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    refused = run("--workers", "3")  # a Ray of its own would have made room
    assert (refused.returncode, (tmp_path / "out").exists()) == (2, False)
    assert "Ray has room for 2" in refused.stderr
    done = run("--json", "--unit", "2")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["forecasts"], report["failed"], report["workers"]) == (7, 1, 2)
    assert ray.cluster_resources()["CPU"] == 2
    forecast_archive(clips, model, 3, tmp_path / "alone", unit=2, threads=1, in_process=True)
    assert written(tmp_path / "out") == written(tmp_path / "alone")


def test_a_cluster_that_is_not_there(model: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        with pytest.raises(StzooError, match="no cluster can be joined there"):
            forecast_archive(clips, model, 3, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_ray_of_its_own_ends_with_the_run(model: Path, clips: Path, tmp_path: Path) -> None:
    """And its workers take no code from the folder in which the command was given, although Ray offers it to them.

    Nor does it leave its handler of SIGTERM behind, which would end a later training before it has saved itself.
    """
    for name in ("stzoo", "numpy", "json", "ray", "pandas", "zarr", "sitecustomize"):
        (clips / f"{name}.py").write_text(f"open({str(tmp_path / 'planted')!r}, 'w').write(__name__)\nraise SystemExit")
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"RAY_TMPDIR": folder}
    words = _command(Path("."), model, 3, tmp_path / "out", "--workers", "1")
    ours = "import signal, sys; from stzoo.cli import main; code = main()"
    command = [sys.executable, "-P", "-c", f"{ours}; sys.exit(code or signal.getsignal(15) or None)", *words]
    try:
        done = subprocess.run(
            command, cwd=clips, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("7 forecasts (1 failed, see errors.jsonl) in ")
        assert os.listdir(folder)  # it was there
        assert not (tmp_path / "planted").exists()
        assert not [p for p in psutil.process_iter(["cmdline"]) if folder in " ".join(p.info["cmdline"] or [])]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _command(source: Path, model: Path, steps: int, out: Path, *options: Any) -> list[str]:
    return ["forecast-archive", str(source), "--model", str(model), "--steps", str(steps), "--out", str(out), *options]
