"""What `stzoo.unroll` drives, through `torch.compile`: slow at the first forecast, sometimes faster afterwards."""

import os
from typing import Any

import torch
from torch import nn

from stzoo import environment
from stzoo.errors import NoHomeError, SpecError
from stzoo.models import architecture_of
from stzoo.models.contract import ModularForm, SequentialForm
from stzoo.private import private_folder
from stzoo.spec import ModelSpec

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"  # where torch.compile keeps the code that it made, and runs it from


def compiled(module: nn.Module, spec: ModelSpec) -> Any:
    """The module in a form of which `torch.compile` compiles each method that `unroll` calls.

    A block becomes a callable, a sequential module a `SequentialForm`, a modular one a `ModularForm`.

    Raises:
        SpecError: the folder for compiled code belongs to another user, or cannot be made. NoHomeError: there is no
            place for it.
    """
    _keep_code_privately()
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


def _keep_code_privately() -> None:
    """Let torch.compile keep its code in the folder `compiled` below $STZOO_HOME, which is this user's alone.

    By default it runs what it finds in a folder of a known name among everybody's temporary files, which another user
    may have made first, or may write to. That folder is left as it is: other programs may be compiling in it. A folder
    that the environment names is the user's own choice, and is taken.

    Raises:
        SpecError: the folder belongs to another user, or cannot be made. NoHomeError: there is no place for it.
    """
    named = os.environ.get(CACHE_VARIABLE)
    try:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir

        chosen = bool(named) and named != os.path.abspath(default_cache_dir())  # which torch itself sets
    except ImportError:  # a version of PyTorch that has this function elsewhere
        chosen = bool(named)
    if chosen:
        return
    try:
        folder = private_folder(environment.made(environment.home()) / "compiled", CACHE_VARIABLE)
    except NoHomeError:
        raise
    except OSError as error:
        raise SpecError(f"torch.compile cannot keep its code: {error}") from error
    os.environ[CACHE_VARIABLE] = os.path.abspath(folder)
