"""Opening a model: from a path, an address or bytes to a network that can be planned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path

import torch

from .archive import read_archive
from .errors import ModelError, one_line
from .fingerprints import archive_fingerprint
from .importer import import_network
from .network import Network
from .precision import in_precision

__all__ = ["Model", "open_model"]


@dataclass(frozen=True, eq=False)
class Model:
    """A model that has been opened.

    Parameters
    ----------
    network
        What it computes.
    fingerprint
        A hash of what the file says and holds, in whatever precision it is run.
    source
        Its name in messages: the path or address that it came from.

    Printed, it shows its network. It travels to other processes by pickle; they need neither
    the file nor ``torch.export``.
    """

    network: Network
    fingerprint: str
    source: str

    def to(self, dtype: torch.dtype) -> Model:
        """Return the model in float32 or float64.

        Raises
        ------
        ModelError
            If ``dtype`` is another type.
        """
        return replace(self, network=in_precision(self.network, dtype))

    def __str__(self) -> str:
        return f"{self.source}: {self.network}"


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
    return Model(import_network(archive, name), archive_fingerprint(archive), name)


def _fetched(name: str) -> bytes | Path:
    if "://" not in name:
        return Path(name)
    import fsspec

    try:
        with fsspec.open(name, "rb") as stream:
            content: bytes = stream.read()
            return content
    except Exception as error:
        raise ModelError(f"{name} cannot be read: {one_line(error)}") from error
