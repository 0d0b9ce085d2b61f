"""What the scheduler answers to :mod:`.report`, and how errors in the plugin become known."""

from __future__ import annotations

import logging
import traceback
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from distributed.metrics import time

from .messages import RunDropped
from .report import ALIVE, FORGET, REPORT
from .state import AnyKState

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed.scheduler import Scheduler

__all__ = ["Answers", "Failures"]

logger = logging.getLogger(__name__)


class Failures:
    """Errors inside the plugin, which Dask would only log.

    They are kept from the scheduler, counted, and reported to clients; ``texts`` has the
    latest tracebacks.
    """

    def __init__(self) -> None:
        self.count = 0
        self.texts: deque[str] = deque(maxlen=20)

    @contextmanager
    def kept(self, where: str) -> Iterator[None]:
        """Run something, and note its error instead of raising it."""
        try:
            yield
        except Exception:  # noqa: BLE001 - whatever it is, it must not reach the scheduler
            self.note(where)

    def note(self, where: str) -> None:
        """Note the error that is being handled."""
        self.count += 1
        self.texts.append(f"in {where}: {traceback.format_exc()}")
        logger.exception("the any-k plugin failed in %s", where)


class Answers:
    """Answers clients' questions about a state machine."""

    def __init__(self, state: AnyKState, guarded: Collection[Key], failures: Failures) -> None:
        self._state = state
        self._guarded = guarded
        self._failures = failures

    def install(self, scheduler: Scheduler) -> None:
        """Answer the calls that come to a scheduler."""
        scheduler.handlers[REPORT] = self.report
        scheduler.handlers[ALIVE] = self.alive
        scheduler.handlers[FORGET] = self.forget

    async def report(self, run: str, timeline: bool = True) -> dict[str, Any]:
        """Answer :func:`.report.anyk_report`."""
        answer = self._state.history.look(run).as_dict(timeline)
        return {**answer, "failures": list(self._failures.texts)}

    async def alive(self) -> dict[str, int]:
        """Answer :func:`.report.anyk_alive`."""
        known = self._state.registry
        return {
            "groups": len(known.groups),
            "shares": len(known.members),
            "nodes": len(known.nodes),
            "blocks": len(known.blocks),
            "tasks": len(self._guarded),
            "doubles": len(self._state.doubles),
        }

    async def forget(self, run: str) -> None:
        """Answer :func:`.report.anyk_forget`."""
        self._state.handle(RunDropped(time(), run))
