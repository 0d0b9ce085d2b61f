"""The outcome of a simulated run."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """The outcome of a simulated run; seconds of the simulated clock, unless said otherwise."""

    seconds: float = 0.0
    """From the first block to the last result."""
    blocks: list[float] = field(default_factory=list)
    """Seconds of each block."""
    groups: list[float] = field(default_factory=list)
    """Seconds of each group, from its first assigned share to its last node."""
    done: float = 0.0
    """Work that workers did, given up halfway or not, in seconds of a worker of speed 1."""
    useful: float = 0.0
    """The same without redundancy."""
    events: int = 0
    """Number of events other than ticks."""
    event_seconds: float = 0.0
    """Real seconds that the state machine took for them on this machine."""
    ticks: int = 0
    tick_seconds: float = 0.0
    """Real seconds that the state machine took for ticks on this machine."""
    recomputed: int = 0
    """Number of tasks that were computed again."""

    @property
    def extra_work(self) -> float:
        """Work beyond the useful, relative to it."""
        return self.done / self.useful - 1.0 if self.useful else 0.0
