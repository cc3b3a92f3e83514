"""netCDF and Zarr files that were made to harm: each is refused at once, with what is wrong with it."""

import bz2
import gzip
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster
from stzoo.frames.fields import check_read, open_field
from stzoo.frames.packed import HARMLESS, check_block
from stzoo.frames.zarr_store import MAX_ARRAYS

h5py = pytest.importorskip("h5py", reason="the extra `array` is not installed")
netCDF4 = pytest.importorskip("netCDF4")
zarr = pytest.importorskip("zarr")
xr = pytest.importorskip("xarray")

ZEROS = 2 * HARMLESS  # bytes that a chunk unpacks to, where its description states 256
BOMB = zlib.compress(bytes(ZEROS), 9)


@pytest.fixture
def netcdf(frames: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "a.nc"
    data = xr.DataArray(frames, dims=("time", "y", "x"), name="v", coords={"time": np.arange(6.0)})
    data.to_netcdf(path, encoding={"v": {"zlib": True, "chunksizes": (1, 16, 16)}})
    return path


def circle(file: Any) -> None:
    file["g"] = file["/"]


def soft_circle(file: Any) -> None:
    file["g"] = h5py.SoftLink("/")


def deep(file: Any) -> None:
    for _ in range(100):
        file = file.create_group("g")


def doubled(file: Any) -> None:
    """Eight groups, each with ten links to the next: a hundred million paths."""
    groups = [file.create_group(f"g{i}") for i in range(8)]
    for group, inside in pairwise(groups):
        for i in range(10):
            group[f"l{i}"] = inside


def many(file: Any) -> None:
    for i in range(20_001):
        file[f"l{i}"] = h5py.SoftLink("/v")


def attribute(file: Any) -> None:
    file["v"].attrs.create("large", np.zeros(2**26 + 1, "u1"))


def nested(file: Any) -> None:
    of = h5py.h5t.NATIVE_INT8
    for _ in range(50):
        of = h5py.h5t.vlen_create(of)
    of.commit(file.id, b"type")


def members(file: Any) -> None:
    file["type"] = np.dtype([(f"m{i}", "u1") for i in range(1001)])


def twice(file: Any) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1, 16, 16))
    plist.set_deflate(9)
    plist.set_deflate(9)
    h5py.h5d.create(file.id, b"w", h5py.h5t.STD_U8LE, h5py.h5s.create_simple((6, 16, 16)), plist)


STRUCTURES: dict[str, tuple[Callable[[Any], None], str]] = {
    "circle": (circle, "groups more than 32 deep, or in a circle"),
    "soft circle": (soft_circle, "groups more than 32 deep, or in a circle"),
    "deep": (deep, "groups more than 32 deep, or in a circle"),
    "doubled": (doubled, "more than 20,000 groups and arrays"),
    "many": (many, "more than 20,000 groups and arrays"),
    "attribute": (attribute, "attributes of more than 67,108,864 bytes"),
    "nested types": (nested, "types nested more than 8 deep"),
    "members": (members, "with more than 1,000 members"),
    "packed twice": (twice, "packed more than once"),
}


@pytest.mark.parametrize("what", STRUCTURES)
def test_structures_that_netcdf_would_not_survive(what: str, netcdf: Path, forecaster: Forecaster) -> None:
    change, message = STRUCTURES[what]
    with h5py.File(netcdf, "a", libver="latest") as file:
        change(file)
    with pytest.raises(FramesError, match=rf"a\.nc.*{message}"):
        forecaster.predict(netcdf)


def test_links_and_types_of_ordinary_files_are_read(netcdf: Path, forecaster: Forecaster) -> None:
    expected = forecaster.predict(netcdf)
    with h5py.File(netcdf, "a") as file:
        group = file.create_group("a/b/c")
        group["v"] = file["v"]
        file["a/soft"] = h5py.SoftLink("/a/b")
        group.attrs["history"] = "x" * 10_000
        file["type"] = np.dtype([("a", "f4"), ("b", "u1", (3,))])
    np.testing.assert_array_equal(forecaster.predict(netcdf).values, expected.values)


@pytest.mark.parametrize("kind", ["S1", str])
def test_letters_of_a_coordinate_count(kind: Any, tmp_path: Path, forecaster: Forecaster) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for name, size in {"time": 6, "y": 16, "x": 2**23, "letters": 2**12}.items():
            file.createDimension(name, size)
        file.createVariable("v", "u1", ("time", "y", "x"), chunksizes=(1, 16, 16))
        axes = ("x", "letters") if kind == "S1" else ("x",)
        file.createVariable("x", kind, axes, chunksizes=(2**10, 64)[: len(axes)])
    with pytest.raises(FramesError, match=r"a\.nc: 'x' has [\d,]+ values along one axis; at most"):
        forecaster.predict(tmp_path / "a.nc")


@pytest.mark.parametrize("name", ["v", "time"])
def test_a_chunk_that_unpacks_to_more_than_its_array_holds(name: str, netcdf: Path, forecaster: Forecaster) -> None:
    with h5py.File(netcdf, "a") as file:
        if name == "time":
            del file[name]
            file.create_dataset(name, (6,), "f8", chunks=(6,), compression="gzip")
            file[name].make_scale("time")
        for i in range(len(file[name]) if name == "v" else 1):
            file[name].id.write_direct_chunk((i, 0, 0) if name == "v" else (i,), BOMB)
    with pytest.raises(FramesError, match=rf"a\.nc: '/{name}' is damaged: a chunk unpacks to more than the"):
        forecaster.predict(netcdf)


def test_only_the_chunks_that_are_read_are_looked_into(netcdf: Path, forecaster: Forecaster) -> None:
    expected = forecaster.predict(netcdf)
    with h5py.File(netcdf, "a") as file:
        file["v"].id.write_direct_chunk((1, 0, 0), BOMB)
    np.testing.assert_array_equal(forecaster.predict(netcdf).values, expected.values)


def big(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


HEADERS = {
    "dimensions": b"CDF\1" + big(0, 10, 2**31 - 1),
    "attributes": b"CDF\1" + big(0, 0, 0, 12, 2**31 - 1),
    "variables": b"CDF\2" + big(0, 0, 0, 0, 0, 11, 2**31 - 1),
    "a name": b"CDF\1" + big(0, 10, 1, 2**31 - 16),
    "values of an attribute": b"CDF\1" + big(0, 0, 0, 12, 1, 4) + b"abcd" + big(6, 2**28 - 16),
    "axes of a variable": b"CDF\1" + big(0, 0, 0, 0, 0, 11, 1, 4) + b"abcd" + big(2**31 - 1),
    "64 bits": b"CDF\5" + big(0, 0, 10, 2**31, 0),
}


@pytest.mark.parametrize("what", HEADERS)
def test_netcdf_3_headers_that_claim_what_the_file_cannot_hold(
    what: str, tmp_path: Path, forecaster: Forecaster
) -> None:
    (tmp_path / "a.nc").write_bytes(HEADERS[what] + bytes(100))
    with pytest.raises(FramesError, match=r"a\.nc is damaged or cut short: its header claims more than the file holds"):
        forecaster.predict(tmp_path / "a.nc")


@pytest.mark.parametrize("kind", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
def test_every_netcdf_3_format_is_read(kind: str, netcdf: Path, forecaster: Forecaster, tmp_path: Path) -> None:
    path = tmp_path / "b.nc"
    with netCDF4.Dataset(path, "w", format=kind) as file:
        file.title, file.numbers = "odd", np.arange(3, dtype="i2")
        for name, size in {"time": None, "y": 16, "x": 16}.items():
            file.createDimension(name, size)
        file.createVariable("time", "f8", ("time",))[:] = np.arange(6)
        variable = file.createVariable("v", "i2", ("time", "y", "x"))
        variable.units = "1"
        variable[:] = np.arange(6)[:, None, None]
    assert forecaster.predict(path).shape == (4, 16, 16)


def test_a_name_that_looks_like_an_address_is_a_file(
    netcdf: Path, forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "http:" / "127.0.0.1:9").mkdir(parents=True)
    for name in ("http:/127.0.0.1:9/a.nc", "dap4::a.nc", "[mode=zarr]a.nc", "a#mode=bytes.nc"):
        shutil.copy(netcdf, name)
        assert forecaster.predict(name).shape == (4, 16, 16)


STORES: dict[str, dict[str, Any]] = {
    "version 2": {"zarr_format": 2, "encoding": {"v": {"chunks": (1, 16, 16)}}},
    "version 3": {"zarr_format": 3, "encoding": {"v": {"chunks": (1, 16, 16)}}},
    "shards": {"zarr_format": 3, "encoding": {"v": {"shards": (6, 16, 16), "chunks": (1, 16, 16)}}},
}


@pytest.fixture
def stores(frames: np.ndarray, tmp_path: Path) -> Callable[[str], Path]:
    data = xr.DataArray(frames, dims=("time", "y", "x"), name="v", coords={"time": np.arange(6.0)})

    def make(kind: str) -> Path:
        data.to_zarr(tmp_path / "a.zarr", consolidated=False, **STORES[kind])
        return tmp_path / "a.zarr"

    return make


def chunks(store: Path, name: str) -> list[Path]:
    return sorted(p for p in (store / name).rglob("*") if p.is_file() and "z" not in p.name)


def metadata(store: Path, name: str) -> Path:
    return next(p for p in (store / name / ".zarray", store / name / "zarr.json") if p.is_file())


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("name", ["v", "time"])
def test_files_of_a_store_that_lead_elsewhere(
    kind: str, name: str, stores: Callable[[str], Path], forecaster: Forecaster, tmp_path: Path
) -> None:
    store = stores(kind)
    expected = forecaster.predict(store)
    for file in (chunks(store, name)[-1], metadata(store, name)):
        kept = file.rename(tmp_path / "elsewhere")
        for target, message in ((kept, "leads out of the store"), (Path("/dev/zero"), "leads out of the store")):
            file.symlink_to(target)
            with pytest.raises(FramesError, match=message):
                forecaster.predict(store)
            file.unlink()
        os.mkfifo(file)
        with pytest.raises(FramesError, match="is no regular file"):
            forecaster.predict(store)
        file.unlink()
        kept.rename(store / "inside")
        file.symlink_to(store / "inside")
        np.testing.assert_array_equal(forecaster.predict(store).values, expected.values)
        file.unlink()
        (store / "inside").rename(file)
    moved = (store / name).rename(tmp_path / "array")
    (store / name).symlink_to(moved)
    with pytest.raises(FramesError, match="leads out of the store"):
        forecaster.predict(store)


def test_consolidated_metadata_is_not_believed(stores: Callable[[str], Path], forecaster: Forecaster) -> None:
    store = stores("version 2")
    expected = forecaster.predict(store)
    zarr.consolidate_metadata(str(store), zarr_format=2)
    content = json.loads((store / ".zmetadata").read_text())
    content["metadata"]["v/.zarray"]["shape"] = [2**40, 16, 16]
    (store / ".zmetadata").write_text(json.dumps(content))
    np.testing.assert_array_equal(forecaster.predict(store).values, expected.values)


PACKED = {"gzip": gzip.compress(bytes(ZEROS)), "zlib": BOMB, "bz2": bz2.compress(bytes(ZEROS))}


@pytest.mark.parametrize("codec", PACKED)
def test_a_chunk_of_a_store_that_unpacks_to_more(
    codec: str, stores: Callable[[str], Path], forecaster: Forecaster
) -> None:
    store = stores("version 2")
    for name in ("time", "v"):
        file = metadata(store, name)
        file.write_text(json.dumps(json.loads(file.read_text()) | {"compressor": {"id": codec, "level": 1}}))
        for chunk in chunks(store, name):
            chunk.write_bytes(PACKED[codec])
    with pytest.raises(FramesError, match=r"a\.zarr.*: a chunk unpacks to more than the"):
        forecaster.predict(store)


@pytest.mark.parametrize("first", [False, True])
def test_a_chunk_inside_a_shard_that_unpacks_to_more(
    first: bool, stores: Callable[[str], Path], forecaster: Forecaster
) -> None:
    """The shard is read as a whole, or chunk by chunk where only some of its chunks are wanted."""
    import google_crc32c  # zarr brings it

    store = stores("shards")
    file = metadata(store, "v")
    array = json.loads(file.read_text())
    sharding = array["codecs"][0]["configuration"]
    sharding["codecs"] = [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}]
    sharding["index_location"] = "start" if first else "end"
    file.write_text(json.dumps(array))
    start = 6 * 16 + 4 if first else 0
    index = struct.pack("<12Q", *(number for _ in range(6) for number in (start, len(PACKED["gzip"]))))
    index += struct.pack("<I", google_crc32c.value(index))
    (chunk,) = chunks(store, "v")
    chunk.write_bytes(index + PACKED["gzip"] if first else PACKED["gzip"] + index)
    with pytest.raises(FramesError, match=r"a chunk unpacks to more than the"):
        forecaster.predict(store)
    with pytest.raises(ValueError, match=r"a chunk unpacks to more than the"), open_field(store) as field:
        field.to_numpy()


def test_stores_with_absurd_descriptions(stores: Callable[[str], Path], forecaster: Forecaster) -> None:
    store = stores("version 2")
    file = metadata(store, "v")
    good = json.loads(file.read_text())
    coordinate = metadata(store, "time")
    for name, change, message in (
        (file, {"filters": [{"id": "zlib"}, {"id": "gzip"}]}, "packed more than once"),
        (file, {"dtype": "|V100000", "chunks": [2**20, 16, 16]}, "is stored in chunks of"),
        (coordinate, {"shape": [2**20], "chunks": [1]}, "in more than 262,144 small chunks"),
        (coordinate, {"dtype": "|S4096", "shape": [2**20], "chunks": [2**10]}, "'time' has 1,048,576 values along"),
        (file, {"shape": [6, 2**10, 2**10], "chunks": [1, 1, 1]}, r"lie in 4,194,304 chunks; at most 262,144"),
    ):
        whole = name.read_text()
        name.write_text(json.dumps(json.loads(whole) | change))
        with pytest.raises(FramesError, match=message):
            forecaster.predict(store)
        name.write_text(whole)
    assert json.loads(file.read_text()) == good


def test_blocks_are_measured_by_what_they_state_or_unpack_to() -> None:
    from numcodecs import LZ4, LZMA, Blosc, Zstd

    rng = np.random.default_rng(0)
    body = rng.integers(0, 256, 2**20, np.uint8).tobytes() + bytes(HARMLESS)
    for name, block in {
        "gzip": gzip.compress(body, 1),
        "deflate": zlib.compress(body, 1),
        "bz2": bz2.compress(body, 1),
        "lzma": LZMA(preset=0).encode(body),
        "zstd": Zstd().encode(body),
        "blosc": Blosc("zstd").encode(body),
        "lz4": LZ4().encode(body),
        "hdf5-lz4": len(body).to_bytes(8, "big") + bytes(2**20),
        "szip": len(body).to_bytes(4, "little") + bytes(2**20),
    }.items():
        check_block(name, block, len(body))
        with pytest.raises(ValueError, match="unpacks to more"):
            check_block(name, block, len(body) - 1)
        check_block(name, block[:100], len(body) - 1)  # too small to do harm
    check_block("unknown", bytes(100), 0)
    frame = b"\x28\xb5\x2f\xfd\x00\x50"  # of zstd, which states no size
    repeated = b"".join(((2**17 << 3) | 2).to_bytes(3, "little") + b"a" for _ in range(4000))
    with pytest.raises(ValueError, match="unpacks to more"):
        check_block("zstd", frame + repeated, 2**20)


def test_coordinates_are_bounded_together(netcdf: Path, forecaster: Forecaster, tmp_path: Path) -> None:
    """Each is small enough on its own, and none was ever written: the file has a few kilobytes."""
    with netCDF4.Dataset(tmp_path / "b.nc", "w") as file:
        for name, size in {"time": 6, "y": 16, "x": 16, "c": 2**20}.items():
            file.createDimension(name, size)
        file.createVariable("v", "u1", ("time", "y", "x"))
        for i in range(70):
            file.createVariable("c" if not i else f"c{i}", "f8", ("c",))
    assert forecaster.predict(tmp_path / "b.nc").shape == (4, 16, 16)  # only one of them is an axis
    with netCDF4.Dataset(netcdf, "a") as file:
        file.createDimension("dimension without values", 2**28)
    assert forecaster.predict(netcdf).shape == (4, 16, 16)
    with h5py.File(netcdf, "a") as file:
        for i in range(5):
            file.create_dataset(f"c{i}", (2**24,), "f8").make_scale(f"c{i}")
    with pytest.raises(FramesError, match=r"a\.nc has coordinates of 671,[\d,]+ bytes together; at most 536,870,912"):
        forecaster.predict(netcdf)


@pytest.mark.parametrize("kind", ["version 2", "version 3"])
def test_coordinates_of_a_store_are_bounded_together(
    kind: str, stores: Callable[[str], Path], forecaster: Forecaster
) -> None:
    store = stores(kind)
    expected = forecaster.predict(store)
    for i, (size, chunk) in enumerate([*[(2**24, 2**24)] * 5, *[(2**18, 1)] * 3]):
        name = f"c{i}"
        shutil.copytree(store / "time", store / name)
        for dimension in ("elsewhere", name):  # as a variable of another axis it is not read
            attributes = store / name / ".zattrs"
            changed: dict[str, Any] = {"shape": [size], "chunks": [chunk]}
            if kind == "version 2":
                attributes.write_text(json.dumps({"_ARRAY_DIMENSIONS": [dimension]}))
            else:
                grid = {"name": "regular", "configuration": {"chunk_shape": [chunk]}}
                changed = {"shape": [size], "chunk_grid": grid, "dimension_names": [dimension]}
            file = metadata(store, name)
            file.write_text(json.dumps(json.loads(file.read_text()) | changed))
            if dimension == "elsewhere" and i in (0, 5):
                np.testing.assert_array_equal(forecaster.predict(store).values, expected.values)
        if i == 4:
            with pytest.raises(FramesError, match=r"a\.zarr has coordinates of 671,[\d,]+ bytes together"):
                forecaster.predict(store)
            for made in store.glob("c?"):
                shutil.rmtree(made)
    with pytest.raises(FramesError, match=r"a\.zarr has coordinates of 805,[\d,]+ bytes together"):
        forecaster.predict(store)


def test_coordinates_of_the_frames_are_bounded_together(netcdf: Path, forecaster: Forecaster) -> None:
    """They are no axes, but share the axes of the frames, and are read with them."""
    with netCDF4.Dataset(netcdf.with_name("b.nc"), "w") as file:
        for name, size in {"time": 6, "y": 4, "x": 2**22}.items():
            file.createDimension(name, size)
        file.createVariable("v", "u1", ("time", "y", "x"), chunksizes=(1, 4, 2**10), zlib=True)
        names = [f"c{i}" for i in range(5)]
        for name in names:
            file.createVariable(name, "f8", ("y", "x"), chunksizes=(4, 2**10), zlib=True)
        file["v"].coordinates = " ".join(names)
    with open_field(netcdf.with_name("b.nc")) as field:
        check_read(netcdf.with_name("b.nc"), field.drop_vars(names[0]), slice(2, 6))
        with pytest.raises(FramesError, match=r"has coordinates of 671,088,640 bytes together"):
            check_read(netcdf.with_name("b.nc"), field, slice(2, 6))


def test_a_store_of_very_many_arrays(stores: Callable[[str], Path], forecaster: Forecaster) -> None:
    store = stores("version 3")
    for i in range(MAX_ARRAYS):
        (store / f"g{i}").mkdir()
        (store / f"g{i}/zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    with pytest.raises(FramesError, match=r"a\.zarr has more than 2,048 arrays and groups"):
        forecaster.predict(store)


@pytest.mark.parametrize("side", [0, -16, 1.5, True, None])
def test_sides_that_are_no_sizes(side: Any, stores: Callable[[str], Path], forecaster: Forecaster) -> None:
    store = stores("version 2")
    file = metadata(store, "v")
    good = json.loads(file.read_text())
    for change in ({"chunks": [1, side, 16]}, {"shape": [6, side, 16]}):
        if change != {"shape": [6, 0, 16]}:
            file.write_text(json.dumps(good | change))
            with pytest.raises(FramesError, match=r"a\.zarr is damaged: v has (chunks with a side|an axis)"):
                forecaster.predict(store)
    for shape in ([0, 16, 16], [6, 0, 16]):
        file.write_text(json.dumps(good | {"shape": shape}))
        with pytest.raises(FramesError, match=r"a\.zarr"):
            forecaster.predict(store)
