"""Devices that are there and not there."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import stzoo
from stzoo import machine
from stzoo.catalog import Speed
from stzoo.errors import SpecError
from stzoo.machine import check_device, devices_here
from stzoo.train.processes import joined


@pytest.mark.parametrize(
    ("cpuinfo", "intel", "keeps_up", "flags"),
    [
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2\n", True, True, {"fpu", "avx2"}),
        ("vendor_id\t: GenuineIntel\nflags\t\t: avx2 avx512f\n", True, True, {"avx2", "avx512f"}),
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2\n", False, True, {"fpu", "avx2"}),
        ("vendor_id\t: AuthenticAMD\nflags\t\t: avx2 avx512f\n", False, False, {"avx2", "avx512f"}),
        ("Features\t: asimd bf16\nCPU implementer\t: 0x41\n", False, False, {"asimd", "bf16"}),
    ],
)
def test_the_processor_is_read_from_what_linux_says(
    cpuinfo: str, intel: bool, keeps_up: bool, flags: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.Path, "read_text", lambda *_: f"processor\t: 0\n{cpuinfo}")
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    assert machine.is_intel.__wrapped__() is intel
    assert machine.cpu_flags.__wrapped__() == flags
    for cached in ("is_intel", "cpu_flags"):
        monkeypatch.setattr(machine, cached, getattr(machine, cached).__wrapped__)
    assert machine.mkl_keeps_up() is keeps_up


@pytest.mark.parametrize(
    "device", ["cuda:77", "mps:7", "xpu:9", "meta", "hpu", "gpu", "CUDA", "", "cuda:-1", 1.5, True, None, 10**6]
)
def test_a_device_that_is_not_there_is_refused_and_the_error_lists_those_that_are(device: Any) -> None:
    with pytest.raises(SpecError, match=r"device is .*\bcpu\b"):
        check_device(device)


def test_the_error_lists_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.mps, "device_count", lambda: 0)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 0)
    assert devices_here() == ["cpu", "cuda:0", "cuda:1"]
    with pytest.raises(
        SpecError, match="device is cuda:7; torch finds no such GPU here, so use cpu or cuda:0 or cuda:1"
    ):
        check_device("cuda:7")
    with pytest.raises(SpecError, match="device is mps; torch finds no such device here, so use cpu or"):
        check_device("mps")
    with pytest.raises(SpecError, match="device is 'gpu'; it may be cpu or cuda:0 or cuda:1 on this machine"):
        check_device("gpu")
    assert check_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "cpu:0"])
def test_the_cpu_is_always_there(device: Any) -> None:
    assert check_device(device).type == "cpu"


@pytest.mark.parametrize(
    "use",
    [
        lambda device: stzoo.load("tau-ut", device=device),
        lambda device: stzoo.load("tau-ut", pretrained=False, device=device),
        lambda device: stzoo.load_codec("vqvae-mmnist", device=device),
        lambda device: stzoo.create("tau-ut").to(device),
        joined,
    ],
)
@pytest.mark.parametrize("device", ["cuda:77", "mps:7", "nonsense"])
def test_whatever_takes_a_device_refuses_one_that_is_not_there(use: Callable[[str], Any], device: str) -> None:
    with pytest.raises(SpecError, match=f"device is .*{device}"):
        use(device)


def test_the_number_of_a_device_is_no_default() -> None:
    """0 is the first accelerator, and not the same as None."""
    if devices_here() == ["cpu"]:
        with pytest.raises(SpecError, match="device is 0"):
            stzoo.load("tau-ut", device=0)  # type: ignore[arg-type]


def test_the_catalogue_and_the_command_line_know_the_same_devices() -> None:
    assert {Speed.__annotations__["device"], Speed.__annotations__["precision"]} == {"Device", "Precision"}
    assert machine.DEVICES == ("cpu", "cuda")
