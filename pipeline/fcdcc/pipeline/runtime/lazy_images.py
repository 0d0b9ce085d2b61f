"""Images of every kind as lazy arrays (n, c, *space): what :func:`~.infer.infer` reads.

A path is opened as ``fcdcc run`` opens it. Other kinds are made a :class:`xarray.DataArray` whose
data is a Dask array, before anything else: nothing is read or decoded until a block needs it.
"""

from __future__ import annotations

import logging
import math
import os
import uuid
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.conventions import decode_cf_variable
from zarr.storage import LocalStore, MemoryStore, ZipStore

from fcdcc.storage import Axes, ImageSource, InputError, Preparation, find_axes, open_images
from fcdcc.storage.axes import is_image_rank
from fcdcc.storage.chunk_listing import list_chunks
from fcdcc.storage.decoding import Decoding
from fcdcc.storage.images import IMAGE_ARRAY, channel_numbers
from fcdcc.storage.metadata import is_grid_mapping
from fcdcc.storage.sources import PIXEL_KINDS
from fcdcc.storage.stores import dimension_names

from ..errors import OptionError, PlanError, one_line
from ..model.network import Network
from ..planner.search import fits
from .absence import absent_chunks
from .image_sample import first_stored, sample_images, sample_of

logger = logging.getLogger(__name__)

_Array: TypeAlias = xr.DataArray | da.Array | NDArray[Any] | zarr.Array[Any]

Images: TypeAlias = str | os.PathLike[str] | xr.Dataset | torch.Tensor | _Array

KINDS = (
    "the path or URL of a Zarr array or group, an xarray DataArray or Dataset, an array of Dask, "
    "NumPy or Zarr, or a PyTorch tensor"
)

PACKING = ("scale_factor", "add_offset")
"""Attributes of packed numbers that are not decoded yet; xarray moves them when it decodes."""

_from_array: Callable[..., da.Array] = da.from_array  # its types do not have tuples of chunks

_NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)
"""Floating-point types of tensors that NumPy has, too; others become float32."""

MAX_CHUNKS_COUNTED = 2**16
"""Most chunks of a Zarr array whose store is asked which of them are there."""

MAX_SAMPLE_IMAGES = 4
"""Most images of an array that are looked at before the others are predicted."""

MAX_SAMPLE_VALUES = 2**25
"""Most values of such an image; larger ones are not looked at."""

MIN_READ_BYTES = 2**24
"""A task reads at least so many bytes of a store, or a stored chunk; else tasks are too many."""


@dataclass(frozen=True)
class ImageOptions:
    """Options that choose among the arrays and channels that are given.

    Parameters
    ----------
    input_array
        Names of arrays of a store or a Dataset; several are stacked as channels. None for the one
        called ``image``, or the only one that could be images.
    channels
        Numbers or names of the channels to use; None for all.
    limit
        Number of images, from the first, to use; None for all.
    """

    input_array: Sequence[str] | None = None
    channels: Sequence[str | int] | None = None
    limit: int | None = None


def stored_images(
    location: str | os.PathLike[str], expected: tuple[int | None, ...], options: ImageOptions
) -> ImageSource:
    """Open images as ``fcdcc run`` does; see :func:`lazy_images` for the parameters.

    Raises
    ------
    InputError
        If they cannot be opened, or do not fit.
    """
    return open_images(
        location,
        options.input_array,
        channels=options.channels,
        expect=expected,
        limit=options.limit,
    )


def lazy_images(
    images: Images | ImageSource,
    expected: tuple[int | None, ...],
    options: ImageOptions | None = None,
) -> xr.DataArray:
    """Return images as a DataArray (n, c, *space), decoded, nothing read or computed.

    Parameters
    ----------
    images
        The dimension names of a DataArray, or of a stored array, say what its axes are. An array
        without names is (n, c, *space) if that fits the model, else what fits it. Images that are
        open already are those that the options choose.
    expected
        The model's input shape (batch, C, *space), None for an axis of any size.
    options
        Which arrays, channels and images are used; by default all.

    Returns
    -------
    xarray.DataArray
        Chunks are whole images. ``encoding`` has the ``grid_mapping`` of the images, if any.

    Raises
    ------
    InputError, PlanError
        If the images are of no kind that is read, or do not fit.
    OptionError
        If an array is named where there is only one.
    """
    options = options or ImageOptions()
    if isinstance(images, str | os.PathLike):
        images = stored_images(images, expected, options)
    if isinstance(images, ImageSource):
        return _of_source(images)
    arrays: list[_Array] = []
    if isinstance(images, xr.Dataset):
        arrays += _chosen_arrays(images, options.input_array)
    elif options.input_array is not None:
        raise OptionError(
            f"input_array {', '.join(options.input_array)} names an array of a store or a Dataset, "
            f"and the images are {_kind(images)}: leave input_array out"
        )
    else:
        arrays.append(_as_array(images))
    selects = len(arrays) > 1 or options.channels is not None
    wanted = (expected[0], None, *expected[2:]) if selects else expected
    parts = []
    for array in arrays:
        parts.append(_channels_first(array, wanted))  # noqa: PERF401 - the depth of a warning
    found, names = _stacked(parts)
    if options.channels is not None:
        found = found[:, channel_numbers(options.channels, names, "the images")]
    if selects and expected[1] not in (None, found.shape[1]):
        raise InputError(
            f"{found.shape[1]} channels are selected and the model takes {expected[1]}: give as "
            "many (channels, input_array)"
        )
    return found[: options.limit]


def image_warnings(
    images: Images | ImageSource,
    prepared: xr.DataArray,
    preparation: Preparation,
    network: Network,
    origin: str = "",
) -> Iterator[str]:
    """Yield what is implausible about images: their range, and chunks that are not stored.

    Of images that Dask computes nothing is known before.

    Parameters
    ----------
    images
        As they were given; opened, if that was a path.
    prepared
        What :func:`lazy_images` made of them.
    preparation, network
        How they are prepared, and what they are for.
    origin
        What of the preparation the model file asked for, in words.
    """
    try:
        if isinstance(images, ImageSource):
            listing = list_chunks(images)
            absent = 0 if listing is None else listing.absent().count
            if listing is not None and absent:
                yield f"chunks of the images: {absent_chunks(absent, listing.total)}"
            first_image = first_stored(images, listing)
            sample = sample_images(images, preparation, network, first_image, origin)
            yield from sample.warnings
            return
        if isinstance(images, zarr.Array) and _lists_its_chunks(images):
            absent = images.nchunks - images.nchunks_initialized
            if absent:
                yield f"chunks of the images: {absent_chunks(absent, images.nchunks)}"
        if _is_at_hand(images) and math.prod(prepared.shape[1:]) <= MAX_SAMPLE_VALUES:
            first: da.Array = prepared.data[:MAX_SAMPLE_IMAGES]
            raw = np.asarray(first.compute(scheduler="synchronous"))
            yield from sample_of(raw, preparation, network, origin=origin).warnings
    except Exception as error:  # noqa: BLE001 - a driver or codec may raise anything
        logger.debug("the images cannot be looked at: %s", error)  # blocks that read them say why


def _lists_its_chunks(array: zarr.Array[Any]) -> bool:
    """Return whether the store of an array can say at once which chunks are there."""
    is_near = isinstance(array.store, LocalStore | MemoryStore | ZipStore)
    return is_near and array.nchunks <= MAX_CHUNKS_COUNTED


def _is_at_hand(images: object) -> bool:
    """Return whether a few images can be had without a computation of Dask."""
    if isinstance(images, xr.Dataset | xr.DataArray):
        return not images.chunks
    return not isinstance(images, da.Array)


def _as_array(images: object) -> _Array:
    """Return images that are one array.

    Raises
    ------
    InputError
        If they are of no kind that is read.
    """
    if isinstance(images, torch.Tensor):
        return _of_tensor(images)
    if isinstance(images, xr.DataArray | zarr.Array | da.Array | np.ndarray):
        return images
    if isinstance(images, zarr.Group):
        advice = "give its path, or one of its arrays, as images['image']"
    elif hasattr(images, "shape") and hasattr(images, "dtype"):
        advice = "give dask.array.from_array(images)"
    else:
        advice = "make one array of them, as with numpy.stack(list(images))"
    raise InputError(f"the images are {_kind(images)}; expected {KINDS}: {advice}")


def _kind(images: object) -> str:
    """Return the type of an object, for messages."""
    module, name = type(images).__module__, type(images).__qualname__
    return f"of type {name}" if module == "builtins" else f"of type {module}.{name}"


def _of_source(source: ImageSource) -> xr.DataArray:
    """Return images of a store as a DataArray with their labels, nothing but labels read."""
    data = _from_array(
        _SourceReader(source),
        chunks=(_images_per_read(source.image_chunk, source.image_bytes), *source.image_shape),
        name=_new_name(),
        meta=np.empty((0,) * len(source.shape), source.dtype),
    )
    coords: dict[Hashable, xr.Variable] = {}
    grid_mapping = None
    for found in source.coordinates(dict(zip(source.dims, source.shape, strict=True))):
        if found.name in source.dims and found.dims != (found.name,):
            continue  # xarray takes it for the labels of that axis
        values = found.values.astype(str) if found.values.dtype.kind == "T" else found.values
        stored = xr.Variable(found.dims, values, dict(found.attributes))
        coords[found.name] = _decoded_label(found.name, stored)
        if not found.dims and is_grid_mapping(found.attributes):
            grid_mapping = grid_mapping or found.name
    images = xr.DataArray(data, dims=source.dims, coords=coords)
    if grid_mapping is not None:
        images.encoding["grid_mapping"] = grid_mapping
    return images


@dataclass(frozen=True)
class _SourceReader:
    """Images of a store as an object that Dask takes parts of."""

    source: ImageSource

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.source.images, *self.source.image_shape)

    @property
    def ndim(self) -> int:
        return len(self.source.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.source.dtype)

    def __getitem__(self, part: tuple[slice, ...]) -> NDArray[Any]:
        start, stop, step = part[0].indices(self.source.images)
        return self.source.read(start, stop)[(slice(None, None, step), *part[1:])]


def _decoded_label(name: str, stored: xr.Variable) -> xr.Variable:
    """Return a coordinate decoded as xarray would, or as it is stored where that fails."""
    try:
        return decode_cf_variable(name, stored)
    except (OverflowError, TypeError, ValueError):
        return stored


def _images_per_read(stored: int, image_bytes: int) -> int:
    """Return how many images a task reads, a multiple of those of a stored chunk."""
    return stored * max(1, MIN_READ_BYTES // max(1, stored * image_bytes))


def _new_name() -> str:
    """Return a name for a Dask array of stored images, which may be others at the next call."""
    return f"images-{uuid.uuid4().hex}"


def _chosen_arrays(dataset: xr.Dataset, names: Sequence[str] | None) -> list[xr.DataArray]:
    """Return the arrays of a Dataset that are read, as of a stored group.

    Raises
    ------
    InputError
        If there is no such array, or none is named and several are possible.
    """
    if names is None:
        possible = [
            str(name)
            for name, array in dataset.data_vars.items()
            if is_image_rank(array.ndim) and array.dtype.kind in PIXEL_KINDS
        ]
        names = [IMAGE_ARRAY] if IMAGE_ARRAY in dataset.data_vars else possible
        if len(names) != 1:
            raise InputError(
                f"the Dataset holds {len(names) or 'no'} arrays that could be images "
                f"({_listed(dataset, possible)}); name the one to read (input_array), or several "
                "to stack them as channels"
            )
    missing = [name for name in names if name not in dataset.data_vars]
    if missing:
        raise InputError(
            f"the Dataset has no array {', '.join(map(repr, missing))}; expected some of: "
            f"{_listed(dataset, [])}"
        )
    return [dataset[name] for name in names]


def _listed(dataset: xr.Dataset, names: Sequence[str]) -> str:
    shown = names or [str(name) for name in dataset.data_vars]
    return ", ".join(f"{name} {dataset[name].shape}" for name in shown) or "it has none"


def _channels_first(
    images: _Array,
    expected: tuple[int | None, ...],
) -> xr.DataArray:
    """Return one array as a DataArray (n, c, *space) of Dask's chunks, decoded.

    Raises
    ------
    InputError, PlanError
        If it does not fit, or is none of numbers.
    """
    shape = _known_shape(images)
    if images.dtype.kind not in PIXEL_KINDS:
        raise InputError(f"the images hold {images.dtype}; expected integers or floats")
    if isinstance(images, xr.DataArray):
        axes = find_axes(shape, [str(dim) for dim in images.dims], expected, _what(images))
        named = _decoded(_in_chunks(images, axes))
    elif isinstance(images, zarr.Array):
        axes = find_axes(shape, dimension_names(images), expected, "the Zarr array")
        named = xr.DataArray(_of_zarr(images, axes), dims=_dims(axes, len(shape)))
    else:
        axes = _axes_without_names(shape, expected)
        named = _in_chunks(xr.DataArray(images, dims=_dims(axes, len(shape))), axes)
    arranged = _arranged(named, axes)
    if 0 in arranged.shape:
        raise InputError(f"the images have shape {shape}; expected at least one image")
    arranged.data = _of_numpy(arranged.data)
    mapping = None
    if isinstance(images, xr.DataArray):
        mapping = images.encoding.get("grid_mapping") or images.attrs.get("grid_mapping")
    arranged.encoding = {} if mapping is None else {"grid_mapping": str(mapping)}
    return arranged


def _what(images: xr.DataArray) -> str:
    """Return what messages call a DataArray."""
    return "the DataArray" if images.name is None else f"the DataArray {str(images.name)!r}"


def _known_shape(images: _Array) -> tuple[int, ...]:
    """Return the shape of an array.

    Raises
    ------
    InputError
        If Dask does not know it.
    """
    unknown = [axis for axis, size in enumerate(images.shape) if math.isnan(size)]
    if unknown:
        array = "images.data" if isinstance(images, xr.DataArray) else "images"
        raise InputError(
            f"the images have chunks of unknown size along axis {unknown[0]}, as after a selection "
            f"by a condition: call {array}.compute_chunk_sizes() first"
        )
    return tuple(int(size) for size in images.shape)


def _in_chunks(images: xr.DataArray, axes: Axes) -> xr.DataArray:
    """Return images whose data is a Dask array; those that are not yet read stay so."""
    if images.chunks is not None:
        return images
    chunks: dict[Hashable, int] = dict.fromkeys(images.dims, -1)
    if axes.order[0] is not None:
        dim = images.dims[axes.order[0]]
        stored = images.encoding.get("preferred_chunks", {}).get(dim, 1)
        chunks[dim] = _images_per_read(int(stored), images.nbytes // max(1, images.sizes[dim]))
    return images.chunk(chunks)


def _of_zarr(array: zarr.Array[Any], axes: Axes) -> da.Array:
    """Return a Zarr array as a Dask array, decoded, nothing read."""
    chunks, image_axis = list(array.shape), axes.order[0]
    if image_axis is not None:
        image_bytes = array.nbytes // max(1, array.shape[image_axis])
        chunks[image_axis] = _images_per_read(array.chunks[image_axis], image_bytes)
    stored = _from_array(array, chunks=tuple(chunks), name=_new_name())
    data: da.Array = stored.astype(array.dtype.newbyteorder("="), copy=False)
    decoding = Decoding.of(array)
    if decoding is None:
        return data
    return _mapped(data, decoding.apply, decoding.dtype)


def _mapped(
    data: da.Array, function: Callable[[NDArray[Any]], NDArray[Any]], dtype: npt.DTypeLike
) -> da.Array:
    """Return an array with a function applied to each chunk, which keeps its shape."""
    apply: Callable[..., da.Array] = data.map_blocks
    return apply(function, dtype=dtype, meta=np.empty((0,) * data.ndim, dtype))


def _with_nan(chunk: NDArray[Any]) -> NDArray[Any]:
    """Return a chunk of floats whose masked values are NaN."""
    return np.asarray(np.ma.filled(chunk, np.nan))


def _of_tensor(tensor: torch.Tensor) -> NDArray[Any]:
    """Return a tensor as an array, which shares its memory where it can.

    Raises
    ------
    InputError
        If it has no plain values.
    """
    values = tensor.detach()
    if values.is_floating_point() and values.dtype not in _NUMPY_FLOATS:
        values = values.float()
    try:
        return values.cpu().resolve_neg().numpy()
    except (NotImplementedError, RuntimeError, TypeError) as error:
        advice = ""
        if tensor.is_sparse or tensor.is_sparse_csr:
            advice = ": give images.to_dense()"
        elif tensor.is_quantized:
            advice = ": give images.dequantize()"
        raise InputError(
            f"the tensor of {tensor.dtype}, {tensor.layout}, on {tensor.device} has no plain "
            f"values ({one_line(error)}); expected a dense one of integers or floats{advice}"
        ) from error


def _of_numpy(data: da.Array) -> da.Array:
    """Return a Dask array with plain NumPy arrays as chunks; masked values become NaN.

    Raises
    ------
    InputError
        If its chunks are something else.
    """
    meta = data._meta
    if isinstance(meta, np.ma.MaskedArray):
        is_exact = meta.dtype.kind == "f"
        dtype = meta.dtype if is_exact else np.result_type(meta.dtype, np.float32)
        return _mapped(data.astype(dtype), _with_nan, dtype)
    if type(meta) is not np.ndarray:
        raise InputError(
            f"the chunks of the images are {_kind(meta)}; expected NumPy arrays: convert them first"
        )
    return data


def _axes_without_names(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> Axes:
    """Return the axes of an array: (n, c, *space) unless only another order fits the model."""
    if len(shape) != len(expected):
        try:
            return find_axes(shape, None, expected)
        except InputError as error:
            raise PlanError(
                f"images of shape {shape}; expected (n, c, *space) or (n, *space, c) with one to "
                f"three spatial axes: {error}"
            ) from None
    is_last = not fits(expected, shape[1:]) and fits(expected, (shape[-1], *shape[1:-1]))
    order = [0, len(shape) - 1, *range(1, len(shape) - 1)] if is_last else range(len(shape))
    return Axes(tuple(order), ("n", "c", *("z", "y", "x")[5 - len(shape) :]))


def _dims(axes: Axes, rank: int) -> list[str]:
    """Return names for the axes of an array that has none, or not for all."""
    dims = [f"axis_{axis}" for axis in range(rank)]
    for axis, name in zip(axes.order, axes.names, strict=True):
        if axis is not None:
            dims[axis] = name
    return dims


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
            stacklevel=6,
        )
    if not any(name in images.attrs for name in PACKING):
        return images
    name = "images"
    decoded = xr.decode_cf(images.to_dataset(name=name), decode_times=False, decode_coords=False)
    return decoded[name]


def _stacked(parts: Sequence[xr.DataArray]) -> tuple[xr.DataArray, list[str | None]]:
    """Return arrays (n, c, *space) stacked as channels, and the name of each channel.

    Raises
    ------
    InputError
        If they do not hold the same images in the same type.
    """
    first = parts[0]
    names: list[str | None] = []
    for part in parts:
        if part.dtype != first.dtype or _without_channels(part) != _without_channels(first):
            raise InputError(
                f"the array {part.name!r} has shape {part.shape} and type {part.dtype}, and the "
                f"first array {first.shape} and {first.dtype}: expected the same images in each "
                "array that is stacked"
            )
        dim = part.dims[1]
        if dim in part.coords:
            names += [str(name) for name in part[dim].values]
        else:
            is_named = len(parts) > 1 and part.shape[1] == 1
            names += [str(part.name) if is_named else None] * part.shape[1]
    if len(parts) == 1:
        return first, names
    dim = first.dims[1]
    coords = first.drop_vars([name for name, own in first.coords.items() if dim in own.dims]).coords
    joined = da.concatenate([part.data for part in parts], axis=1)
    stacked = xr.DataArray(joined, dims=first.dims, coords=coords)
    stacked.encoding = first.encoding
    return stacked, names


def _without_channels(images: xr.DataArray) -> tuple[int, ...]:
    return (images.shape[0], *images.shape[2:])
