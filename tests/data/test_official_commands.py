"""The command that `load` names for an entry without weights runs to its first checkpoint, at the published size."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from gray_videos import write_video
from test_kitti_caltech import jpeg, seq, write, write_drive
from test_taxibj import half_hours
from test_taxibj import write as write_h5

import stzoo
from stzoo.cli import main
from stzoo.data.taxibj import FILES
from stzoo.engine import multiplies_in_bfloat16
from stzoo.errors import NotPublishedError
from stzoo.hub import resolve

ENTRIES = ["tau-kth", "simvp-kth", "predrnn-kth", "tau-taxibj", "tau-kitti-caltech"]


def kth(folder: Path) -> None:
    names = [f"person{person:02d}_boxing_d1" for person in (1, 16, 17)]
    for name in names:
        write_video(folder / f"{name}_uncomp.avi", [*range(40, 140, 2)], (160, 120))
    (folder / "00sequences.txt").write_text("".join(f"{name}\t\tframes\t1-50\n" for name in names))


def taxibj(folder: Path) -> None:
    for year, name in zip((2013, 2014, 2015, 2016), FILES, strict=True):
        days = 57 if year == 2016 else 1
        write_h5(folder / name, half_hours(date(year, 2, 1), days), 50.0 * np.sin(np.arange(48 * days)) ** 2)


def kitti_caltech(folder: Path) -> None:
    for name in ("2011_09_26_drive_0001_sync", "2011_09_26_drive_0005_sync"):
        write_drive(folder / "kitti", name, list(range(20, 140, 10)))
    write(folder / "caltech" / "set06" / "V000.seq", seq([jpeg(3 * i) for i in range(36)]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ENTRIES)
def test_it_trains_from_files_of_the_published_format(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotPublishedError, match=rf"`stzoo train {name} --data DIR --out RUN`, where DIR holds the"):
        resolve(name)  # `stzoo.load` takes what others published, if they did
    data = tmp_path / "data"
    data.mkdir()
    {"kth": kth, "taxibj": taxibj, "kitti-caltech": kitti_caltech}[stzoo.info(name).dataset](data)
    recipe = Path(str(stzoo.__path__[0])) / "train" / "recipes" / f"{name}.toml"
    # the model, the loss and the data are the recipe's
    smaller: dict[str, object] = {"batch": 1, "validation_clips": 1}
    if not multiplies_in_bfloat16(torch.device("cpu")):  # where it is imitated, a step takes minutes
        smaller["precision"] = '"float32"'
    if name in ("simvp-kth", "predrnn-kth"):  # tau-kth is trained through its own rollout, these only evaluated on it
        smaller["horizon"] = 10
    lines = [line for line in recipe.read_text().splitlines() if line.split(" ")[0] not in smaller]
    quick = tmp_path / "quick.toml"
    quick.write_text("\n".join([*lines, *(f"{k} = {v}" for k, v in smaller.items())]))
    command = ["train", name, "--data", str(data), "--out", str(tmp_path / "run"), "--recipe", str(quick)]
    assert main([*command, "--steps", "1"]) == 0
    assert (tmp_path / "run" / "checkpoint.pt").is_file()
    spec = stzoo.load(tmp_path / "run" / "best").spec
    assert spec == stzoo.info(name).spec
    capsys.readouterr()
    dataset = ["--dataset", stzoo.info(name).dataset, "--data", str(data)]
    assert main(["evaluate", str(tmp_path / "run" / "best"), *dataset, "--limit", "1"]) == 0
    assert f"{stzoo.info(name).dataset}-{spec.frames_in}-{spec.frames_out}" in capsys.readouterr().out
