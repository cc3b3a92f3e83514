from pathlib import Path

import pytest

from stzoo.frames.order import in_order, is_hidden

ORDERS = {
    "signed steps": [f"t{i:+d}.png" for i in range(-6, 6)],
    "steps back, and now": [*(f"step-{i}.png" for i in range(11, 0, -1)), "step0.png", "step1.png"],
    "steps back alone": [f"t-{i}.png" for i in range(11, 0, -1)],
    "lead times": [f"lead_{i:+d}h.png" for i in (-12, -6, 0, 6, 12)],
    "a longer sign": [f"\N{MINUS SIGN}{i}.png" for i in (11, 2, 1)] + ["0.png"],
    "seconds": [f"{i * 0.25:g}.png" for i in range(48)],
    "seconds as Python prints them": [f"at {i / 4}.png" for i in range(48)],
    "seconds of a folder": [f"{i * 0.5:g}" for i in range(24)],
    "metres": [f"dist_{x:g}m.png" for x in (0.5, 1.25, 2, 10)],
    "numbers of all kinds": ["-3.png", "0.25.png", "0.5.png", "1.png", "2.5e2.png", "1e3.png"],
    "small numbers": ["1e-3.png", "2e-2.png", "0.1.png", "1.png"],
    "dates": [f"2024-{month:02d}-{day:02d}.png" for month in (1, 10) for day in (1, 2, 11)],
    "dates of one month": [f"2024-01-{day:02d}.png" for day in range(1, 32)],
    "dates without zeros": [
        f"{sign.join(('2024', str(m), str(d)))}.nc" for sign in "-" for m in (1, 2, 10) for d in (2, 10)
    ],
    "dates with points": [f"2024.{month}.{day}" for month in (1, 2, 10) for day in (2, 10)],
    "times": ["2024-01-02T23-50.png", "2024-01-02T23-55.png", "2024-01-03T00-00.png"],
    "hyphens": [f"frame-{i}.png" for i in range(1, 13)],
    "parts of a part": [f"1.{i}.png" for i in range(1, 13)],
    "points before numbers": [f"img.{i}.png" for i in range(1, 13)],
    "episodes": ["s1e1.mp4", "s1e2.mp4", "s1e10.mp4", "s2e1.mp4"],
    "capital letters": ["IMG_1.JPG", "img_2.jpg", "IMG_10.jpeg"],
    "the first without a number": ["shot.png", "shot (2).png", "shot (10).png"],
    "the first without a number, before hyphens": ["shot.jpg", "shot-2.jpg", "shot-10.jpg"],
    "the first without a number, before others": ["shot.jpg", "shot2.jpg", "shot10.jpg", "shot_2.jpg"],
    "the first without a number, after signed ones": ["lead-6.png", "lead+0.png", "shot.png", "shot 2.png"],
    "folders of versions": ["run", "run.v2", "run.v10", "run_1.v1"],
    "versions beside numbers with points": ["0.5", "1.5", "run.v2", "run.v10"],
    "a copy": ["photo 1.jpg", "photo (2).jpg", "photo (10).jpg"],
}


@pytest.mark.parametrize("what", ORDERS)
def test_numbered_files_are_in_the_order_of_their_numbers(what: str) -> None:
    names = ORDERS[what]
    for given in (names[::-1], names[1::2] + names[::2]):
        assert [path.name for path in in_order(map(Path, given))] == names


def test_hidden_files_are_known_by_name() -> None:
    assert all(map(is_hidden, (".a.png", "._a.png", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX")))
    assert not any(map(is_hidden, ("a.png", "_a.png", "thumbs.png", "a..png")))
