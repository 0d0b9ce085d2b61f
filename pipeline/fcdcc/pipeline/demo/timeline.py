"""What happened on a cluster during a run, as a value: shares over time, and faults.

Moments are seconds on any one clock; a picture counts from ``start``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .files import DemoError


@dataclass(frozen=True)
class ShareSpan:
    """One share on one worker.

    Parameters
    ----------
    worker
        Its name, as it should be read.
    layer, block, position
        Which share: as in its task key.
    start, stop
        When it was given to the worker; when it was done, erased or lost, None if that is
        not known.
    state
        ``done``: its result was there; ``erased``: nobody waited for it any more; ``lost``:
        it went away with its worker.
    """

    worker: str
    layer: int
    block: int
    position: int
    start: float
    stop: float | None
    state: Literal["done", "erased", "lost"]

    def __post_init__(self) -> None:
        if self.stop is not None and self.stop < self.start:
            raise DemoError(f"a share from {self.start} to {self.stop}; expected start ≤ stop")


@dataclass(frozen=True)
class Fault:
    """Something that happened to a worker.

    ``stopped`` and ``killed`` are done to it on purpose; ``removed`` is what the run did about
    it; ``lost`` is one that went away by itself, and ``joined`` one that came later.
    """

    worker: str
    moment: float
    kind: Literal["stopped", "killed", "removed", "lost", "joined"]


@dataclass(frozen=True)
class Timeline:
    """A run: its shares, its faults, when it began and ended, and when blocks were done.

    Parameters
    ----------
    shares, faults
        In any order.
    start, stop
        Of the run.
    blocks
        The moments at which blocks were done; empty if they are not known.
    """

    shares: tuple[ShareSpan, ...]
    faults: tuple[Fault, ...]
    start: float
    stop: float
    blocks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.stop < self.start:
            raise DemoError(f"a run from {self.start} to {self.stop}; expected start ≤ stop")

    @property
    def seconds(self) -> float:
        """How long the run took."""
        return self.stop - self.start

    @property
    def workers(self) -> tuple[str, ...]:
        """Names of the workers: those there from the start by name, then as they joined."""
        joined = {f.worker: f.moment for f in self.faults if f.kind == "joined"}
        named = {share.worker for share in self.shares} | {f.worker for f in self.faults}
        return tuple(sorted(named, key=lambda name: (joined.get(name, self.start), _natural(name))))

    def moment(self, worker: str, kind: str) -> float | None:
        """Return when something first happened to a worker, or None."""
        return min(
            (f.moment for f in self.faults if (f.worker, f.kind) == (worker, kind)), default=None
        )


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Return a key by which ``worker 10`` comes after ``worker 9``."""
    digits = "".join(c if c.isdigit() else " " for c in name).split()
    return (*((int(d), "") for d in digits), (0, name))
