"""Single tasks that are late: started again elsewhere, and the first answer wins.

A read, a gather, glue, an any-k node or a write exists once, and everybody would wait for
the worker that has it. When that is late the task gets a *twin*: the same task under another
key, on another worker. The first run goes on.

::

    task   started ──────────────▶ done              the twin is dropped
    twin        └─ started ──────  ─ ─ ▶

    task   started ──────── ─ ─ ▶ taken back ─▶ started where the twin is ─▶ done
    twin        └─ started ─────▶ done         adopts the twin's result

Whatever the late worker returns after that, Dask ignores as it does any stale answer. The
twin needs the inputs that the task has, so nothing is computed again for it, and both see
the same values. Only tasks of ours are doubled (:mod:`fcdcc.pipeline.keys`): they are pure,
and a write stores the same bytes in the same place, or nothing where the block is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from fcdcc.pipeline.anyk.keys import parse_key

from .events import CancelBackup, Instruction, Key, StartBackup, UseBackup


class Phase(StrEnum):
    """Where a task or its twin stands."""

    WAITING = "waiting"
    STARTED = "started"
    DONE = "done"
    GONE = "gone"


@dataclass
class _Pair:
    task: Key
    backup: Key
    task_phase: Phase = Phase.STARTED
    backup_phase: Phase = Phase.WAITING
    adopted: bool = False


class BackupTasks:
    """The tasks that have twins."""

    def __init__(self) -> None:
        self._pairs: dict[Key, _Pair] = {}
        self._task_of: dict[Key, Key] = {}
        self._dirty: dict[Key, None] = {}
        self._numbers: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def unsettled(self) -> bool:
        """Whether :meth:`settle` may have an answer."""
        return bool(self._dirty)

    def knows(self, key: Key) -> bool:
        """Return whether a key is that of a twin or of a task that has one."""
        return key in self._pairs or key in self._task_of

    def remembers(self, key: Key) -> bool:
        """Return whether anything is kept under a key."""
        return key in self._numbers or key in self._task_of

    def original(self, key: Key) -> Key:
        """Return the task that a twin belongs to; any other key is returned as it is."""
        return self._task_of.get(key, key)

    def backup_of(self, key: Key) -> Key | None:
        """Return the twin that a task has now, if any."""
        pair = self._pairs.get(key)
        return None if pair is None else pair.backup

    def is_adopting(self, key: Key) -> bool:
        """Return whether a task that runs only takes over its twin's result."""
        pair = self._pairs.get(key)
        return pair is not None and pair.adopted

    @staticmethod
    def may_double(key: Key) -> bool:
        """Return whether a task is one of ours, and so may run twice."""
        return parse_key(key) is not None

    def begin(self, key: Key, worker: str) -> StartBackup:
        """Give a task that was started a twin on this worker."""
        number = self._numbers[key] = self._numbers.get(key, 0) + 1
        backup: Key = (*key, number) if isinstance(key, tuple) else (key, number)
        self._pairs[key] = _Pair(key, backup)
        self._task_of[backup] = key
        return StartBackup(key, backup, worker)

    def note(self, key: Key, phase: Phase) -> None:
        """Note where a task or a twin stands now; what has nothing to do with twins is ignored."""
        pair = self._pairs.get(self._task_of.get(key, key))
        if pair is None:
            return
        if key == pair.task:
            pair.task_phase = phase
        else:
            pair.backup_phase = phase
        self._dirty[pair.task] = None

    def forget(self, key: Key) -> None:
        """Forget how often a task was doubled: it is gone for good."""
        self.note(key, Phase.GONE)
        self._numbers.pop(key, None)

    def settle(self) -> Iterator[Instruction]:
        """Decide for all pairs about which there is news."""
        dirty, self._dirty = self._dirty, {}
        for key in dirty:
            pair = self._pairs.get(key)
            if pair is None:
                continue
            if pair.task_phase in (Phase.DONE, Phase.GONE):
                yield from self._end(pair)
            elif pair.adopted:
                continue
            elif pair.backup_phase is Phase.GONE:
                yield from self._end(pair)
            elif pair.task_phase is Phase.STARTED and pair.backup_phase is Phase.DONE:
                pair.adopted = True
                yield UseBackup(pair.task, pair.backup)

    def _end(self, pair: _Pair) -> Iterator[Instruction]:
        del self._pairs[pair.task]
        del self._task_of[pair.backup]
        if not pair.adopted:
            yield CancelBackup(pair.backup)
