"""Warn where the numbers of class folders and of the network's classes mean different classes."""

from __future__ import annotations

from fcdcc.storage import ImageSource, InputError
from fcdcc.storage.coordinates import read_values
from fcdcc.storage.sources import sibling
from fcdcc.storage.stores import open_array

from ..heads import CLASS_DIM
from .output import PredictionSpec

MAX_NAMED_CLASSES = 3
"""Classes of each that the warning names."""


def class_order_warning(source: ImageSource, spec: PredictionSpec) -> str:
    """Return a warning if folders and network number the same names differently; '' if not.

    ``fcdcc ingest`` numbers class folders by their names, those that come later after the others,
    and a network has its own order. The output has both: ``label`` of the folders, and predictions
    of the network's classes.
    """
    if spec.names is None:
        return ""
    folders = _folder_classes(source)
    classes = [str(name) for name in spec.names.values]
    if folders == classes or not set(folders) & set(classes):
        return ""
    return (
        f"the class folders of the images ({_some(folders)}) are not the classes of the network "
        f"({_some(classes)}) in this order: label has numbers of folders and is not to be compared "
        "with numbers of classes; compare their names"
    )


def _folder_classes(source: ImageSource) -> list[str]:
    """Return the names of the class folders of ingested images; empty if there are none."""
    path = sibling(source.parts[0].path, CLASS_DIM)
    try:
        (count,) = open_array(source.url, path).shape
        return [str(name) for name in read_values(source.url, path, 0, count)]
    except (InputError, ValueError):
        return []


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED_CLASSES])
    return f"{shown}, …" if len(names) > MAX_NAMED_CLASSES else shown
