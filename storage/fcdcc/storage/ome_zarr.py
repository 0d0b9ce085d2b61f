"""OME-Zarr metadata: which array of an image has the full resolution, and what its axes are.

An OME-Zarr image is a group with one array per resolution, and with metadata that names the
axes. Microscopes write many images into one store: bioformats2raw as a numbered series, plates as
wells with fields. NGFF versions 0.4 (Zarr v2) and 0.5 (Zarr v3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

from .checksummed_json import Json
from .errors import InputError

__all__ = ["OmeImage", "images_inside", "ome_image"]

Attributes = Mapping[str, Json]
ReadAttributes = Callable[[str], "Attributes | None"]


@dataclass(frozen=True)
class OmeImage:
    """One image in several resolutions.

    Parameters
    ----------
    axes
        The names of the axes of its arrays, None for one without a name.
    kinds
        What they are: ``time``, ``channel``, ``space``; None if the metadata does not say.
    paths
        Its arrays in the group, the one of full resolution first.
    channels
        Names of the channels; empty if the metadata has none.
    """

    axes: tuple[str | None, ...]
    kinds: tuple[str | None, ...]
    paths: tuple[str, ...]
    channels: tuple[str, ...] = ()


def ome_image(attributes: Attributes) -> OmeImage | None:
    """Return the image that a group with these attributes is; None for other groups."""
    ome = _ome(attributes)
    scales = _items(ome.get("multiscales"))
    if not scales:
        return None
    axes = _items(scales[0].get("axes"))
    datasets = [dataset.get("path") for dataset in _items(scales[0].get("datasets"))]
    paths = tuple(path.strip("/") for path in datasets if isinstance(path, str))
    if not paths:
        return None
    omero = ome.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    labels = [channel.get("label") for channel in _items(channels)]
    return OmeImage(
        axes=tuple(_text(axis.get("name")) for axis in axes),
        kinds=tuple(_text(axis.get("type")) for axis in axes),
        paths=paths,
        channels=tuple(str(label) for label in labels) if all(labels) else (),
    )


def images_inside(read_attributes: ReadAttributes, where: str, limit: int) -> list[str]:
    """Return the paths of the images in a plate, a well, or a store of bioformats2raw.

    Parameters
    ----------
    read_attributes
        Returns the attributes of the group at a path; None if there is no such group.
    where
        The store, as messages name it.
    limit
        Most paths that are returned.

    Returns
    -------
    list of str
        Paths of the arrays of full resolution; empty if the group is something else.

    Raises
    ------
    InputError
        If the group's metadata names images and none of them is there.
    """
    attributes = read_attributes("") or {}
    groups = _groups_inside(attributes, read_attributes)
    if groups is None:
        return []
    found: list[str] = []
    for path in groups:
        image = ome_image(read_attributes(path) or {})
        if image is not None:
            found.append(f"{path}/{image.paths[0]}")
            if len(found) == limit:
                break
    if not found:
        raise InputError(
            f"{where} is an OME-Zarr store whose metadata names images that are not there; "
            "expected at least one: was it copied completely?"
        )
    return found


def _groups_inside(attributes: Attributes, read_attributes: ReadAttributes) -> Iterator[str] | None:
    """Return the paths of the groups that are images; None if a group does not contain any."""
    ome = _ome(attributes)
    plate, well = ome.get("plate"), ome.get("well")
    if isinstance(plate, dict):
        wells = [_text(well.get("path")) for well in _items(plate.get("wells"))]
        return (
            f"{path}/{image}"
            for path in wells
            if path is not None
            for image in _fields(_ome(read_attributes(path) or {}).get("well"))
        )
    if isinstance(well, dict):
        return iter(_fields(well))
    if "bioformats2raw.layout" in ome:
        listed = _ome(read_attributes("OME") or {}).get("series")
        if isinstance(listed, list):
            return (str(path) for path in listed)
        return _numbered(read_attributes)
    return None


def _numbered(read_attributes: ReadAttributes) -> Iterator[str]:
    for number in count():
        if read_attributes(str(number)) is None:
            return
        yield str(number)


def _fields(well: Json) -> list[str]:
    images = _items(well.get("images")) if isinstance(well, dict) else []
    return [path for image in images if (path := _text(image.get("path"))) is not None]


def _ome(attributes: Attributes) -> Attributes:
    """Return the OME metadata, which version 0.5 has in a member of its own."""
    ome = attributes.get("ome")
    return ome if isinstance(ome, dict) else attributes


def _items(value: Json) -> list[dict[str, Json]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None
