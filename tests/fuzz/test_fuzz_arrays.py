import io
import zipfile
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from fuzzing import cases, end_well, json_values, mutated, numbers
from hypothesis import strategies as st

from stzoo.forecaster import Forecaster

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 16, 16), dtype=np.uint8)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A .npy file whose header says what it likes of 1280 bytes."""
    types = ["|u1", "<f4", ">f8", "|O", "|V4", "|b1", "<c8", "<M8[ns]", "|S4", [("a", "<f4")], "<f4, <i2", "x", 7]
    shape = st.lists(st.sampled_from([5, 16, 16, 320, 0]) | numbers, max_size=6).map(tuple) | json_values
    header: dict[Any, Any] = {"descr": "|u1", "fortran_order": False, "shape": (5, 16, 16)}
    if draw(st.booleans()):
        header["shape"] = draw(shape)
    if draw(st.booleans()):
        header["descr"] = draw(st.sampled_from(types))
    if draw(st.booleans()):
        header["fortran_order"] = draw(st.booleans() | json_values)
    with_long = (
        repr(header) if draw(st.booleans()) else draw(st.sampled_from(["(" * 9999, "{}", "1" * 9999, "-" * 999]))
    )
    text = with_long.encode("utf-8", "surrogatepass")
    version, size = draw(st.sampled_from([(b"\1\0", 2), (b"\2\0", 4), (b"\3\0", 4), (b"\7\0", 2)]))
    return b"\x93NUMPY" + version + len(text).to_bytes(size, "little") + text + FRAMES.tobytes()


def packed(content: bytes, how: int, name: str = "frames.npy") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as file:
        file.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::SyntaxWarning")
@cases(ordinary=250, nightly=10_000)
def test_a_damaged_array_is_forecast_or_refused(
    amount: hypothesis.settings, suffix: str, forecaster: Forecaster, tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix}"
    np.save(tmp_path / "whole.npy", FRAMES)
    whole = (tmp_path / "whole.npy").read_bytes()
    kinds = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]

    def act(content: bytes) -> None:
        path.write_bytes(content)
        forecaster.predict(path)

    contents = headers() | mutated([whole])
    if suffix == ".npz":
        inside = st.tuples(contents, st.sampled_from(kinds)).map(lambda pair: packed(*pair))
        contents = inside | mutated([packed(whole, kind) for kind in kinds])
    end_well(amount, contents, act)
