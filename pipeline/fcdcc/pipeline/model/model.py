"""Opening a model: from a path, an address or bytes to a network that can be planned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path

import fsspec
import torch

from fcdcc.storage.locations import is_local, normalise, scrubbed, shown

from ..errors import ModelError, one_line
from .fingerprints import archive_fingerprint
from .importer import import_network
from .network import Network
from .precision import in_precision
from .pt2.archive import read_archive


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
        name, archive = "the given file", read_archive(source, "the given file")
    else:
        name = shown(fspath(source))
        archive = read_archive(_fetched(fspath(source), name), name)
    return Model(import_network(archive, name), archive_fingerprint(archive), name)


def _fetched(source: str, name: str) -> bytes | Path:
    """Return a local path as it is, and the content of what lies elsewhere."""
    location = normalise(source)
    if is_local(location):
        return Path(location)
    try:
        files, path = fsspec.url_to_fs(location)
        content: bytes = files.cat_file(path)
    except Exception as error:  # noqa: BLE001 - each kind of storage has errors of its own
        reason = scrubbed(one_line(error), location)
        # No cause: it may carry the address with its credentials.
        raise ModelError(f"{name} cannot be read: {reason}") from None
    return content
