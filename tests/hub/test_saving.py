"""A model saved over another one: whatever happens, the folder holds one of the two."""

import json
import os
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import stzoo
from stzoo import weights
from stzoo.errors import WeightsError
from stzoo.forecaster import Forecaster
from stzoo.hub.card import Card, written_here
from stzoo.weights import NEXT_CONFIG_FILE, save_folder


def saved_by_a_child(folder: Path, model: Forecaster, steps: int) -> bool:
    """Save the model in a child of this process, which dies before file operation number `steps`; whether it died."""
    child = os.fork()
    if child == 0:
        left = iter(range(steps))

        def kill(event: str, _: object) -> None:
            if (event == "open" or event.startswith("os.")) and next(left, None) is None:
                os._exit(9)

        sys.addaudithook(kill)
        save_folder(folder, model.spec, model.module.state_dict())
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("before", ["another model", "a model whose file carries no spec", "nothing"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills children that are forked")
def test_a_save_that_is_killed_at_any_step_leaves_the_old_model_or_the_new_one(before: str, tmp_path: Path) -> None:
    """Never one file of each."""
    old, new = (stzoo.create("tau-mmnist", height=16, width=16, hid_s=4, hid_t=hid, n_t=2) for hid in (8, 16))
    found = []
    for step in count():
        folder = tmp_path / str(step)
        if before != "nothing":
            save_folder(folder, old.spec, old.module.state_dict())
        if before == "a model whose file carries no spec":
            save_file(old.module.state_dict(), folder / "model.safetensors")
        killed = saved_by_a_child(folder, new, step)
        loaded = stzoo.load(folder) if (folder / "model.safetensors").exists() else None
        if loaded is not None:
            expected = new if loaded.spec == new.spec else old
            assert loaded.spec == expected.spec
            present = loaded.module.state_dict()
            assert all(torch.equal(t, present[name]) for name, t in expected.module.state_dict().items())
        found.append(None if loaded is None else loaded.spec)
        if not killed:
            break
    assert found[-1] == new.spec
    assert len(found) > 10
    changes = sum(a != b for a, b in pairwise(found))
    assert changes == 1  # once it is new, it stays so


def test_processes_that_save_the_same_model_at_once_all_succeed(
    forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the ranks of a training do. Here all of them have a config.json that waits before any gives it its name."""
    together, save = threading.Barrier(4, timeout=60), weights.save_weights

    def wait(*arguments: Any) -> None:
        save(*arguments)
        together.wait()

    monkeypatch.setattr(weights, "save_weights", wait)
    with ThreadPoolExecutor(4) as threads, warnings.catch_warnings():
        warnings.simplefilter("error")
        list(threads.map(forecaster.save_pretrained, [tmp_path] * 4))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert written_here(tmp_path / "README.md")
    loaded = stzoo.load(tmp_path)
    assert loaded.spec == forecaster.spec
    assert all(torch.equal(t, loaded.module.state_dict()[n]) for n, t in forecaster.module.state_dict().items())


def test_a_card_that_another_process_removes_meanwhile_is_nobodys(
    forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecaster.save_pretrained(tmp_path)
    read = Path.read_text

    def too_late(path: Path, *arguments: Any) -> str:
        path.unlink(missing_ok=True)
        return read(path, *arguments)

    monkeypatch.setattr(Path, "read_text", too_late)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forecaster.save_pretrained(tmp_path, card=Card(summary="Mine"))
    assert b"Mine" in (tmp_path / "README.md").read_bytes()


def test_what_waits_counts_only_if_it_is_of_the_weights(forecaster: Forecaster, tmp_path: Path) -> None:
    """As after a full disk: the config.json of a model whose weights could not be written."""
    forecaster.save_pretrained(tmp_path)
    for waiting in (stzoo.create("tau-mmnist").spec.to_dict(), "no spec"):
        (tmp_path / NEXT_CONFIG_FILE).write_text(json.dumps(waiting))
        assert stzoo.load(tmp_path).spec == forecaster.spec
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"holds no config\.json"):
        stzoo.load(tmp_path)
