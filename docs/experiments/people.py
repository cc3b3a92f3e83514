"""People at 128x128, ten frames a second: models beside persistence and optical flow, and scenes that stand still.

    python docs/experiments/people.py --data DIR --models tau-people
    python docs/experiments/people.py --data DIR --models runs/a/best runs/b/best --part validation

DIR holds `ut_interaction`, `ped2` and `kth`. The first two are the parts of the dataset `people`, whose test or
validation part is measured, each horizon on all clips that are long enough. The recordings of KTH, 25 frames a second,
are read at every second frame, all of them, for no model here has seen any. Optical flow is TV-L1 of scikit-image
between the last two frames, along which the last frame is carried on. MSE is summed over a frame and averaged over the
clips and over all steps up to the horizon.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from skimage.registration import optical_flow_tvl1
from skimage.transform import warp

import stzoo
from stzoo.data import ClipSource, Reading, kth, open_dataset
from stzoo.data.people import People
from stzoo.errors import DataError

READING = Reading(channels=1, height=128, width=128)
PAST, HORIZONS = 10, (10, 20, 40)
BATCH = 8
Method = Callable[[np.ndarray, int], np.ndarray]


def persistence(past: np.ndarray, steps: int) -> np.ndarray:
    """(N, T, 1, H, W) -> (N, steps, 1, H, W), all in [0, 1]."""
    return np.repeat(past[:, -1:], steps, 1)


def optical_flow(past: np.ndarray, steps: int) -> np.ndarray:
    """(N, T, 1, H, W) -> (N, steps, 1, H, W): the last frame, moved on by the motion between the last two."""
    rows, columns = np.mgrid[: past.shape[-2], : past.shape[-1]]
    forecasts = []
    for before, last in past[:, -2:, 0]:
        down, right = optical_flow_tvl1(last, before)  # where in `before` is what `last` shows here?
        forecasts.append(
            [warp(last, np.stack([rows + k * down, columns + k * right]), mode="edge") for k in range(1, steps + 1)]
        )
    return np.array(forecasts, np.float32)[:, :, None]


def batches(source: ClipSource, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Past and future of at most `limit` clips, evenly spread over all of them, in [0, 1]."""
    chosen = np.unique(np.linspace(0, len(source) - 1, min(limit, len(source))).round().astype(int))
    for start in range(0, len(chosen), BATCH):
        clips = [source.clips(int(i), int(i) + 1) for i in chosen[start : start + BATCH]]
        past, future = (np.concatenate([getattr(c, part).numpy() for c in clips]) for part in ("past", "future"))
        yield past.astype(np.float32) / 255, future.astype(np.float32) / 255


def errors(methods: dict[str, Method], source: ClipSource, limit: int) -> tuple[int, dict[str, np.ndarray]]:
    """How many clips were measured, and the MSE of each method at each step."""
    sums: dict[str, np.ndarray] = dict.fromkeys(methods, np.zeros(1))
    count = 0
    for past, future in batches(source, limit):
        count += len(past)
        for name, method in methods.items():
            squared = np.square(method(past, future.shape[1]) - future, dtype=np.float64)
            sums[name] = sums[name] + squared.sum((0, 2, 3, 4))
    return count, {name: total / count for name, total in sums.items()}


def drift(method: Method, source: ClipSource, limit: int) -> float:
    """The mean distance, in gray levels of 255, to a frame that stood still for the whole past, after 40 steps."""
    found = []
    for past, _ in batches(source, limit):
        still = np.repeat(past[:, -1:], PAST, 1)
        found.append(np.abs(method(still, HORIZONS[-1])[:, -1] - past[:, -1]).mean((1, 2, 3)))
    return 255 * float(np.concatenate(found).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="*", default=[], metavar="MODEL", help="entries of the catalogue, or folders")
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    parser.add_argument("--limit", type=int, default=100, help="clips of each dataset, evenly spread (default: 100)")
    arguments = parser.parse_args()
    methods: dict[str, Method] = {"persistence": persistence, "optical flow": optical_flow}
    methods |= {name: stzoo.load(name).rollout for name in arguments.models}
    people = open_dataset("people", arguments.data, READING)
    assert isinstance(people, People)
    recordings = kth.open_folder(
        arguments.data / "kth", Reading(channels=1, height=128, width=128, every=2), (1, 3, 15), ()
    )
    print(f"| MSE, {arguments.part} part | clips | steps | {' | '.join(methods)} |")
    print("|---" * (3 + len(methods)) + "|")
    for steps in HORIZONS:
        sources = {}
        for title, dataset in (("UT-Interaction", people.ut), ("Ped2", people.ped2)):
            try:
                sources[title] = dataset.split(arguments.part, PAST, steps)
            except DataError as error:  # no recording is long enough
                print(f"{title}, {steps} steps: {error}")
        if arguments.part == "test":
            sources["KTH, never trained on"] = recordings.split("test", PAST, steps)
        for title, source in sources.items():
            count, found = errors(methods, source, arguments.limit)
            row = " | ".join(f"{error.mean():.2f}" for error in found.values())
            print(f"| {title} | {count} | {steps} | {row} |", flush=True)
    for name in arguments.models:
        for title, source in sources.items():
            print(
                f"{name}: a still frame of {title} drifts by {drift(methods[name], source, 10):.2f} gray levels of 255"
            )


if __name__ == "__main__":
    main()
