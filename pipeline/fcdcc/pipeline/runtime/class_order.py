"""Warn where the numbers of class folders and of the network's classes mean different classes."""

from __future__ import annotations

from fcdcc.storage import ImageSource, InputError
from fcdcc.storage.coordinates import read_values
from fcdcc.storage.sources import sibling
from fcdcc.storage.stores import open_array

from ..heads import CLASS_DIM
from .output import PredictionSpec

MAX_NAMED_CLASSES = 3
"""Class folders that the warning names."""


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
    numbers = {name: number for number, name in enumerate(classes)}
    known = {name: number for number, name in enumerate(folders) if name in numbers}
    others = [name for name in folders if name not in numbers]
    for name, number in known.items():
        if number != numbers[name]:
            return (
                "label has numbers of class folders, which are not those of the network's classes "
                f"({name} is folder {number} and class {numbers[name]}): compare names, not numbers"
            )
    if not known or not others:
        return ""
    are = "is a class folder" if len(others) == 1 else "are class folders"
    return (
        f"{_some(others)} {are} of the images and no class of the network: all other labels are "
        "numbers of its classes"
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
