"""The same images stored in many ways, and what xarray reads of each."""

from __future__ import annotations

import itertools
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec
from zarr.storage import ZipStore

IMAGES, CHANNELS, HEIGHT, WIDTH = 10, 3, 8, 6
FILL = {"uint8": 255, "uint16": 65535, "int16": -9999}

KINDS = ("bytes", "int16 packed", "uint16", "float16", "float32", "big-endian")
LAYOUTS = ("NCHW", "NHWC", "NCHW with singletons", "NHW")
STORES = ("v2", "v3", "sharded", "zip")
CONTENTS = ("plain", "missing chunks", "NaN")

DTYPES = {"bytes": "uint8", "int16 packed": "int16", "big-endian": "float32"}
ABSENT_CHUNK = 1
"""The second chunk along n is not stored where chunks are missing."""


@dataclass(frozen=True)
class StoredInput:
    """One way to store images.

    Each parameter is one of the names above. Without space for NaN, integers have a fill value
    that stands for it.
    """

    kind: str
    layout: str
    store: str
    content: str

    def __str__(self) -> str:
        return f"{self.kind}, {self.layout}, {self.store}, {self.content}"

    @property
    def channels(self) -> int:
        """Number of channels that the images have."""
        return 1 if self.layout == "NHW" else CHANNELS

    @property
    def dtype(self) -> str:
        """Type of the stored numbers."""
        return DTYPES.get(self.kind, self.kind)

    def write(self, folder: Path) -> Path:
        """Store the images, and return where."""
        values, dims = self._arranged()
        zarr_format: Any = 2 if self.store == "v2" else 3
        place = folder / "images.zarr"
        group = zarr.open_group(place, mode="w", zarr_format=zarr_format)
        chunks = tuple(
            4 if dim == "n" else size for dim, size in zip(dims, values.shape, strict=True)
        )
        options: dict[str, Any] = {"chunks": chunks, "dtype": self.dtype}
        if self.store == "sharded":
            options |= {"chunks": (2, *chunks[1:]), "shards": chunks}
        if self.kind == "big-endian":
            if zarr_format == 2:
                options["dtype"] = ">f4"
            else:
                options["serializer"] = BytesCodec(endian="big")
        attributes: dict[str, Any] = {}
        if self.kind == "int16 packed":
            attributes |= {"scale_factor": 1e-4, "add_offset": 0.25}
        if self.content == "NaN" and self.dtype in FILL:
            attributes["_FillValue"] = FILL[self.dtype]
        if zarr_format == 2:
            attributes["_ARRAY_DIMENSIONS"] = [*dims]
            # xarray takes Zarr's default 0 for missing; an array that it writes has none
            options["fill_value"] = attributes.pop("_FillValue", None)
        else:
            options["dimension_names"] = dims
        array = group.create_array("image", shape=values.shape, attributes=attributes, **options)
        array[...] = values
        if self.content == "missing chunks":
            name = "/".join(["c", str(ABSENT_CHUNK), *["0"] * (len(dims) - 1)])
            stored = "image/" + (
                name.removeprefix("c/").replace("/", ".") if zarr_format == 2 else name
            )
            (place / stored).unlink()
        if self.store != "zip":
            return place
        packed = folder / "images.zarr.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            for file in sorted(path for path in place.rglob("*") if path.is_file()):
                archive.write(file, file.relative_to(place))
        return packed

    def _arranged(self) -> tuple[NDArray[Any], tuple[str, ...]]:
        """Return the stored numbers, and the names of their axes."""
        random = np.random.default_rng(7)
        shape = (IMAGES, self.channels, HEIGHT, WIDTH)
        if self.dtype in FILL:
            top = 200 if self.dtype == "uint8" else 9000
            numbers = random.integers(1, top, shape).astype(self.dtype)
        else:
            numbers = random.random(shape).astype(self.dtype)
        if self.content == "NaN":
            numbers[3, :, 2:4, 1:3] = FILL.get(self.dtype, np.nan)
        if self.layout == "NHWC":
            return np.ascontiguousarray(numbers.transpose(0, 2, 3, 1)), ("n", "y", "x", "c")
        if self.layout == "NHW":
            return numbers[:, 0], ("n", "y", "x")
        if self.layout == "NCHW with singletons":
            return numbers[:, None, :, None], ("n", "t", "c", "z", "y", "x")
        return numbers, ("n", "c", "y", "x")


def read_by_xarray(place: Path) -> xr.DataArray:
    """Return stored images as xarray reads them, as (n, c, y, x)."""
    store: Any = ZipStore(place, mode="r") if place.suffix == ".zip" else place
    with warnings.catch_warnings(), xr.open_zarr(store, consolidated=False, chunks=None) as stored:
        images = stored["image"].load()
    images = images.squeeze([dim for dim in ("t", "z") if dim in images.dims], drop=True)
    if "c" not in images.dims:
        images = images.expand_dims("c")
    return images.transpose("n", "c", "y", "x")


def every_input() -> Iterator[StoredInput]:
    """Yield every combination."""
    for combination in itertools.product(KINDS, LAYOUTS, STORES, CONTENTS):
        yield StoredInput(*combination)


def pairwise_inputs() -> list[StoredInput]:
    """Return combinations in which every two values of different parameters occur together."""
    names = (KINDS, LAYOUTS, STORES, CONTENTS)
    left = {
        ((first, one), (second, other))
        for first, second in itertools.combinations(range(4), 2)
        for one in names[first]
        for other in names[second]
    }
    chosen = []
    while left:
        best = max(every_input(), key=lambda found: len(left & _pairs(found)))
        chosen.append(best)
        left -= _pairs(best)
    return chosen


def _pairs(found: StoredInput) -> set[tuple[tuple[int, str], tuple[int, str]]]:
    values = enumerate((found.kind, found.layout, found.store, found.content))
    return set(itertools.combinations(values, 2))
