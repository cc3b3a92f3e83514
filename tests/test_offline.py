"""Without a network everything in the package works, and what is told to stay offline opens no socket."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stzoo
from stzoo.frames import write

FORBIDDEN = """
import os, sys

def forbid(event, args):
    if event.startswith("socket."):
        os.write(2, f"SOCKET {event} {args!r}".encode())
        os._exit(66)

sys.addaudithook(forbid)
"""


def without_sockets(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own that ends with status 66 when anything in it makes a socket."""
    return subprocess.run(
        [sys.executable, "-c", FORBIDDEN + code], capture_output=True, text=True, env=os.environ | environment
    )


def test_the_guard_guards() -> None:
    done = without_sockets("import socket; socket.socket()")
    assert (done.returncode, done.stderr.split()[0]) == (66, "SOCKET")


@pytest.mark.slow
def test_everything_in_the_package_works(tmp_path: Path, frames: np.ndarray) -> None:
    write(tmp_path / "in.gif", np.repeat(np.repeat(np.resize(frames, (10, 16, 16)), 4, 1), 4, 2))
    names = stzoo.list_models(pretrained=True, kind="forecaster")
    done = without_sockets(
        f"""
import numpy as np, stzoo
from stzoo.cli import main

for name in {names!r}:
    model = stzoo.load(name)
    s = model.spec
    frames = np.zeros((s.frames_in, s.channels, s.height, s.width), np.float32)
    assert model.predict(frames).shape[0] == s.frames_out
for name in {stzoo.list_models(pretrained=True, kind="codec")!r}:
    codec = stzoo.load_codec(name)
    codec.reconstruct(np.zeros((1, codec.spec.height, codec.spec.width), np.float32))
stzoo.load("tau-mmnist").save_pretrained("saved")
for command in (
    ["list"],
    ["info", "tau-mmnist"],
    ["cache", "list"],
    ["catalog", "verify"],
    ["demo"],
    ["rollout", "in.gif", "--model", "saved", "--steps", "12", "-o", "out.gif"],
):
    assert main(command) == 0, command
print("done")
""".replace("import numpy", f"import os; os.chdir({str(tmp_path)!r}); import numpy", 1)
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["done"]), done.stderr


SOURCES = f"""
import stzoo
from dataclasses import replace
from types import MappingProxyType
from stzoo import catalog, errors, hub

entry = stzoo.info("tau-mmnist")
remote = ("hf://user/model@{"0" * 40}", "https://127.0.0.1:9/tau-mmnist.safetensors")
away = replace(entry, weights=replace(entry.weights, sources=remote))
catalog.entries = lambda: MappingProxyType({{"tau-mmnist": away}})

def refused(source, **arguments):
    try:
        stzoo.load(source, **arguments)
    except errors.OfflineError as error:
        return str(error)
    raise AssertionError(source)
"""


@pytest.mark.parametrize("switch", ["STZOO_OFFLINE", "HF_HUB_OFFLINE", "argument"])
def test_offline_opens_no_socket(switch: str, tmp_path: Path) -> None:
    argument = "offline=True" if switch == "argument" else ""
    environment = {"STZOO_MIRRORS": "https://127.0.0.1:9/mirror"} | ({} if argument else {switch: "1"})
    environment |= {"HF_HOME": str(tmp_path), "STZOO_HOME": str(tmp_path)}  # others leave things in the tests' own
    done = without_sockets(
        SOURCES
        + f"""
print(refused("hf://user/model", {argument}))
print(refused("hf://user/model@v2", {argument}))
print(refused("tau-mmnist", {argument}))
""",
        **environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the network is off") == 5  # each repository; of the entry's three sources, each
    assert "(4) https://127.0.0.1:9/mirror/tau-mmnist.safetensors: the network is off" in done.stdout


def test_nothing_is_published_offline(tmp_path: Path) -> None:
    done = without_sockets(
        f"""
from pathlib import Path
from stzoo import errors
from stzoo.hub.huggingface import push

try:
    push(Path({str(tmp_path)!r}), "user/model")
except errors.OfflineError as error:
    print(error)
""",
        STZOO_OFFLINE="1",
    )
    assert "nothing is sent to user/model" in done.stdout


def test_no_dataset_is_fetched_offline(tmp_path: Path) -> None:
    done = without_sockets(
        f"""
from pathlib import Path
from stzoo import errors
from stzoo.data.mmnist import download_digits

try:
    download_digits(Path({str(tmp_path)!r}), "https://127.0.0.1:9")
except errors.DataError as error:
    print(error)
""",
        STZOO_OFFLINE="1",
    )
    assert "the network is off" in done.stdout, done.stderr


def test_online_the_same_sources_are_asked() -> None:
    done = without_sockets(SOURCES + 'stzoo.load("tau-mmnist")')
    assert done.returncode == 66  # so the tests above would see a socket
