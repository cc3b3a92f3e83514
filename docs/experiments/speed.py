"""What else might make a forecast faster, beside what the engine does: the table of docs/speed.md.

    python docs/experiments/speed.py tau-mmnist-paper --batch 1
    python docs/experiments/speed.py predrnn-mmnist-paper --batch 1 --precision bfloat16 --skip compile freeze

Every way computes the same forecast with the same weights; they take turns, and each is compared with the plain float32
module that ran just before it. Weights are random if the entry has none.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import stzoo
from stzoo import catalog
from stzoo.engine.compiling import compiled
from stzoo.models import architecture_of
from stzoo.models.contract import SequentialForm
from stzoo.unroll import unroll

Way = Callable[[], Tensor]
WAYS = ("channels_last", "autocast", "compile", "freeze", "engine", "engine compiled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--skip", nargs="*", choices=WAYS, default=[])
    arguments = parser.parse_args()
    plain, ways = prepared(arguments.name, arguments.batch, arguments.precision)
    wanted = plain()
    rows = {}
    for name in [w for w in WAYS if w not in arguments.skip]:
        started = time.perf_counter()
        found = ways[name]()
        rows[name] = (time.perf_counter() - started, ((found - wanted).abs().max() / wanted.abs().max()).item())
    ratios: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(arguments.repeats):
        for name in rows:
            ratios[name].append(seconds(plain) / seconds(ways[name]))
    print(f"{arguments.name}, batch {arguments.batch}, {arguments.precision}, {torch.get_num_threads()} threads")
    print(f"{'':<16}{'times plain':>12}{'lowest':>8}{'highest':>8}{'first call':>12}{'difference':>12}")
    for name, (first, off) in rows.items():
        r = ratios[name]
        print(f"{name:<16}{statistics.median(r):12.2f}{min(r):8.2f}{max(r):8.2f}{first:10.1f} s{off:12.1e}")


def prepared(name: str, batch: int, precision: str) -> tuple[Way, dict[str, Way]]:
    """The plain module in float32, and every other way to compute its forecast in `precision`."""
    model = stzoo.load(name, pretrained=catalog.info(name).weights is not None, precision=precision)
    spec, half = model.spec, precision == "bfloat16"
    torch.manual_seed(0)
    past = torch.rand(batch, spec.frames_in, spec.channels, spec.height, spec.width)
    other = copy.deepcopy(model)
    other.compile()
    nhwc = copy.deepcopy(model.module).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def way(module: object, rounds: bool) -> Way:
        @torch.no_grad()
        def run() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=rounds):
                return torch.stack(list(unroll(module, spec, past, spec.frames_out)), 1).float()

        return run

    def frozen(module: Any) -> Any:
        """Compiled with its weights as constants, which inductor then folds and packs."""
        architecture = architecture_of(spec)
        if architecture.kind != "sequential":
            return torch.compile(module, options={"freezing": True})
        step = torch.compile(module.step, options={"freezing": True})
        return SequentialForm(
            module.initial_state,
            step,
            module.read if architecture.reads_clips else None,
            module.advance if architecture.advances else None,
        )

    return way(model.module, False), {
        "channels_last": way(nhwc, half),
        "autocast": way(model.module, half),
        "compile": way(compiled(nhwc, spec), half),
        "freeze": way(frozen(copy.deepcopy(nhwc)), half),
        "engine": lambda: torch.stack(list(model.engine.unroll(past, spec.frames_out)), 1),
        "engine compiled": lambda: torch.stack(list(other.engine.unroll(past, spec.frames_out)), 1),
    }


def seconds(way: Way) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
