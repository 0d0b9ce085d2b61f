"""Stored numbers as the values that they stand for, by the CF conventions.

Data that is packed as integers has attributes that say how to unpack it: ``scale_factor`` and
``add_offset``, ``_FillValue`` and ``missing_value`` for values that are missing, ``_Unsigned``.
xarray decodes them, and its own decoder is applied here to each part of an array that is read, so
that a job sees the same values as ``xarray.open_zarr``. Missing values become NaN. As in xarray,
``valid_min``, ``valid_max`` and ``valid_range`` change nothing.

Arrays without such attributes are used as they are stored.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import math
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checksummed_json import Json, canonical
from .stores import ZarrArray, attributes_of, dimension_names

__all__ = ["Decoding", "fill_mark"]

_ARITHMETIC = ("scale_factor", "add_offset")
_MISSING = ("_FillValue", "missing_value")


@dataclass(frozen=True)
class Decoding:
    """How the stored numbers of an array are decoded; it can be sent to workers.

    Parameters
    ----------
    text
        As JSON: ``scale_factor``, ``add_offset``, ``_Unsigned`` and ``dtype`` as the array has
        them, and ``missing``, the stored numbers that stand for missing values.
    stored_dtype
        Of the stored numbers, as NumPy writes it.
    """

    text: str
    stored_dtype: str

    @classmethod
    def of(cls, array: ZarrArray) -> Decoding | None:
        """Return how an array is decoded; None if its numbers are used as they are stored."""
        attributes, dtype = attributes_of(array), array.dtype.newbyteorder("=")
        members: dict[str, Json] = {}
        for name in _ARITHMETIC:
            number = _number(attributes.get(name))
            if number is not None:
                members[name] = float(number)
        if attributes.get("_Unsigned") in ("true", "false") and dtype.kind in "iu":
            members["_Unsigned"] = attributes["_Unsigned"]
        if attributes.get("dtype") == "bool" and dtype.kind in "iu":
            members["dtype"] = "bool"
        missing = _missing(array, packed=bool(members))
        if missing:
            members["missing"] = missing
        return cls(canonical(members), dtype.name) if members else None

    @property
    def members(self) -> dict[str, Json]:
        """What ``text`` says."""
        members: dict[str, Json] = json.loads(self.text)
        return members

    @cached_property
    def dtype(self) -> str:
        """The type of the decoded values, as NumPy writes it."""
        return self.apply(np.zeros(1, self.stored_dtype)).dtype.name

    def apply(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return stored numbers as values, of the same shape; missing ones are NaN."""
        import xarray as xr  # takes a while, and most jobs read plain numbers

        attributes: dict[str, Any] = self.members
        missing = attributes.pop("missing", [])
        if missing:
            attributes["_FillValue"] = first = np.dtype(self.stored_dtype).type(missing[0])
            if len(missing) > 1:  # xarray warns of more than one
                stored = np.where(np.isin(stored, missing[1:]), first, stored)
        dims = [f"axis_{axis}" for axis in range(stored.ndim)]
        packed = xr.Dataset({"values": xr.Variable(dims, stored, attributes)})
        decoded = xr.decode_cf(packed, decode_times=False, decode_coords=False)
        return np.asarray(decoded["values"].values)

    def __str__(self) -> str:
        members = self.members
        missing = members.pop("missing", [])
        words = [f"{name} {value}" for name, value in members.items()]
        if missing and isinstance(missing, list):
            words.append(f"_FillValue {' and '.join(map(str, missing))} for missing values")
        return f"{self.stored_dtype} with {', '.join(words)}; decoded to {self.dtype}"

    @property
    def has_missing(self) -> bool:
        """Whether some stored numbers stand for missing values, which become NaN."""
        return "missing" in self.members


def fill_mark(array: ZarrArray) -> int | float | None:
    """Return the fill value of a Zarr v2 array if it stands for missing values; else None.

    xarray takes it for ``_FillValue``, and so do we where xarray can open the array, that is
    where its axes have names. The exception is 0, Zarr's default, which is a usual value of a
    pixel: it stands for missing values only where numbers are packed.
    """
    fill: Any = array.fill_value
    if array.metadata.zarr_format != 2 or dimension_names(array) is None or fill is None:
        return None
    if array.dtype.kind not in "iuf":
        return None
    attributes = attributes_of(array)
    if fill == 0 and not any(name in attributes for name in _ARITHMETIC):
        return None
    return float(fill) if array.dtype.kind == "f" else int(fill)


def _missing(array: ZarrArray, *, packed: bool) -> list[Json]:
    """Return the stored numbers of an array that stand for missing values; NaN is left out."""
    attributes, dtype = attributes_of(array), array.dtype.newbyteorder("=")
    if dtype.kind not in "iuf":
        return []
    given: list[Json] = []
    mark = fill_mark(array)
    for name in _MISSING:
        value = attributes.get(name)
        if name == "_FillValue" and mark is not None:
            value = mark
        given += value if isinstance(value, list) else [value]
    numbers: list[Json] = []
    for value in given:
        number = _number(value, from_base64=dtype.kind == "f")
        if number is None or not math.isfinite(number):
            continue
        stored = _as_stored(number, dtype, wraps=packed and "_Unsigned" in attributes)
        if stored is not None and stored not in numbers:
            numbers.append(stored)
    return numbers


def _as_stored(number: float, dtype: np.dtype[Any], *, wraps: bool) -> float | int | None:
    """Return a number as an array of this type holds it; None if it cannot hold it."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            stored = float(np.float64(number).astype(dtype))
        return stored if math.isfinite(stored) else None
    limits = np.iinfo(dtype)
    if number != int(number):
        return None
    if limits.min <= number <= limits.max:
        return int(number)
    # An array of signed integers may say that they are unsigned, and give its fill value so.
    return int(np.array(int(number), np.int64).astype(dtype)) if wraps else None


def _number(value: Json, *, from_base64: bool = False) -> float | None:
    """Return the number that an attribute gives, perhaps as text or as a list of one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        return None
    if from_base64:  # xarray stores fill values of floats in Zarr v3 as doubles in base64
        with contextlib.suppress(binascii.Error, ValueError, struct.error):
            (number,) = struct.unpack("<d", base64.b64decode(value, validate=True))
            return float(number)
    try:
        return float(value)
    except ValueError:
        return None
