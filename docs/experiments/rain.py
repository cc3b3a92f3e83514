"""Scores of rain for models, persistence, and pysteps' extrapolation and S-PROG, all on the same clips.

    pip install pysteps opencv-python-headless
    python docs/experiments/rain.py --data DIR
    python docs/experiments/rain.py --data DIR --models tau-radar --events mch_20160711 --every 4

Clips and scores are those of `stzoo evaluate MODEL --dataset radar-fields --data DIR`, or of another `--dataset`.
pysteps moves the last field in dBR along the motion that Lucas and Kanade's method finds in the past fields. What comes
from beyond the field, or from cells that were not observed, is not known: the first table of an event counts it as dry,
the second leaves out the cells that extrapolation does not reach. Models forecast every cell (`missing="fill"`).
"""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import cache, partial, reduce
from io import StringIO
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from pysteps import motion, nowcasts
from tqdm import tqdm

import stzoo
from stzoo.data import DATASETS, Reading, open_dataset
from stzoo.data.joined import parts_of
from stzoo.data.radar import DBR
from stzoo.data.recordings import RecordedClips
from stzoo.metrics import DEFINITIONS, Definition, Totals

DRY = -15.0  # dBR that pysteps' examples put where it rains less than 0.1 mm/h
STEPS, PAST = 12, 6
LOW, HIGH = DBR
Nowcast = Callable[[np.ndarray], np.ndarray]  # past fields (T, H, W) in dBR, `DRY` where dry -> (STEPS, H, W)

find_motion = motion.get_method("LK")
extrapolate = nowcasts.get_method("extrapolation")
sprog = nowcasts.get_method("sprog")


def extrapolation(past: np.ndarray) -> np.ndarray:
    return extrapolate(past[-1], find_motion(past, verbose=False), STEPS)


def spectral_prognosis(past: np.ndarray) -> np.ndarray:
    if not (past[-1] >= -10.0).any():
        return np.full((STEPS, *past.shape[1:]), DRY)  # it has no answer where there is no rain
    velocity = find_motion(past, verbose=False)
    with redirect_stdout(StringIO()):  # it tells much
        return sprog(past[-3:], velocity, STEPS, n_cascade_levels=6, precip_thr=-10.0)


def persistence(past: np.ndarray) -> np.ndarray:
    return np.repeat(past[-1:], STEPS, 0)


def of_model(source: str, past: np.ndarray, **how: bool) -> np.ndarray:
    dbr = np.maximum(past, LOW + 0.2).astype(np.float32)
    return loaded(source).rollout(dbr, STEPS, missing="fill", **how)


@cache
def loaded(source: str) -> Any:
    return stzoo.load(source)


def clips_of(source: RecordedClips, every: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Past and future fields in dBR, `DRY` where dry or unobserved; where the last past and the future are known."""
    for recording, t, y, x in source.places[::every]:
        window = np.s_[t : t + PAST + STEPS, 0, y : y + source.height, x : x + source.width]
        frames, valid = source.recordings[recording].frames[window], source.recordings[recording].valid[window]
        dbr = np.where(frames > 1, LOW + frames / 255 * (HIGH - LOW), DRY)
        yield dbr[:PAST], dbr[PAST:], valid[PAST - 1], valid[PAST:]


def scored(
    defined: Definition, past: np.ndarray, forecast: np.ndarray, future: np.ndarray, valid: np.ndarray
) -> Totals:
    """The scores of one clip. What is not known in the forecast (NaN) counts as dry."""
    before, made, truth = (
        (np.where(x >= -10.001, x, LOW + 0.2) - LOW)[None, :, None] / (HIGH - LOW) for x in (past, forecast, future)
    )
    return Totals.of(defined, before, made, truth, valid[None, :, None])


def table(title: str, rows: dict[str, Totals]) -> None:
    """Each score at every lead time and its mean, a row for each method."""
    print(f"\n{title}")
    steps = "".join(f"{t:9d}" for t in range(1, STEPS + 1))
    for score in next(iter(rows.values())).steps():
        print(f"{score:<24}{steps}     mean")
        for name, totals in rows.items():
            values = [*totals.steps()[score], totals.over_steps()[score]]
            print(f"  {name:<22}" + "".join(f"{value:9.3f}" for value in values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the radar events")
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    parser.add_argument("--events", nargs="+", help="only these events of the part")
    parser.add_argument("--every", type=int, default=1, help="only every so manieth clip")
    parser.add_argument("--dataset", choices=("radar", "radar-crops", "radar-fields"), default="radar-fields")
    parser.add_argument("--models", nargs="*", default=["tau-radar"], help="names or folders of models")
    parser.add_argument("--matched", action="store_true", help="also the probability-matched output of each model")
    parser.add_argument("--json", type=Path, help="file to write all scores to")
    arguments = parser.parse_args()
    methods: dict[str, Nowcast] = {
        "persistence": persistence,
        "extrapolation": extrapolation,
        "S-PROG": spectral_prognosis,
    }
    for source in arguments.models:
        methods[Path(source).name] = partial(of_model, source)
        if arguments.matched:
            methods[f"{Path(source).name} matched"] = partial(of_model, source, matched=True)
    reading = Reading(channels=1, height=128, width=128)
    clips = open_dataset(arguments.dataset, arguments.data, reading).split(arguments.part, PAST, STEPS)
    defined = DEFINITIONS[DATASETS[arguments.dataset].definition]
    found: dict[str, dict[str, dict[str, Totals]]] = {}  # event -> which cells -> method -> totals
    for part in parts_of(clips):
        if arguments.events and part.name not in arguments.events:
            continue
        minutes = "" if part.step_minutes is None else f" ({part.step_minutes:g} minutes a step)"
        of_event = found.setdefault(f"{part.name or arguments.dataset}{minutes}", {})
        assert isinstance(part.source, RecordedClips)
        count = len(part.source.places[:: arguments.every])
        for past, future, before, valid in tqdm(clips_of(part.source, arguments.every), part.name, count):
            known = extrapolate(np.where(before, 0.0, np.nan), find_motion(past, verbose=False), STEPS)
            for name, nowcast in methods.items():
                forecast = nowcast(past)
                for cells, where in (("all cells", valid), ("reached cells", valid & np.isfinite(known))):
                    totals = scored(defined, past, forecast, future, where)
                    of_cells = of_event.setdefault(cells, {})
                    of_cells[name] = of_cells[name] + totals if name in of_cells else totals
    if len(found) > 1:
        found["all events"] = {
            cells: {name: reduce(add, (of[cells][name] for of in found.values())) for name in methods}
            for cells in ("all cells", "reached cells")
        }
    for event, of_event in found.items():
        for cells, rows in of_event.items():
            table(f"{event}, {cells}", rows)
    if arguments.json:
        values = {e: {c: {n: t.steps() for n, t in rows.items()} for c, rows in of.items()} for e, of in found.items()}
        arguments.json.write_text(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
