"""A model in a folder or in a hub repository, with its card."""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from pathlib import Path

from torch import nn

from stzoo.catalog import CODEC_FILE
from stzoo.errors import WeightsError
from stzoo.files import write_atomically
from stzoo.hub.card import README, Card, card_of, readme, written_here
from stzoo.hub.huggingface import push
from stzoo.spec import ModelSpec, has_codec
from stzoo.weights import LoadReport, save_folder


def save(
    folder: Path,
    spec: ModelSpec,
    module: nn.Module,
    report: LoadReport,
    card: Card | None = None,
    repo: str | None = None,
) -> None:
    """``model.safetensors``, ``config.json`` and ``README.md``; see `Forecaster.save_pretrained`.

    A card of weights that are no longer there is removed before anything is written, and the new one comes last: an
    interrupted save leaves a folder without a card, never one whose figures are those of other weights.

    Raises:
        SpecError: the card is none. WeightsError: the folder holds what would be mistaken for a part of the model, or
            a README.md of somebody's own where a card was given.
    """
    found, known = card_of(spec, module, report) if card is None else (card, None)
    called = folder.resolve().name.encode("utf-8", "replace").decode()  # a name may be no text
    name = repo.rpartition("/")[2] if repo else known or called
    text = readme(found, spec, name, repo)
    path = folder / README
    if has_codec(spec) and (folder / CODEC_FILE).exists():  # which would be loaded in place of the codec inside
        raise WeightsError(f"{folder} holds the {CODEC_FILE} of a published model; save into another folder")
    theirs = os.path.lexists(path) and not written_here(path)
    if theirs and card is not None:
        raise WeightsError(f"{path} was written or edited by somebody; move it away, or save without a card")
    if theirs:
        warnings.warn(f"{path} was written or edited by somebody and is left as it is; check its figures", stacklevel=3)
    else:
        path.unlink(missing_ok=True)
    save_folder(folder, spec, module.state_dict())
    if not theirs:
        write_atomically(path, text.encode())


def send(
    repo_id: str,
    spec: ModelSpec,
    module: nn.Module,
    report: LoadReport,
    *,
    private: bool,
    token: str | None,
    message: str | None,
    card: Card | None,
) -> str:
    """Save to a temporary folder, push it, and return "hf://user/repo@<40 hex>"."""
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), spec, module, report, card, repo_id)
        return push(
            Path(folder), repo_id, private=private, token=token, message=message or f"A {spec.arch} saved by stzoo"
        )


def source_of(given: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """``user/repo`` as a hub source, where no file or folder has that name; anything else as it is."""
    if not isinstance(given, str) or given.endswith(".safetensors") or os.path.exists(os.path.expanduser(given)):
        return given
    return f"hf://{given}" if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?", given) else given
