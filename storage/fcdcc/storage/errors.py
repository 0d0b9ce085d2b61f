"""The errors of the storage layer; see :mod:`fcdcc.coding.errors` for the rules."""

from __future__ import annotations

from fcdcc.coding.errors import FcdccError

__all__ = [
    "DamageError",
    "InputError",
    "LocationError",
    "LockedError",
    "OutputError",
    "OutputGoneError",
    "OutputMismatchError",
    "PreparationError",
    "UnreachableError",
]


class InputError(FcdccError, ValueError):
    """Images that cannot be read, or that do not fit the model or the options."""


class LocationError(FcdccError, ValueError):
    """A path or URL that no file can have."""


class PreparationError(FcdccError, ValueError):
    """A scale, mean, standard deviation or data type that does not fit the images."""


class OutputError(FcdccError, OSError):
    """An output that cannot be made, read or written."""


class UnreachableError(FcdccError, ConnectionError):
    """A store that cannot be reached now, or does not answer in time; a later try may succeed.

    It is the ``__cause__`` of the InputError or OutputError that says what was to be done there.
    """


class OutputMismatchError(OutputError, ValueError):
    """An output of another job: its fingerprint differs."""


class DamageError(OutputError):
    """Stored data that differs from what was written."""


class OutputGoneError(OutputError):
    """An output that was moved, replaced or deleted while a run was writing it."""


class LockedError(OutputError):
    """An output that another run is writing."""
