"""Opening a model: from a path, an address or bytes to a network that can be planned."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path

import torch

from .archive import read_archive
from .errors import ModelError
from .importer import import_network
from .network import Network

__all__ = ["Model", "open_model"]


@dataclass(frozen=True, eq=False)
class Model:
    """A model that has been opened.

    Parameters
    ----------
    network
        What it computes.
    source
        Its name in messages: the path or address that it came from.
    """

    network: Network
    source: str = field(default="model")

    @property
    def fingerprint(self) -> str:
        """A hash of what it computes: equal models have equal ones."""
        return self.network.fingerprint

    def to(self, dtype: torch.dtype) -> Model:
        """Return the model in float32 or float64."""
        return replace(self, network=self.network.to(dtype))


def open_model(source: str | PathLike[str] | bytes) -> Model:
    """Open a ``.pt2`` file that ``torch.export.save`` has written.

    Parameters
    ----------
    source
        A path, an address that fsspec understands, or the file's bytes.

    Raises
    ------
    ModelError
        If it cannot be read or cannot be run here.
    UnsafeModelError
        If loading it whole would run code from it.
    """
    if isinstance(source, bytes):
        name, content = "the model", source
        archive = read_archive(content, name)
    else:
        name = fspath(source)
        archive = read_archive(_fetched(name), name)
    return Model(import_network(archive, name), name)


def _fetched(name: str) -> bytes | Path:
    if "://" not in name:
        return Path(name)
    import fsspec

    try:
        with fsspec.open(name, "rb") as stream:
            content: bytes = stream.read()
            return content
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"{name} cannot be read: {error}") from error
