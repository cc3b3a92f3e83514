"""The pictures of docs/rain.md: for each test event the start whose forecast is the best and the worst of all.

    python docs/experiments/rain_pictures.py --data DIR --out docs

Best and worst are by the ratio of the mean squared error in mm/h to that of the last field repeated. Rows are what
came, the mean and the matched forecast; columns are lead times. Gray is what was not observed.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import stzoo
from stzoo.data.radar import DBR, TEST

PAST, STEPS, SHOWN, EVERY = 6, 12, (0, 2, 5, 8, 11), 3
RATES = (0.1, 0.5, 1, 2, 5, 10, 20)  # mm/h at which the next colour begins
COLOURS = np.array(
    [(255, 255, 255), (197, 222, 242), (136, 189, 225), (61, 140, 195), (32, 92, 155), (252, 196, 65), (232, 104, 41),
     (170, 25, 50), (190, 190, 190)], np.uint8
)  # fmt: skip


def rates_of(codes: np.ndarray) -> np.ndarray:
    """uint8 codes of a radar event -> mm/h, NaN where nothing was observed."""
    dbr = DBR[0] + codes / 255 * (DBR[1] - DBR[0])
    return np.where(codes == 0, np.nan, np.where(dbr < -10.001, 0.0, 10 ** (dbr / 10)))


def drawn(rates: np.ndarray) -> Image.Image:
    index = np.where(np.isnan(rates), len(COLOURS) - 1, np.searchsorted(RATES, np.nan_to_num(rates), side="right"))
    return Image.fromarray(COLOURS[index])


def sheet(rows: dict[str, np.ndarray], minutes: float, title: str) -> Image.Image:
    height, width = next(iter(rows.values())).shape[1:]
    picture = Image.new("RGB", (70 + len(SHOWN) * (width + 4), 44 + len(rows) * (height + 4)), "white")
    text = ImageDraw.Draw(picture)
    text.text((4, 4), title, fill="black")
    for column, step in enumerate(SHOWN):
        text.text((74 + column * (width + 4), 26), f"+{(step + 1) * minutes:g} min", fill="black")
    for row, (label, fields) in enumerate(rows.items()):
        text.text((4, 44 + row * (height + 4) + height // 2), label, fill="black")
        for column, step in enumerate(SHOWN):
            picture.paste(drawn(fields[step]), (70 + column * (width + 4), 44 + row * (height + 4)))
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the radar events")
    parser.add_argument("--model", default="tau-radar", help="name or folder of a model")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    arguments = parser.parse_args()
    model = stzoo.load(arguments.model)
    for event in TEST:
        with np.load(arguments.data / f"{event}.npz") as file:
            rates, minutes = rates_of(file["frames"]).astype(np.float32), float(file["step_minutes"])
        ratios = {}
        for start in range(0, len(rates) - PAST - STEPS + 1, EVERY):
            past, future = rates[start : start + PAST], rates[start + PAST : start + PAST + STEPS]
            mean = model.predict(past, units="mm/h", missing="fill")
            ratios[start] = np.nanmean((mean - future) ** 2) / np.nanmean((past[-1] - future) ** 2)
        for name, start in (
            ("best", min(ratios, key=ratios.__getitem__)),
            ("worst", max(ratios, key=ratios.__getitem__)),
        ):
            past, future = rates[start : start + PAST], rates[start + PAST : start + PAST + STEPS]
            rows = {"what came": future, "the mean": model.predict(past, units="mm/h")}
            rows["matched"] = model.predict(past, units="mm/h", matched=True)
            title = f"{event}, field {start + PAST}: error {ratios[start]:.2f} times that of persistence"
            sheet(rows, minutes, title).save(arguments.out / f"rain-{event.split('_')[0]}-{name}.png", optimize=True)
            print(title)


if __name__ == "__main__":
    main()
