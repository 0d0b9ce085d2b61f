"""OME-Zarr images with the axes (c, y, x), of which the full resolution is read.

An OME-Zarr image is a group of arrays, one per resolution. An image with the axes (c, y, x) is
read as a batch of one. Images with other axes (time, stacks) are an error, since these axes do
not make a batch of images. NGFF versions 0.4 (Zarr v2) and 0.5 (Zarr v3).
"""

from __future__ import annotations

from collections.abc import Mapping

from .checksummed_json import Json
from .errors import InputError

__all__ = ["full_resolution"]

_AXES = ["c", "y", "x"]


def full_resolution(attributes: Mapping[str, Json], where: str) -> str | None:
    """Return the path of an OME-Zarr image's array of full resolution; None for other groups.

    Parameters
    ----------
    attributes
        Of the group.
    where
        The group, as messages name it.

    Raises
    ------
    InputError
        If it is an OME-Zarr image with other axes than (c, y, x).
    """
    ome = attributes.get("ome", attributes)
    scales = ome.get("multiscales") if isinstance(ome, dict) else None
    if not isinstance(scales, list) or not scales or not isinstance(scales[0], dict):
        return None
    axes, datasets = scales[0].get("axes"), scales[0].get("datasets")
    names = [_member(axis, "name") for axis in axes] if isinstance(axes, list) else []
    if names != _AXES:
        raise InputError(
            f"{where} is an OME-Zarr image with the axes ({', '.join(map(str, names))}); of "
            "these only (c, y, x) is read, as a batch of one: name one of its arrays "
            "(--input-array), or store the images as (n, c, *space)"
        )
    path = _member(datasets[0], "path") if isinstance(datasets, list) and datasets else None
    return path if isinstance(path, str) else None


def _member(value: Json, name: str) -> Json:
    return value.get(name) if isinstance(value, dict) else value
