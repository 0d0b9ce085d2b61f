"""The errors of the pipeline; :mod:`fcdcc.coding.errors` explains how errors are designed."""

from __future__ import annotations

from collections.abc import Iterable

from fcdcc.coding.errors import FcdccError


class ClusterError(FcdccError, ConnectionError):
    """A Dask cluster that does not answer, or went away."""


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


class WrongSharesError(FcdccError, ArithmeticError):
    """Shares of a layer that contradict each other: at least one of them is wrong.

    ``workers`` are the addresses of the workers that computed them, as far as known.
    """

    def __init__(self, message: str, workers: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.workers = frozenset(workers)


class NotFiniteError(FcdccError, FloatingPointError):
    """Shares with NaN or infinity, which decoding would spread to other images."""


class RowsError(FcdccError, ValueError):
    """Rows that do not exist, are missing, or cannot be computed from the rows given."""


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
