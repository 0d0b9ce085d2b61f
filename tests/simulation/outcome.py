"""What a simulated run was."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Outcome"]


@dataclass
class Outcome:
    """What a simulated run was.

    Seconds are those of the simulated clock, but for ``deciding`` and ``looking``: the time that
    the state machine took on this machine for ``events`` events, and for ``looks`` looks at the
    clock, which are no events of the cluster's. ``done`` is the work that workers did,
    in seconds of speed 1, given up halfway or not, ``useful`` what it would be without
    redundancy.
    """

    seconds: float = 0.0
    blocks: list[float] = field(default_factory=list)
    groups: list[float] = field(default_factory=list)
    done: float = 0.0
    useful: float = 0.0
    events: int = 0
    deciding: float = 0.0
    looks: int = 0
    looking: float = 0.0
    recomputed: int = 0

    @property
    def extra_work(self) -> float:
        """Work beyond the useful, relative to it."""
        return self.done / self.useful - 1.0 if self.useful else 0.0
