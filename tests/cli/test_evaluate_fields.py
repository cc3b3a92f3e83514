"""`stzoo evaluate` on whole fields of rain: one figure for all events, and one for each."""

import json
from pathlib import Path

import numpy as np
import pytest

from stzoo.cli import main
from stzoo.data.radar import DBR, DRY
from stzoo.opening import create
from stzoo.spec import ModelSpec


def test_events_of_several_sizes(spec: ModelSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sides that the model's stride does not divide, and a field smaller than the frames it was trained on."""
    model = tmp_path / "model"
    create(spec.replace(value_range=DBR, mean=[-10.2], std=[16.0], fill=-10.2)).save_pretrained(model)
    events = tmp_path / "events"
    events.mkdir()
    rng = np.random.default_rng(0)
    sizes = {"bom2_20180616": (10, 21, 35), "mch_20160711": (8, 13, 18), "fmi_20160928": (11, 19, 22)}
    for name, minutes in (("bom2_20180616", 6), ("mch_20160711", 5), ("fmi_20160928", 5)):
        frames = np.where(rng.random(sizes[name]) < 0.5, DRY, rng.integers(2, 150, sizes[name])).astype(np.uint8)
        frames[:, :3] = 0  # never observed
        np.savez(events / f"{name}.npz", frames=frames, step_minutes=minutes)
    command = ["evaluate", str(model), "--dataset", "radar-fields", "--data", str(events)]
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["protocol"] == "radar-fields-4-4"
    assert report["definition"] == "stzoo-rain-rates"
    assert {name: (part["clips"], part["step_minutes"]) for name, part in report["parts"].items()} == {
        "bom2_20180616": (2, 6.0),
        "mch_20160711": (1, 5.0),
    }
    cells = {"bom2_20180616": 2 * 18 * 35, "mch_20160711": 10 * 18}  # that were observed at a step
    of_parts = sum(report["parts"][name]["steps"]["mae"][0] * count for name, count in cells.items())
    assert report["steps"]["mae"][0] == pytest.approx(of_parts / sum(cells.values()))
    assert main([*command, "--part", "validation", "--limit", "1"]) == 0
    out = capsys.readouterr().out
    assert "radar-fields-4-4, validation part, first 1 sequences only: 1 sequence, metrics as defined by" in out
    assert "4 (20 min)" in out
    assert main([*command, "--part", "validation", "--csv"]) == 0
    assert capsys.readouterr().out.startswith("part,step,minutes,csi_0_1,")
