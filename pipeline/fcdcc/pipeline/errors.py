"""The errors of the pipeline; :mod:`fcdcc.coding.errors` explains how errors are designed."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fcdcc.coding.errors import FcdccError

logger = logging.getLogger(__name__)

EXPECTED_MODEL = "expected a file written by torch.export.save"
"""What an error about a model file says of what would be right."""


class ClusterError(FcdccError, ConnectionError):
    """A Dask cluster that does not answer, or went away."""


class SchedulerUnreachableError(ClusterError):
    """A Dask scheduler that cannot be reached when a run begins; a later try may succeed."""


class ClusterLostError(ClusterError):
    """A Dask cluster that went away in the middle of a run; the next run continues."""


class NoWorkersError(ClusterError):
    """A Dask cluster without a worker that takes tasks; the next run continues."""


class PluginRefusedError(ClusterError):
    """A Dask scheduler that does not accept the any-k plugin."""


class ModelError(FcdccError, ValueError):
    """A model that cannot be read or run."""


class UnsafeModelError(ModelError):
    """A model file that would run code of its author when loaded."""


class PlanError(FcdccError, ValueError):
    """A plan that cannot be made, or does not fit the model or images it is used for."""


class PlanMemoryError(PlanError):
    """A plan that needs more memory than a worker has.

    ``needed`` are the bytes that a worker must have, so that the plan may use what it needs.
    """

    def __init__(self, message: str, needed: float) -> None:
        super().__init__(message)
        self.needed = needed


class OptionError(FcdccError, ValueError):
    """An option, or a combination of options, that is invalid."""


class MainGuardError(FcdccError, RuntimeError, SystemExit):
    """A script whose worker processes would run it again: it has no main guard.

    Being a SystemExit as well, it ends a script with its message alone, without a traceback that
    would hide it, and with exit code 1.
    """

    @property
    def code(self) -> str:  # type: ignore[override] # no instance variable, which pickling may lose
        """What the interpreter prints when the error ends a script: the message."""
        return str(self)


class BadValueError(FcdccError, ValueError):
    """A value from outside that passed all checks, and that then could not be computed with."""


class WrongSharesError(FcdccError, ArithmeticError):
    """Shares of a layer that contradict each other: at least one of them is wrong.

    ``workers`` are the addresses of the workers that computed them, as far as known.
    """

    def __init__(self, message: str, workers: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.workers = frozenset(workers)


class FailedCheckError(WrongSharesError):
    """A result that fails its checksum: the worker that computed it is wrong."""


class NotFiniteError(FcdccError, FloatingPointError):
    """Shares with NaN or infinity, which decoding would spread to other images."""


class RowsError(FcdccError, ValueError):
    """Rows that do not exist, are missing, or cannot be computed from the rows given."""


BAD_VALUE_ERRORS = (MemoryError, OverflowError, RecursionError, ValueError, ZeroDivisionError)
"""Errors that numbers cause that are far too large, and values that no check has refused."""

BEGUN_NOTE = "The output was begun: the same command continues it."
"""Note on errors that arise after the first write, which are no bad input."""


@contextmanager
def bad_values_refused() -> Iterator[None]:
    """Raise errors that bad values cause as a BadValueError, unless something was written.

    The outermost guard of commands and of the functions for Python: checks further inside name
    the value; this one says at least which error it caused.

    Raises
    ------
    BadValueError
        In place of a :data:`BAD_VALUE_ERRORS` that is no error of ours.
    """
    try:
        yield
    except FcdccError:
        raise
    except BAD_VALUE_ERRORS as error:
        if BEGUN_NOTE in getattr(error, "__notes__", ()):
            raise
        # Places only: messages of errors, and lines of code, may contain credentials.
        frames = reversed(traceback.extract_tb(error.__traceback__))
        places = (f"{frame.name} ({Path(frame.filename).name}:{frame.lineno})" for frame in frames)
        logger.debug("%s arose in %s", type(error).__name__, ", called by ".join(places))
        raise BadValueError(
            f"a value that was given cannot be used: {full_line(error):.500}; look for very large "
            "or odd numbers and names in the options, the model and the images"
        ) from error


@contextmanager
def output_begun() -> Iterator[None]:
    """Mark errors that arise inside as later than the first write."""
    try:
        yield
    except BAD_VALUE_ERRORS as error:
        error.add_note(BEGUN_NOTE)
        raise


def one_line(error: BaseException) -> str:
    r"""Return the first line of an error message, or the error type if there is none.

    >>> one_line(ValueError("too large\nby far"))
    'too large'
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def full_line(error: BaseException) -> str:
    r"""Return the type and the whole message of an error as one line.

    >>> full_line(ValueError("too large\nby far"))
    'ValueError: too large by far'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
