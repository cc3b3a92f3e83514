"""Make an archive to measure `stzoo forecast-archive` with: crops of a radar event, put one after the other in time.

python docs/experiments/rain_archive.py --data radar/ --out rain.zarr
"""

import argparse
from pathlib import Path

import numpy as np
import xarray as xr

from stzoo.data.radar import DBR

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, required=True, help="the folder that holds the radar events")
parser.add_argument("--event", default="mch_20160711", help="name of the event's file, without .npz")
parser.add_argument("--frames", type=int, default=2000, help="number of frames in the archive")
parser.add_argument("--out", type=Path, required=True, help="the Zarr store to write, such as rain.zarr")
arguments = parser.parse_args()
event = np.load(arguments.data / f"{arguments.event}.npz")["frames"]
_, height, width = event.shape
corners = [(y, x) for y in range(0, height - 127, 32) for x in range(0, width - 127, 32)]
crops = np.concatenate([event[:, y : y + 128, x : x + 128] for y, x in corners])[: arguments.frames]
low, high = DBR
rain = np.where(crops == 0, np.nan, low + crops.astype(np.float32) / 255 * (high - low)).astype(np.float32)
times = np.datetime64("2016-07-11", "ns") + np.arange(len(rain)) * np.timedelta64(600, "s")
array = xr.DataArray(rain, dims=("time", "y", "x"), coords={"time": times}, name="rain", attrs={"units": "dBR"})
array.to_zarr(arguments.out, consolidated=False, encoding={"rain": {"chunks": (16, 128, 128)}})
print(f"{len(rain)} frames of 128x128 -> {arguments.out}")
