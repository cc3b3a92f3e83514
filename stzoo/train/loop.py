"""The training loop: a fixed number of steps by any number of processes, held-out clips, exact resume."""

from __future__ import annotations

import hashlib
import math
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from stzoo.codec import Codec
from stzoo.data import Clip, ClipSource
from stzoo.engine.compiling import compiled
from stzoo.errors import SpecError, TrainingError
from stzoo.frames.values import normalise, to_units
from stzoo.models import architecture_of, build, config_of
from stzoo.models.modular import codec_spec
from stzoo.spec import ModelSpec, differences
from stzoo.train.ahead import Ahead
from stzoo.train.checkpointing import RunFolder
from stzoo.train.codec import CodebookAverage, codec_loss
from stzoo.train.denormals import denormals_flushed
from stzoo.train.fused import FusedTau, why_not
from stzoo.train.latents import CachedLatents
from stzoo.train.objectives import check, objective
from stzoo.train.optim import averaged, optimizers
from stzoo.train.processes import Processes, joined
from stzoo.train.recipe import Recipe
from stzoo.train.recompute import recomputing
from stzoo.train.schedules import SCHEDULES
from stzoo.train.validation import validate
from stzoo.weights import save_folder

CHECK_EVERY = 20  # steps between looks at the loss: logged, and held against divergence
DIVERGED = 20.0  # times its running mean
KEPT = "The last good checkpoint and the best weights are kept"


def train(
    spec: ModelSpec,
    recipe: Recipe,
    training: ClipSource,
    validation: ClipSource,
    out: Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    device: str | None = None,
    progress: bool = True,
    codec: Codec | None = None,
    start: Mapping[str, Tensor] | None = None,
    micro_batch: int | None = None,
) -> Path:
    """Train `spec` by `recipe`; run again with the same arguments, it continues from the last checkpoint.

    Started by `accelerate launch` or `torchrun`, each of the processes takes an equal share of every batch, and the
    gradients are averaged: the run is that of one process, but for BatchNorm, which normalises each share by itself
    (docs/training.md). It may be continued by another number of processes.

    The number of steps is fixed when the run begins, from `steps`, or from `minutes` (the recipe's own by default)
    and the pace measured on this machine, and kept in the run folder: a resumed run has the same schedule. Clip i of
    `training` belongs to step i // batch, so no state of the data needs saving.

    Args:
        out: the run folder, made where absent.
        codec: the trained codec of a modular spec, which stays as it is; the saved weights hold it too.
        device: "cpu" or "cuda"; the GPU where there is one.
        start: the weights to begin from, which are validated first; random ones where None.
        micro_batch: at most so many clips go through the model at once, their gradients added up: less memory for the
            same batch.

    Returns:
        The folder of the weights with the best validation error, which `stzoo.load` reads. It is the first process's.

    Raises:
        TrainingError: the loss diverged (the last good checkpoint stays), `out` holds another run, the batch cannot be
            shared, or another process is gone.
        SpecError: a modular spec without its codec, or with another.
        MissingExtraError: there are several processes, and what they speak through is not installed.
    """
    if micro_batch is not None and micro_batch < 1:
        raise SpecError(f"micro_batch is {micro_batch}; it must be at least 1")
    if start is None:  # which holds a modular model's codec too
        _check_codec(spec, codec)
    processes = joined(device)
    processes.share(recipe.batch)
    folder = RunFolder(out)

    def choose_steps() -> int:
        throwaway = Run(spec, recipe, training, processes.silent(), codec, folder.latents, start, micro_batch)
        return _steps_in(minutes if minutes is not None else recipe.minutes, throwaway)

    # denormals make a backward pass many times slower
    with folder.locked() if processes.first else nullcontext(), denormals_flushed():
        given = {} if codec is None else {"codec": fingerprint(codec.module.state_dict())}
        given |= {} if start is None else {"start": fingerprint(start)}
        given |= {"clips": _identity(training, validation)}
        processes.agree({"spec": spec, "recipe": recipe, "steps": steps} | given)
        total = folder.plan(spec, recipe, steps, choose_steps, given) if processes.first else 0
        total = processes.from_first(total)
        # beside a GPU's step the next clips are made for nothing; on a CPU they would take time from it
        ahead = processes.device.type == "cuda" and not recipe.cached_clips
        end = total * recipe.batch
        with Ahead(training, end, recipe.batch, pinned=True) if ahead else nullcontext(training) as clips:
            run = Run(spec, recipe, clips, processes, codec, folder.latents, start, micro_batch)
            restored = processes.from_first(folder.restore() if processes.first else None)
            if restored:
                run.restore(restored)
                del restored  # as large as everything that trains
            elif start is not None and processes.first:
                _validate(run, folder, validation, {"step": 0})
            if processes.count > 1:  # not all machines draw the same numbers from one seed
                start_of_all = {name: tensor.cpu() for name, tensor in run.module.state_dict().items()}
                run.module.load_state_dict(processes.from_first(start_of_all))
            _loop(run, folder, validation, total, progress and processes.first)
        processes.wait()  # the first one saves last
    return folder.best


def _check_codec(spec: ModelSpec, codec: Codec | None) -> None:
    """Raises `SpecError` where `codec` is not the one that the spec describes, in architecture and in size."""
    if architecture_of(spec).kind != "modular":
        if codec is not None:
            raise SpecError(f"a {spec.arch} has no codec")
        return
    if codec is None:
        raise SpecError("a modular architecture is trained on the latents of a trained codec; none was given")
    wanted = codec_spec(spec, config_of(spec))
    different = differences(codec.spec, wanted, ignoring=("frames_in", "frames_out", "height", "width", "params"))
    mine, its = config_of(wanted), config_of(codec.spec)  # defaults written out or not are the same
    if mine != its:
        different.append(f"params {its} for {mine}")
    if different:
        raise SpecError(f"the codec given is not the spec's: {', '.join(different)}")


class Run:
    """Everything that changes while training, and what one step does to it."""

    def __init__(
        self,
        spec: ModelSpec,
        recipe: Recipe,
        training: ClipSource,
        processes: Processes,
        codec: Codec | None = None,
        latents: Path | None = None,
        start: Mapping[str, Tensor] | None = None,
        micro_batch: int | None = None,
    ):
        self.spec, self.recipe, self.training = spec, recipe, training
        self.processes, self.device = processes, processes.device
        self.share = processes.share(recipe.batch)
        self.micro_batch = micro_batch or len(self.share)
        torch.manual_seed(recipe.seed)
        module = build(spec)
        check(module, spec, recipe)
        if codec is not None:
            module.codec.load_state_dict(codec.module.state_dict())  # type: ignore[union-attr]
        if start is not None:
            module.load_state_dict(start)
        freeze(module, recipe.freeze)
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.module = module.to(self.device).to(memory_format=layout)  # type: ignore[call-overload]
        self.ema = averaged(self.module, recipe.ema) if processes.first else None
        self.frozen = [m for m in module.modules() if not any(p.requires_grad for p in m.parameters())]
        self.part, self.part_spec = learning_part(self.module, spec)
        self.fast = _fast(self.part, self.part_spec, recipe)
        self.cache = None if latents is None or not recipe.cached_clips else self._cached(latents)
        self.codebook = CodebookAverage(self.module, recipe, processes) if architecture_of(spec).is_codec else None
        self.optimizers = optimizers(self.module, recipe)
        self.step, self.best, self.running_loss = 0, math.inf, math.inf

    def advance(self, total: int) -> Tensor:
        """One step: the loss of the whole batch, still on the device."""
        recipe = self.recipe
        self.processes.seeded(recipe.seed, self.step)
        first = self.step * recipe.batch
        past, future, valid = self._batch(first + self.share.start, first + self.share.stop)
        factor = SCHEDULES[recipe.schedule](self.step, total, recipe.warmup)
        spread = None if self.codebook is None else self._variance(past, future)
        self.module.train()
        for part in self.frozen:
            part.eval()  # or BatchNorm's statistics would move
        loss, seen = past.new_zeros(()), []
        masks = repeat(None) if valid is None else valid.split(self.micro_batch)
        for a, b, mask in zip(past.split(self.micro_batch), future.split(self.micro_batch), masks, strict=False):
            one, codes = self._loss(a, b, mask, self.step / total, spread)
            one = one * (len(a) / len(past))
            one.backward()
            loss += one.detach()
            seen.append(codes)
        self._average(loss)
        if recipe.clip:
            nn.utils.clip_grad_norm_(self.module.parameters(), recipe.clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.codebook is not None:
            self.codebook.update(*(torch.cat(each) for each in zip(*seen, strict=True)))
        if self.ema is not None:
            self.ema.update_parameters(self.module)
        self.step += 1
        return loss

    def _loss(
        self, past: Tensor, future: Tensor, valid: Tensor | None, done: float, spread: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The mean over these clips; and of a codec, which needs `spread`, the latents, and the codes they went to."""
        if spread is None:
            return objective(self.fast, self.part, self.part_spec, self.recipe, past, future, done, valid), []
        loss, *seen = codec_loss(self.module, self.recipe, torch.cat([past, future], 1).flatten(0, 1), spread)
        return loss, seen

    def _variance(self, past: Tensor, future: Tensor) -> Tensor:
        """Of the values of the whole batch, of which these are this process's share."""
        values = torch.cat([past.flatten(), future.flatten()]).double()
        parts = torch.stack([values.new_tensor(len(values)), values.sum(), values.square().sum()])
        count, total, squares = self.processes.total(parts)
        return ((squares - total * total / count) / (count - 1)).float()

    def _average(self, loss: Tensor) -> None:
        """Over all processes: the loss, the gradients, and BatchNorm's statistics, each share having moved its own."""
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        statistics = [b for b in self.module.buffers() if b.is_floating_point()]
        self.processes.average([loss, *gradients, *statistics])

    def _batch(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Past, future and where the future was observed, of clips start..stop-1, on the device."""
        if self.cache is not None:
            past, future = (x.to(self.device) for x in self.cache.clips(start, stop))
            return past, future, None
        clip = self.training.clips(start, stop)
        # of latents no cell can be left out: each is made of many pixels
        on_latents = architecture_of(self.spec).kind == "modular"
        valid = None if clip.valid is None or on_latents else clip.valid.to(self.device)
        return *self._seen(clip), valid

    def _seen(self, clip: Clip) -> tuple[Tensor, Tensor]:
        """Past and future as the part that learns sees them: frames, or a codec's latents."""
        there = (x.to(self.device, non_blocking=True) for x in (clip.past, clip.future))
        past, future = (normalise(to_units(x, self.spec), self.spec) for x in there)
        if architecture_of(self.spec).kind == "modular":
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
                past, future = self.module.read(past), self.module.read(future)
        return past, future

    def _cached(self, folder: Path) -> CachedLatents:
        clip = self.training.clips(0, 1)
        identity = {
            "codec": fingerprint(self.module.codec.state_dict()),
            "spec": self.spec.to_dict(),
            "precision": self.recipe.precision,
            "first clip": hashlib.sha256(torch.cat([clip.past, clip.future], 1).cpu().numpy().tobytes()).hexdigest(),
        }
        return CachedLatents(
            folder, self.recipe.cached_clips, lambda a, b: self._seen(self.training.clips(a, b)), identity
        )

    def state(self) -> dict[str, Any]:
        assert self.ema is not None  # only the first process saves
        return {
            "step": self.step,
            "best": self.best,
            "running_loss": self.running_loss,
            "module": self.module.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "codebook": self.codebook.state() if self.codebook is not None else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.best, self.running_loss = state["step"], state["best"], state["running_loss"]
        self.module.load_state_dict(state["module"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if self.codebook is not None:
            self.codebook.restore(state["codebook"])

    def check_finite(self) -> None:
        """Raises `TrainingError` where a weight is not a number any more: such a checkpoint must never be kept."""
        for name, tensor in self.module.state_dict().items():
            if not tensor.isfinite().all():
                raise TrainingError(f"{name} is not finite at step {self.step}; lower the learning rate. {KEPT}")


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of every tensor, with its name: the same for the same weights, wherever they came from."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _identity(training: ClipSource, validation: ClipSource) -> str:
    """Of the clips, by how many there are and by some of them: a run does not go on with others."""
    digest = hashlib.sha256()
    for source in (training, validation):
        digest.update(str(len(source)).encode())
        for i in (0, len(source) // 2):
            clip = source.clips(i, i + 1)
            digest.update(torch.cat([clip.past, clip.future], 1).cpu().numpy().tobytes())
    return digest.hexdigest()


def freeze(module: nn.Module, beginnings: Sequence[str]) -> None:
    """Parameters whose name begins so stay as they are. Raises `SpecError` where none does, or nothing is left."""
    for beginning in beginnings:
        found = [p for name, p in module.named_parameters() if name.startswith(beginning)]
        if not found:
            parts = ", ".join(dict.fromkeys(name.split(".")[0] for name, _ in module.named_parameters()))
            raise SpecError(f"freeze names {beginning!r}; no parameter begins so, the parts are {parts}")
        for p in found:
            p.requires_grad_(False)
    if not any(p.requires_grad for p in module.parameters()):
        raise SpecError(f"freeze names {', '.join(beginnings)}; nothing is left to learn")


def learning_part(module: nn.Module, spec: ModelSpec) -> tuple[nn.Module, ModelSpec]:
    """Of a modular module its predictor, which works on latents; else the module itself. And its spec."""
    if architecture_of(spec).kind == "modular":
        modular: Any = module
        return modular.predictor, modular.predictor_spec
    return module, spec


def _fast(module: nn.Module, spec: ModelSpec, recipe: Recipe) -> Any:
    """The module, or what computes the same with the same parameters in less time."""
    if recipe.fused and recipe.precision == "bfloat16" and not recipe.freeze:
        reason = why_not(module, spec)
        if reason is None:
            return FusedTau(module)  # type: ignore[arg-type]
        warnings.warn(f"training without the fused kernels, which is slower: {reason}", stacklevel=2)
    if recipe.checkpoint:
        return recomputing(module, spec, whole_clips=recipe.sampling == "parallel")
    return compiled(module, spec) if recipe.compile else module


def _steps_in(minutes: float, throwaway: Run) -> int:
    """How many steps fit into `minutes` at the pace measured here, a tenth of the time left over for validation."""

    def step() -> None:
        throwaway.step = 0  # the same clips every time, whose latents are kept where the recipe says so
        throwaway.advance(1_000_000).item()  # waits for a GPU

    for _ in range(3):  # these compile, and warm up
        step()
    start, taken = time.perf_counter(), 0
    while taken < 2 or time.perf_counter() - start < min(20.0, minutes * 6):
        step()
        taken += 1
    return max(1, int(minutes * 60 * 0.9 * taken / (time.perf_counter() - start)))


def _loop(run: Run, folder: RunFolder, validation: ClipSource, total: int, progress: bool) -> None:
    recipe = run.recipe
    saved_at = time.monotonic()
    bar = tqdm(total=total * recipe.batch, initial=run.step * recipe.batch, unit="seq", disable=not progress)
    with bar:
        while run.step < total:
            loss = run.advance(total)
            bar.update(recipe.batch)
            validates = run.step % recipe.validate_every == 0 or run.step == total
            if run.step % CHECK_EVERY and not validates:
                continue
            record: dict[str, Any] = {"step": run.step, "loss": _checked(run, loss.item())}
            if not run.processes.first:
                continue  # it has nothing to keep; the first one is waited for where gradients meet
            bar.set_postfix(loss=f"{record['loss']:.4g}", refresh=False)
            due = time.monotonic() - saved_at >= recipe.checkpoint_minutes * 60
            if due or validates:
                run.check_finite()
            if validates:
                error = _validate(run, folder, validation, record)
                if progress:
                    line = f"step {run.step} of {total}: validation MSE {error:.2f}, best {run.best:.2f}"
                    bar.write(line, file=sys.stderr)
            else:
                _log(run, folder, record)
            if due or validates:
                folder.save(run.state())
                saved_at = time.monotonic()


def _validate(run: Run, folder: RunFolder, clips: ClipSource, record: dict[str, Any]) -> float:
    """Measure the averaged weights, keep them where they are the best so far, log `record` with what was found."""
    assert run.ema is not None
    picture = folder.path / "samples" / f"{run.step:07d}.png"
    found = validate(run.ema.module.eval(), run.spec, run.recipe, clips, run.device, picture)
    error = found["validation_mse"]
    if error < run.best:
        run.best = error
        save_folder(folder.best, run.spec, run.ema.module.state_dict())
    _log(run, folder, record | found)
    return error


def _log(run: Run, folder: RunFolder, record: dict[str, Any]) -> None:
    folder.log(record | {"seconds": round(time.time(), 1), "sequences": run.step * run.recipe.batch})


def _checked(run: Run, loss: float) -> float:
    """The loss, if it still makes sense beside its running mean. Raises `TrainingError` when it does not."""
    if not math.isfinite(loss) or loss > DIVERGED * run.running_loss:
        raise TrainingError(f"the loss diverged to {loss:.4g} at step {run.step}; lower the learning rate. {KEPT}")
    run.running_loss = loss if math.isinf(run.running_loss) else 0.9 * run.running_loss + 0.1 * loss
    return loss
