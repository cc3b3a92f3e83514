"""The HDF5 files in which flows of traffic are published: counts on a grid, each with the date that they belong to."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np

from stzoo.errors import DataError, FramesError, MissingExtraError, printable
from stzoo.frames.netcdf import check_chunks, check_structure


def read_flow(path: Path, frame: tuple[int, int, int], most: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The arrays `data` and `date` of a file.

    Args:
        path: the file.
        frame: the shape of a row of `data`: in- and outflow, rows and columns of the grid.
        most: how many rows a file may have.
        what: which files make up the dataset, in words, for the error where this one is absent.

    Returns:
        The flow, (N, *frame) float32, with negative counts as 0, and the dates (N,) as the file has them.

    Raises:
        MissingExtraError: h5py is not installed.
        DataError: the file is absent or damaged, or holds something else; the message names file and key.
    """
    h5py = h5py_module()
    if not path.is_file():
        raise DataError(f"{path} does not exist; {what}")
    try:
        with h5py.File(path, "r") as file:
            check_structure(path, file)
            for key in ("data", "date"):
                if not isinstance(file.get(key), h5py.Dataset):
                    raise DataError(f"{path} has no array {key!r}")
            data, dates = file["data"], file["date"]
            if dates.ndim != 1 or data.shape != (*dates.shape, *frame) or len(dates) > most:
                raise DataError(
                    f"{path}: data is {data.shape} and date {dates.shape}; expected (N, {', '.join(map(str, frame))}) "
                    f"and (N,), with the same N, at most {most}"
                )
            if data.dtype.kind not in "iuf":
                raise DataError(f"{path}: data is of type {data.dtype}; expected numbers")
            check_chunks(path, "data", slice(None))
            check_chunks(path, "date", slice(None))
            flow, texts = data.astype("float32")[()], dates[()]
    except DataError:
        raise
    except FramesError as error:
        raise DataError(str(error)) from error
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged or no HDF5 file: {printable(str(error))}") from error
    wrong = np.flatnonzero(~np.isfinite(flow).all((1, 2, 3)))
    if len(wrong):
        raise DataError(f"{path}: data holds NaN or infinity in row {wrong[0]}")
    return np.maximum(flow, 0, out=flow), texts


def h5py_module() -> ModuleType:
    """The module h5py. Raises `MissingExtraError` if it is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError('flows of traffic need an extra: pip install "stzoo[array]"') from error
    return h5py
