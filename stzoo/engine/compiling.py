"""What `stzoo.unroll` drives, through `torch.compile`: slow at the first forecast, sometimes faster afterwards."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stzoo.errors import SpecError
from stzoo.models import architecture_of
from stzoo.models.contract import ModularForm, SequentialForm
from stzoo.private import private_folder
from stzoo.spec import ModelSpec

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"  # where torch.compile keeps the code that it made, and runs it from


def compiled(module: nn.Module, spec: ModelSpec) -> Any:
    """The module in a form of which `torch.compile` compiles each method that `unroll` calls.

    A block becomes a callable, a sequential module a `SequentialForm`, a modular one a `ModularForm`.

    Raises:
        SpecError: the folder in which torch keeps compiled code belongs to another user.
    """
    _check_cache()
    plain: Any = module  # of the kind that its architecture states
    architecture = architecture_of(spec)
    if architecture.kind == "modular":
        predictor = compiled(plain.predictor, plain.predictor_spec)
        return ModularForm(predictor, plain.predictor_spec, torch.compile(plain.read), torch.compile(plain.paint))
    if architecture.kind == "sequential":
        read = torch.compile(plain.read) if architecture.reads_clips else None
        advance = torch.compile(plain.advance) if architecture.advances else None
        return SequentialForm(plain.initial_state, torch.compile(plain.step), read, advance)
    return torch.compile(plain)


def _check_cache() -> None:
    """Raises `SpecError` if other users could put code where torch.compile looks for what it compiled earlier.

    By default that is a folder of a known name among everybody's temporary files, so another user may have made it
    first. A folder that the environment names is the user's own choice.
    """
    try:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir
    except ImportError:  # a version of PyTorch that has this function elsewhere
        return
    if os.environ.get(CACHE_VARIABLE, default_cache_dir()) != default_cache_dir():  # torch itself sets it to this one
        return
    try:
        with suppress(FileNotFoundError):  # torch says it better if there is no place for temporary files
            private_folder(Path(default_cache_dir()), CACHE_VARIABLE)
    except OSError as error:
        raise SpecError(f"torch.compile cannot keep its code: {error}") from error
