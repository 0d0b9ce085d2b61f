"""Images in arrays, in memory or lazy, as (n, c, *space): what :func:`~.infer.infer` reads."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fcdcc.storage import Axes, InputError, find_axes
from fcdcc.storage.images import channel_numbers

from ..errors import PlanError
from ..planner.search import fits

Images: TypeAlias = "xr.DataArray | da.Array | NDArray[Any]"

PACKING = ("scale_factor", "add_offset")
"""Attributes of packed numbers that are not decoded yet; xarray moves them when it decodes."""


def channels_first(
    images: Images,
    expected: tuple[int | None, ...],
    channels: Sequence[str | int] | None = None,
) -> xr.DataArray:
    """Return images as a DataArray (n, c, *space), decoded, nothing computed.

    Parameters
    ----------
    images
        The dimension names of a DataArray say what its axes are. An array is (n, c, *space) if
        that fits the model, else what fits it.
    expected
        The model's input shape (batch, C, *space), None for an axis of any size.
    channels
        Numbers or names of the channels to use; None for all.

    Raises
    ------
    InputError, PlanError
        If the images do not fit.
    """
    if channels is not None:
        expected = (expected[0], None, *expected[2:])
    shape = tuple(int(size) for size in images.shape)
    if isinstance(images, xr.DataArray):
        named = images
        axes = find_axes(shape, [str(dim) for dim in images.dims], expected, "the images")
    else:
        axes = _axes_without_names(shape, expected)
        named = xr.DataArray(images, dims=[f"axis_{axis}" for axis in range(len(shape))])
        named = named.rename(
            {f"axis_{a}": n for a, n in zip(axes.order, axes.names, strict=True) if a is not None}
        )
    arranged = _arranged(_decoded(named), axes)
    if channels is None:
        return arranged
    dim = arranged.dims[1]
    names: list[str | None] = [None] * arranged.shape[1]
    if dim in arranged.coords:
        names = [str(name) for name in arranged[dim].values]
    return arranged.isel({dim: channel_numbers(channels, names, "the images")})


def grid_mapping_of(images: Images) -> str | None:
    """Return the name of the coordinate system of images; None if they have none."""
    if not isinstance(images, xr.DataArray):
        return None
    found = images.encoding.get("grid_mapping") or images.attrs.get("grid_mapping")
    return str(found) if found else None


def _axes_without_names(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> Axes:
    """Return the axes of an array: (n, c, *space) unless only another order fits the model."""
    if len(shape) != len(expected):
        try:
            return find_axes(shape, None, expected, "the images")
        except InputError as error:
            raise PlanError(
                f"images of shape {shape}; expected (n, c, *space) or (n, *space, c) with one to "
                f"three spatial axes: {error}"
            ) from None
    is_last = not fits(expected, shape[1:]) and fits(expected, (shape[-1], *shape[1:-1]))
    order = [0, len(shape) - 1, *range(1, len(shape) - 1)] if is_last else range(len(shape))
    return Axes(tuple(order), ("n", "c", *("z", "y", "x")[5 - len(shape) :]))


def _arranged(images: xr.DataArray, axes: Axes) -> xr.DataArray:
    dims = [
        axes.names[place] if axis is None else images.dims[axis]
        for place, axis in enumerate(axes.order)
    ]
    dropped = {images.dims[axis]: 0 for axis in axes.dropped}
    added = [dim for dim, axis in zip(dims, axes.order, strict=True) if axis is None]
    return images.isel(dropped).expand_dims(added).transpose(*dims)


def _decoded(images: xr.DataArray) -> xr.DataArray:
    """Return images whose packed numbers are decoded, lazily, as a stored array's would be."""
    encoding = images.encoding
    if (
        encoding.get("_FillValue") == 0
        and not any(name in encoding for name in PACKING)
        and np.dtype(encoding.get("dtype", float)).kind in "iu"
        and images.dtype.kind == "f"
    ):
        warnings.warn(
            "xarray has read the zeros of the images as missing (NaN), because 0 is the fill value "
            "of their Zarr v2 array: open them with mask_and_scale=False if 0 is a usual value",
            stacklevel=4,
        )
    if not any(name in images.attrs for name in PACKING):
        return images
    name = "images"
    decoded = xr.decode_cf(images.to_dataset(name=name), decode_times=False, decode_coords=False)
    return decoded[name]
