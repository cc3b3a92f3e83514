"""Many processes at once, killed ones, and those with an environment of their own."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from hub import children
from hub.hf_server import LoopbackHub
from hub.server import LoopbackMirror
from hub.shared import CONTENT, QUICK, SHA256, SIZE, WEIGHTS, Load, Place, sha256_of, trusted

from stzoo.download import download, part_of


def test_a_lock_left_by_a_dead_process_holds_nobody_up(place: Place, processes: ForkServerContext) -> None:
    place.target.parent.mkdir()
    child = processes.Process(target=children.hold, args=(place.target,))
    child.start()
    wait_until(lambda: (place.target.parent / "held").exists() or not child.is_alive())
    child.kill()
    child.join()
    assert place.target.with_name(".a.safetensors.lock").exists()
    place.get()
    assert place.target.read_bytes() == CONTENT


@pytest.mark.slow
def test_a_hundred_kills_never_leave_half_a_file(
    mirror: LoopbackMirror, processes: ForkServerContext, tmp_path: Path
) -> None:
    content = random.Random(2).randbytes(4 << 20)
    url, target, sha256 = mirror.add("/a", content), tmp_path / "a", hashlib.sha256(content).hexdigest()
    part, draw, parts, finished = part_of(target), random.Random(3), 0, 0
    mirror.fail(times=None, rate=50 << 20)
    for number in range(100):
        child = processes.Process(target=children.fetch, args=(trusted(), url, target, len(content), sha256))
        child.start()
        if number % 10 == 0:  # sometimes before anything is there, else after some more of the file has come
            time.sleep(draw.uniform(0, 0.02))
        else:
            goal = size_of(part) + draw.randrange(1 << 20)
            wait_until(lambda goal=goal, child=child: size_of(part) > goal or target.exists() or not child.is_alive())
            time.sleep(draw.uniform(0, 0.002))
        child.kill()
        child.join()
        if target.exists():
            assert hashlib.sha256(target.read_bytes()).hexdigest() == sha256
            finished += 1
            target.unlink()
        parts += 0 < size_of(part) < len(content)
    download(url, target, len(content), sha256, QUICK, progress=False)
    assert target.read_bytes() == content
    assert parts > 20  # kills found files half written,
    assert sum(r.headers.get("range") is not None for r in mirror.asked()) > 20  # which were gone on with,
    assert finished  # and came to an end


@pytest.mark.slow
def test_twenty_processes_at_once_cause_one_download_from_a_mirror(place: Place, processes: ForkServerContext) -> None:
    place.mirror.fail(rate=1_000_000)  # long enough for all to arrive before it ends
    arguments = (trusted(), place.url, place.target, SIZE, SHA256)
    running = [processes.Process(target=children.fetch, args=arguments) for _ in range(20)]
    for child in running:
        child.start()
    for child in running:
        child.join()
    assert [child.exitcode for child in running] == [0] * 20
    assert [(r.status, r.sent) for r in place.mirror.asked()] == [(200, SIZE)]
    assert place.target.read_bytes() == CONTENT
    assert not place.part.exists()


def test_a_kill_within_the_body_leaves_nothing_that_looks_whole(
    hub_server: LoopbackHub, files: dict[str, bytes], cache: Path, load: Load, processes: ForkServerContext
) -> None:
    hub_server.add("user/model", files)
    hub_server.fail(WEIGHTS, cut=20_000, stall=True)
    child = processes.Process(target=children.find, args=("hf://user/model", cache, sha256_of(files)))
    child.start()
    wait_until(lambda: any(request.sent for request in hub_server.asked(WEIGHTS)) or not child.is_alive())
    child.kill()
    child.join()
    assert not list(cache.rglob("snapshots/*/model.safetensors"))
    assert load().report.sha256 == sha256_of(files)


@pytest.mark.slow
def test_twenty_processes_at_once_cause_one_download_from_a_hub(
    hub_server: LoopbackHub, files: dict[str, bytes], cache: Path, processes: ForkServerContext
) -> None:
    hub_server.add("user/model", files)
    hub_server.fail(WEIGHTS, rate=30_000)  # long enough for all to arrive before it ends
    running = [
        processes.Process(target=children.find, args=("hf://user/model", cache, sha256_of(files))) for _ in range(20)
    ]
    for child in running:
        child.start()
    for child in running:
        child.join()
    assert [child.exitcode for child in running] == [0] * 20
    assert len(hub_server.asked(WEIGHTS)) == 1


def in_a_new_process(environment: dict[str, str], source: str, **arguments: Any) -> str:
    """Resolve a source where huggingface_hub has yet to read its environment: the path, or the error's name."""
    code = (
        "import json, sys, stzoo.hub\n"
        "try: print(stzoo.hub.resolve(sys.argv[1], progress=False, **json.loads(sys.argv[2])).path)\n"
        "except stzoo.StzooError as error: print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", code, source, json.dumps(arguments)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.slow
def test_the_folders_and_the_switch_of_huggingface_hub_are_respected(
    hub_server: LoopbackHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    commit = hub_server.add("user/model", files)
    source, home, cache = f"hf://user/model@{commit}", tmp_path / "hf", tmp_path / "hf-cache"
    found = in_a_new_process({"HF_HOME": str(home)}, source)
    assert Path(found).is_relative_to(home / "hub" / "models--user--model" / "snapshots" / commit)
    found = in_a_new_process({"HF_HOME": str(home), "HF_HUB_CACHE": str(cache)}, source)
    assert Path(found).is_relative_to(cache / "models--user--model" / "snapshots" / commit)
    seen = len(hub_server.requests)
    off = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    assert Path(in_a_new_process(off, source)).is_relative_to(home)
    assert in_a_new_process(off, "hf://user/other").startswith("OfflineError user/other has no config.json")
    assert in_a_new_process(off, "hf://user/other", offline=False).startswith("DownloadError")
    assert len(hub_server.requests) == seen


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def wait_until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.0005)
