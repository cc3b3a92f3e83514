"""People from two datasets at ten frames a second: UT-Interaction, whose files have 30, and Ped2.

The folder holds ``ut_interaction/`` (with ``set1`` and ``set2``) and ``ped2/``. Each is split as it is by itself, and
figures are told for all clips and for each of the two. In training, of UT-Interaction every third frame is taken, from
the first, the second and the third on; in the other parts from the first on. It is trained on at all 30 frames a second
as well, from every third frame on, because in both datasets people seldom stand on one spot while their arms move, and
at a third of their pace they do for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from stzoo.data import Reading, Split, ped2, ut_interaction
from stzoo.data.joined import JoinedClips, Part
from stzoo.data.recordings import RecordedDataset
from stzoo.errors import DataError

THINNED = 3  # 30 frames a second become 10
FOLDERS = ("ut_interaction", "ped2")


@dataclass(frozen=True)
class People:
    """The dataset, made of the two.

    Attributes:
        ut: UT-Interaction, thinned.
        slow: UT-Interaction at a third of its pace, not thinned: for training.
        ped2: Ped2.
    """

    ut: RecordedDataset
    slow: RecordedDataset
    ped2: RecordedDataset

    def split(self, name: Split, frames_in: int, frames_out: int) -> JoinedClips:
        """The clips of UT-Interaction, then those of Ped2, and in training then the slow ones.

        Raises `DataError` as `RecordedDataset.split` does.
        """
        sources = {"UT-Interaction": self.ut, "Ped2": self.ped2}
        sources |= {"UT-Interaction, slow": self.slow} if name == "train" else {}
        return JoinedClips(
            tuple(Part(title, data.split(name, frames_in, frames_out)) for title, data in sources.items())
        )

    def describe(self) -> str:
        return f"{self.ut.describe()}\n{self.ped2.describe()}"


def open_folder(folder: Path, reading: Reading) -> People:
    """Both datasets. Raises `DataError` if `folder` lacks one of them, or what is there is something else."""
    missing = [name for name in FOLDERS if not (folder / name).is_dir()]
    if missing:
        raise DataError(
            f"{folder} holds no {' and no '.join(missing)}; people needs the folders {' and '.join(FOLDERS)}"
        )
    slow = ut_interaction.open_folder(folder / FOLDERS[0], reading)
    phases = tuple(replace(each, first=phase) for each in slow.segments["train"] for phase in range(THINNED))
    return People(
        replace(
            slow,
            reading=replace(reading, every=THINNED * reading.every),
            segments=MappingProxyType({**slow.segments, "train": phases}),
        ),
        replace(slow, hop=MappingProxyType({**slow.hop, "train": THINNED})),
        ped2.open_folder(folder / FOLDERS[1], reading),
    )
