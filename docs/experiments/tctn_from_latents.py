"""Begin a TCTN on pixels with what the TCTN of tctn-modular-mmnist has learned on latents, and train it on.

Both have the same layers, on the same 16x16 places. Three steps:

1. The layers and the last norm are taken over.
2. The two convolutions in front of them learn, from single frames, to give the layers what they are used to: what the
   latents of the frame give them. The readout is fitted to the next frame by least squares.
3. All of it is fine-tuned on forecasts, by the recipe tctn-mmnist-from-latents.

    python docs/experiments/tctn_from_latents.py --data DIR --out RUN --steps 575

RUN/best is then entered by `stzoo catalog add`. Run again, it goes on from the last checkpoint of step 3.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import stzoo
import stzoo.train
from stzoo.data import Reading, mmnist, open_dataset
from stzoo.frames.values import normalise, to_units
from stzoo.models.positions import positions
from stzoo.models.recurrent import to_patches
from stzoo.models.tctn import Tctn
from stzoo.train.recipe import read_recipe

FRAMES, STEPS, RATE = 32, 300, 2e-3  # of the convolutions in front: frames in a batch, steps, the highest rate
FITTED = 64  # clips that the readout is fitted to


def begun(data: Path) -> stzoo.Forecaster:
    """tctn-mmnist with the layers of tctn-modular-mmnist, and with inputs and outputs that suit them."""
    latent: Any = stzoo.load("tctn-modular-mmnist").module
    model = stzoo.create("tctn-mmnist")
    teacher: Any = latent.predictor
    module: Any = model.module
    module.layers.load_state_dict(teacher.layers.state_dict())
    module.norm.load_state_dict(teacher.norm.state_dict())
    clips = mmnist.training_set(data, 10, 10)

    def frames(start: int, stop: int) -> Tensor:
        """Whole clips (B, 20, 1, 64, 64), normalised."""
        clip = clips.clips(start, stop)
        return normalise(to_units(torch.cat([clip.past, clip.future], 1), model.spec), model.spec)

    front = [*module.embed.parameters(), *module.refine.parameters()]
    learning = torch.optim.AdamW(front, lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(learning, RATE, total_steps=STEPS)
    for step in range(STEPS):
        seen = frames(step * FRAMES, (step + 1) * FRAMES)[:, step % 20]  # one frame of each clip
        with torch.no_grad():
            wanted = teacher._embed(latent.read(seen[:, None])[:, 0])
        loss = F.mse_loss(module._embed(seen), wanted)
        learning.zero_grad()
        loss.backward()
        learning.step()
        schedule.step()
        if step % 50 == 49:
            print(f"step {step + 1}: error {loss.item() / wanted.var().item():.3f} of the variance", flush=True)
    fit_readout(module, torch.cat([frames(i, i + 8) for i in range(STEPS * FRAMES, STEPS * FRAMES + FITTED, 8)]))
    return model


@torch.no_grad()
def fit_readout(module: Tctn, frames: Tensor) -> None:
    """Set the readout to the one that forecasts the next frame of these clips (B, T, C, H, W) with least error."""
    inner, outer = 0.0, 0.0
    for clip in frames.split(4):
        state = module.initial_state(len(clip), (clip.shape[-2], clip.shape[-1]), clip.device, clip.dtype)
        x = module._embed(clip[:, :-1].flatten(0, 1)).unflatten(0, (len(clip), -1))
        x = x + positions(torch.arange(x.shape[1]), x.shape[2]).to(x)[:, :, None, None]
        for layer, kept in zip(module.layers, state.layers, strict=True):
            x, _ = layer(x, kept)
        features = module.norm(x.flatten(0, 1)).movedim(1, -1).flatten(0, -2).double()
        wanted = to_patches(clip[:, 1:].flatten(0, 1), module.patch).movedim(1, -1).flatten(0, -2).double()
        inner, outer = inner + features.mT @ features, outer + features.mT @ wanted
    module.readout.weight.copy_(torch.linalg.solve(inner, outer).mT[:, :, None, None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the MNIST IDX files")
    parser.add_argument("--out", type=Path, required=True, help="the run folder")
    parser.add_argument("--steps", type=int, required=True, help="steps of the fine-tuning")
    arguments = parser.parse_args()
    start = arguments.out.with_name(arguments.out.name + "-start")
    if not start.exists():
        began = time.perf_counter()
        begun(arguments.data).save_pretrained(start)
        print(f"inputs and outputs fitted in {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)
    model = stzoo.load(start)
    stzoo.train.fine_tune(
        model,
        open_dataset("mmnist", arguments.data, Reading.of(model.spec)),
        recipe=read_recipe("tctn-mmnist-from-latents"),
        steps=arguments.steps,
        out=arguments.out,
        progress=False,
    )


if __name__ == "__main__":
    main()
