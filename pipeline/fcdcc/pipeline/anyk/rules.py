"""The rules that need time: when a worker counts as gone, and when it counts as late.

Time is an argument everywhere. The rules are values that the state machine is given, so
that others can take their place. Both learn: what a task of one layer usually takes from
those before it (:mod:`.workload`), and how regularly workers are heard of from their
heartbeats so far (:mod:`.roster`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

__all__ = ["FixedSilence", "LateByHistory", "LatenessRule", "LearnedSilence", "SilenceRule"]


class SilenceRule(Protocol):
    """Says how long a worker may stay silent."""

    def patience(
        self, delivered: bool, heartbeat_interval: float, own: Sequence[float], worst: float
    ) -> float:
        """Return after how many seconds of silence a worker counts as gone.

        Parameters
        ----------
        delivered
            Whether it has returned any result since it joined.
        heartbeat_interval
            How often a worker of this cluster is heard of when all is well.
        own
            The seconds between its latest heartbeats.
        worst
            The longest such time of any worker of the cluster lately.
        """
        ...


class LatenessRule(Protocol):
    """Says when a worker is late, so that what others wait for is started elsewhere."""

    def patience(self, usual: Sequence[float], idle: bool) -> float | None:
        """Return after how many seconds without a result a worker is late.

        Parameters
        ----------
        usual
            The seconds that tasks like the one it has took from when their worker had
            nothing else to do until their result was there; oldest first.
        idle
            Whether another worker has nothing to do, so that trying costs little.

        Returns
        -------
        float or None
            None where too little is known.
        """
        ...


@dataclass(frozen=True)
class FixedSilence:
    """A fixed time.

    Parameters
    ----------
    silent_after
        Seconds, for a worker that has returned results.
    grace
        Seconds, for a worker that has not: its first task imports libraries, during which
        Python may keep it from answering.
    heartbeats
        At least so many heartbeats must have been missed.
    """

    silent_after: float = 3.0
    grace: float = 15.0
    heartbeats: float = 4.0

    def patience(
        self,
        delivered: bool,
        heartbeat_interval: float,
        own: Sequence[float] = (),  # noqa: ARG002 - the protocol's signature
        worst: float = 0.0,  # noqa: ARG002 - the protocol's signature
    ) -> float:
        """Return after how many seconds of silence a worker counts as gone.

        >>> FixedSilence().patience(delivered=True, heartbeat_interval=0.5)
        3.0
        >>> FixedSilence().patience(delivered=True, heartbeat_interval=2.0)
        8.0
        """
        fixed = self.silent_after if delivered else max(self.silent_after, self.grace)
        return max(fixed, self.heartbeats * heartbeat_interval)


@dataclass(frozen=True)
class LearnedSilence:
    """Learned from how regularly workers were heard of; never below ``silent_after``.

    A worker counts as gone after ``own_factor`` times its own longest time between
    heartbeats, or ``any_factor`` times anybody's: on a busy machine all are heard of less
    regularly, and the first sign of that may be another worker's.

    Parameters
    ----------
    silent_after
        Seconds that are always allowed.
    grace
        Seconds for a worker that has returned nothing yet. Never is more than this allowed,
        but for what ``heartbeats`` says.
    young
        Seconds at least for one that has been heard of fewer than ``known_after`` times.
    heartbeats
        At least so many heartbeats must have been missed.
    """

    silent_after: float = 3.0
    young: float = 5.0
    grace: float = 15.0
    heartbeats: float = 4.0
    own_factor: float = 4.0
    any_factor: float = 3.0
    known_after: int = 4

    def patience(
        self, delivered: bool, heartbeat_interval: float, own: Sequence[float], worst: float
    ) -> float:
        """Return after how many seconds of silence a worker counts as gone.

        >>> rule = LearnedSilence()
        >>> rule.patience(True, 0.5, [0.5, 0.5, 0.51, 0.5], worst=0.6)
        3.0
        >>> rule.patience(True, 0.5, [0.5, 0.5, 0.51, 0.5], worst=2.0)
        6.0
        >>> rule.patience(False, 0.5, [0.5, 0.5, 0.51, 0.5], worst=0.6)
        15.0
        """
        least = self.heartbeats * heartbeat_interval
        if not delivered:
            return max(self.grace, least)
        always = self.silent_after if len(own) >= self.known_after else self.young
        learned = max(self.own_factor * max(own, default=0.0), self.any_factor * worst)
        return max(min(self.grace, max(always, learned)), least)


@dataclass(frozen=True)
class LateByHistory:
    """Late against what such tasks usually take: their median, and how much they vary.

    A worker is late after ``factor`` medians and ``spread`` times what the upper quartile is
    above the median. Where another worker is idle it is late already when it takes
    ``idle_factor`` times as long as nine tenths of them took. ``floor`` seconds are added in
    either case: so long a worker may be kept waiting on a machine that others use as well.
    """

    factor: float = 2.0
    spread: float = 3.0
    idle_factor: float = 1.5
    floor: float = 0.2
    samples: int = 3

    def patience(self, usual: Sequence[float], idle: bool) -> float | None:
        """Return after how many seconds without a result a worker is late.

        >>> rule = LateByHistory()
        >>> rule.patience([1.0, 1.0, 1.0, 1.0, 1.1], idle=False)
        2.2
        >>> rule.patience([1.0, 1.0, 1.0, 1.0, 1.1], idle=True)
        1.85
        >>> rule.patience([1.0, 1.0], idle=False) is None
        True
        """
        if len(usual) < self.samples:
            return None
        ordered = sorted(usual)
        middle = median(ordered)
        busy = self.factor * middle + self.spread * (_quantile(ordered, 0.75) - middle)
        if idle:
            busy = min(busy, self.idle_factor * _quantile(ordered, 0.9))
        return round(busy + self.floor, 9)


def _quantile(ordered: Sequence[float], part: float) -> float:
    """Return the smallest value that at least this part of the values do not exceed."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
