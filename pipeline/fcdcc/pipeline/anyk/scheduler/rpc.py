"""What the scheduler answers to :mod:`.report`, and how errors in the plugin become known."""

from __future__ import annotations

import logging
import traceback
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from distributed.metrics import time

from ..queries import ALIVE, FORGET, REPORT
from ..state_machine.events import RunDropped
from ..state_machine.state import AnyKState

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed.scheduler import Scheduler


logger = logging.getLogger(__name__)


class Failures:
    """Errors inside the plugin, which Dask would only log.

    They are kept from the scheduler, counted, and reported to clients; ``texts`` has the
    latest tracebacks.
    """

    def __init__(self) -> None:
        self.count = 0
        self.texts: deque[str] = deque(maxlen=20)

    def kept(self, where: object) -> _Kept:
        """Return a context in which an error is noted instead of raised."""
        return _Kept(self, where)

    def note(self, where: object) -> None:
        """Note the error that is being handled."""
        self.count += 1
        self.texts.append(f"in {where}: {traceback.format_exc()}")
        logger.exception("the any-k plugin failed in %s", where)


class _Kept:
    """What a hook runs in; ``contextlib`` would cost more than most of what it does."""

    def __init__(self, failures: Failures, where: object) -> None:
        self._failures, self._where = failures, where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        if kind is None or not issubclass(kind, Exception):
            return False
        self._failures.note(self._where)
        return True


class SchedulerRPC:
    """Answers clients' questions about a state machine.

    Before any answer ``catch_up`` tells it of all that has happened.
    """

    def __init__(
        self,
        state: AnyKState,
        guarded: Collection[Key],
        failures: Failures,
        catch_up: Callable[[], None],
    ) -> None:
        self._state = state
        self._guarded = guarded
        self._failures = failures
        self._catch_up = catch_up

    def install(self, scheduler: Scheduler) -> None:
        """Answer the calls that come to a scheduler."""
        scheduler.handlers[REPORT] = self.report
        scheduler.handlers[ALIVE] = self.alive
        scheduler.handlers[FORGET] = self.forget

    async def report(self, run: str, timeline: bool = True) -> dict[str, Any]:
        """Answer :func:`.report.anyk_report`."""
        self._catch_up()
        answer = self._state.history.look(run).as_dict(timeline)
        return {**answer, "failures": list(self._failures.texts)}

    async def alive(self) -> dict[str, int]:
        """Answer :func:`.report.anyk_alive`."""
        self._catch_up()
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
        self._catch_up()
        self._state.handle(RunDropped(time(), run))
