"""How long a worker may stay silent before it counts as gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class SilenceRule(Protocol):
    """Says how long a worker may stay silent."""

    def patience(
        self, delivered: bool, heartbeat_interval: float, own: Sequence[float], worst: float
    ) -> float:
        """Return after how many seconds of silence a worker counts as gone.

        Parameters
        ----------
        delivered
            Whether it has returned any result since it joined, or said that it has loaded what
            its tasks need.
        heartbeat_interval
            Seconds between two heartbeats of a worker of this cluster when all is well.
        own
            The seconds between its latest heartbeats.
        worst
            The longest such time of any worker of the cluster lately.
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
        Number of heartbeats that must have been missed at least.
    """

    silent_after: float = 3.0
    grace: float = 15.0
    heartbeats: float = 4.0

    def patience(
        self,
        delivered: bool,
        heartbeat_interval: float,
        own: Sequence[float] = (),  # noqa: ARG002 - SilenceRule has it; a fixed time needs it not
        worst: float = 0.0,  # noqa: ARG002 - SilenceRule has it; a fixed time needs it not
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
    """Learned from how regularly heartbeats arrived; never below ``silent_after``.

    A worker counts as gone after ``own_factor`` times its own longest time between
    heartbeats, or ``any_factor`` times the longest of any worker: on a busy machine all heartbeats
    arrive less regularly, and the first sign of that may be another worker's.

    Parameters
    ----------
    silent_after
        Seconds of silence that are always allowed.
    young
        Seconds that are allowed at least for a worker of which fewer than ``known_after`` times
        between heartbeats are known.
    grace
        Seconds for a worker that has returned nothing yet. Also the most that is ever allowed,
        unless ``heartbeats`` requires more.
    heartbeats
        Number of heartbeats that must have been missed at least.
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
