"""The rules that need time: when a worker counts as gone, and when a group counts as late.

Time is an argument everywhere. The rules are values that the state machine is given, so
that others, learned ones for example, can take their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

__all__ = ["FixedSilence", "LateByMedian", "LatenessRule", "SilenceRule"]


class SilenceRule(Protocol):
    """Says how long a worker may stay silent."""

    def patience(self, delivered: bool, heartbeat_interval: float) -> float:
        """Return after how many seconds of silence a worker counts as gone.

        ``delivered`` says whether it has returned any result since it joined;
        ``heartbeat_interval`` how often a worker of this cluster is heard of when all is well.
        """
        ...


class LatenessRule(Protocol):
    """Says when a group is late, so that the shares it has in reserve are started."""

    def is_late(self, stalled: float, durations: Sequence[float], missing: int) -> bool:
        """Return whether to start the reserve.

        ``stalled`` is how long a worker that has one of the group's shares has returned
        nothing, ``durations`` how long the shares took that are done, and ``missing`` the
        number of shares that were assigned and are not done; all in seconds.
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

    def patience(self, delivered: bool, heartbeat_interval: float) -> float:
        """Return after how many seconds of silence a worker counts as gone.

        >>> FixedSilence().patience(delivered=True, heartbeat_interval=0.5)
        3.0
        >>> FixedSilence().patience(delivered=True, heartbeat_interval=2.0)
        8.0
        """
        fixed = self.silent_after if delivered else max(self.silent_after, self.grace)
        return max(fixed, self.heartbeats * heartbeat_interval)


@dataclass(frozen=True)
class LateByMedian:
    """Late against the group itself: ``factor`` times the median of what its shares took.

    At least as many shares must be done as are missing. ``slack`` seconds are added, so that
    very short shares do not wake the reserve for nothing.
    """

    factor: float = 2.0
    slack: float = 0.2

    def is_late(self, stalled: float, durations: Sequence[float], missing: int) -> bool:
        """Return whether to start the reserve.

        >>> LateByMedian().is_late(3.0, [0.9, 1.0, 1.1], missing=1)
        True
        >>> LateByMedian().is_late(3.0, [0.9], missing=3)
        False
        """
        if missing == 0 or len(durations) < missing:
            return False
        return stalled > self.factor * median(durations) + self.slack
