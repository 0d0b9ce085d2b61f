"""The steps of a run: who is told of them, and how long each phase of the run takes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal, TypeAlias

from ..monitoring.progress import RunProgress, Watcher

logger = logging.getLogger(__name__)

Phase: TypeAlias = Literal["start", "plan", "work", "end"]
"""What a run does. start: open the model and the images, start the cluster, send the model; plan:
choose the plan, while a local cluster starts; work: from the first block to the last; end: record
what happened."""

PHASES: tuple[Phase, ...] = ("start", "plan", "work", "end")


class RunSteps:
    """Tells a watcher and the log what a run does, and measures its phases.

    Parameters
    ----------
    watcher
        Shows the steps and the progress.
    began
        When the run began, by ``time.monotonic``; now if it is None.
    say
        Called with what the user is told at once, such as the address of the dashboard; by default
        the log has it.
    """

    def __init__(
        self,
        watcher: Watcher,
        began: float | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._watcher = watcher
        self._say = say or logger.info
        self._said = ""
        self._phase: Phase = "start"
        self._since = time.monotonic() if began is None else began
        self._seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)

    def step(self, what: str, phase: Phase = "start") -> None:
        """Show what is done before the first block, and to which phase it belongs."""
        self._enter(phase)
        logger.info("%s", what)
        self._watcher.step(what)

    def begin(self, run: str) -> None:
        """Take note that the first block is about to start, and of the run's id in task keys."""
        self._enter("work")
        self._watcher.begin(run)

    def advance(self, advance: RunProgress) -> None:
        """Show how far the run is."""
        self._watcher.advance(advance)

    def end(self) -> None:
        """Take note that the last block has ended."""
        self._enter("end")

    def say(self, text: str) -> None:
        """Tell the user something at once, unless it was the last thing that was said."""
        if text != self._said:
            self._said = text
            self._say(text)

    @property
    def phases(self) -> dict[str, float]:
        """Seconds of each phase until now."""
        self._enter(self._phase)
        return {phase: round(seconds, 3) for phase, seconds in self._seconds.items()}

    def _enter(self, phase: Phase) -> None:
        now = time.monotonic()
        self._seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now
