"""Saving a model with its card, sending it to a hub, and loading it again."""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from torch import nn

from stzoo.catalog import CODEC_FILE
from stzoo.errors import WeightsError
from stzoo.files import write_atomically
from stzoo.hub.card import README, Card, card_of, origin_card, origin_of, readme, written_here
from stzoo.hub.huggingface import push
from stzoo.hub.sources import Resolved, resolve, source_text
from stzoo.models import architecture_of
from stzoo.spec import ModelSpec
from stzoo.weights import LoadReport, save_folder


class Shareable(ABC):
    """What a `Forecaster` and a `Codec` have in common: each is saved, sent to a hub and loaded in the same way.

    Attributes:
        spec: what the model is.
        report: where its weights came from.
    """

    spec: ModelSpec
    report: LoadReport

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """The plain `torch.nn.Module` whose weights are saved."""

    @classmethod
    @abstractmethod
    def from_files(cls, found: Resolved, name: str) -> Self:
        """The model in files that `stzoo.hub.resolve` found, on the CPU; errors call it `name`."""

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], *, revision: str | None = None) -> Self:
        """The model at `source`, with its weights, on the CPU.

        Args:
            source: as in `stzoo.load`; and "user/repo" is the hub's repository hf://user/repo, unless a file or folder
                has that name.
            revision: the branch, tag or commit of a repository, if `source` names none.

        Raises:
            SpecError: the model is of the other kind: a codec for a `Forecaster`, or a forecaster for a `Codec`.
            StzooError: the weights cannot be found or read, as in `stzoo.load`.
        """
        origin = _source_of(source)
        return cls.from_files(cls.found(origin, revision), source_text(origin))

    @classmethod
    def found(cls, source: str | os.PathLike[str], revision: str | None) -> Resolved:
        """The files of a source. A class that opens more sources than `stzoo.hub.resolve` finds them here."""
        return resolve(source, revision=revision)

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: Card | None = None) -> None:
        """Write `model.safetensors`, `config.json` and a card, `README.md`, into a folder.

        `stzoo.load` (or `stzoo.load_codec`) reads the weights back bit for bit.

        Args:
            folder: it is made if it does not exist. A README.md in it that somebody wrote or edited is kept, with a
                warning.
            card: what README.md says of the weights. By default, the unchanged weights of a catalogue entry get that
                entry's figures and terms, and weights that others published their publisher, address, licence and
                figures; of all other weights the card says only where they come from. Whose file published weights were
                made of is kept in `model.safetensors`, whatever the card says.

        Raises:
            WeightsError: a `card` is given, but the README.md in the folder is not one that stzoo wrote; or the folder
                holds a published modular model. Nothing is written then.
            SpecError: `card` is not a `stzoo.Card`.
        """
        _save(self, Path(os.path.expanduser(folder)), card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        token: str | None = None,
        message: str | None = None,
        card: Card | None = None,
    ) -> str:
        """Send the files that `save_pretrained` writes to a hub, in one commit.

        Args:
            repo_id: "user/repo". The repository is made if it does not exist; a README.md in it is replaced.
            private: make a new repository private.
            token: by default the one that huggingface_hub finds: HF_TOKEN, or that of `hf auth login`.
            message: the commit's message.
            card: as in `save_pretrained`.

        Returns:
            "hf://user/repo@<40 hex>", which names the very commit, and which `stzoo.load` (or `load_codec`) opens.

        Raises:
            WeightsError: `repo_id` is not "user/repo", or the hub refused, with its reason.
            OfflineError: the network is off. SpecError: `card` is not a `stzoo.Card`.
        """
        with tempfile.TemporaryDirectory() as folder:
            _save(self, Path(folder), card, repo_id)
            message = message or f"A {self.spec.arch} saved by stzoo"
            return push(Path(folder), repo_id, private=private, token=token, message=message)


def _save(model: Shareable, folder: Path, card: Card | None, repo: str | None = None) -> None:
    """``model.safetensors``, ``config.json`` and ``README.md``; `repo` is the repository that they will be sent to.

    The card of earlier weights is removed before anything is written, and the new card is written last. So a save that
    is interrupted leaves a folder without a card, never a card whose figures belong to other weights.
    """
    origin, known = origin_of(model.module, model.report), None
    if card is not None:
        found = card
    elif origin is not None:
        found = origin_card(origin)
    else:
        found, known = card_of(model.spec, model.module, model.report)
    called = folder.resolve().name.encode("utf-8", "replace").decode()  # a folder's name may not be valid UTF-8
    name = repo.rpartition("/")[2] if repo else known or called
    text = readme(found, model.spec, name, repo)
    path = folder / README
    modular = architecture_of(model.spec).kind == "modular"
    if modular and (folder / CODEC_FILE).exists():  # it would be loaded in place of the codec inside the model
        raise WeightsError(f"{folder} holds the {CODEC_FILE} of a published model; save into another folder")
    theirs = not written_here(path, absent=True)
    if theirs and card is not None:
        raise WeightsError(f"{path} was written or edited by somebody; move it away, or save without a card")
    if theirs:
        warnings.warn(f"{path} was written or edited by somebody and is left as it is; check its figures", stacklevel=3)
    else:
        path.unlink(missing_ok=True)
    save_folder(folder, model.spec, model.module.state_dict(), origin)
    if not theirs:
        write_atomically(path, text.encode())


def _source_of(given: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """``user/repo`` as a hub source, unless a file or folder has that name; anything else as it is."""
    if not isinstance(given, str) or given.endswith(".safetensors") or os.path.exists(os.path.expanduser(given)):
        return given
    return f"hf://{given}" if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?", given) else given
